"""Search one generation of an index: filter, dense and lexical search, fusion, reranking, arranging; each stage timed.

:class:`Searcher` runs the stages over any :class:`rag.search.backend.Backend`. :func:`convex_fusion` and
:func:`reciprocal_rank_fusion` join the dense and the lexical scores, :class:`Stopwatch` measures the stages.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date

import numpy as np

from rag.embedding.language import language_note
from rag.embedding.protocol import Configurable, Encoder
from rag.embedding.reranker import Scorer, rerank, truncation_notes, with_answers
from rag.indexing.chunking import Chunker
from rag.search.backend import Backend, ChunkSelection
from rag.search.filters import day_span
from rag.search.postprocessing import arrange_hits, join_chunks, with_neighbours
from rag.search.query import Query
from rag.settings import IndexSettings
from rag.stores.bm25 import inverse_frequency, query_words
from rag.types import Hit, Results

RRF_K = 60
"""The constant k of reciprocal rank fusion (Cormack, Clarke and Büttcher 2009)."""
FULL_MATCH = 0.2
"""Share of the most that BM25 could score from which a question counts as worded like its passage."""
MOST_LEXICAL_ODDS = 1.5
"""Factor of the odds of BM25's weight for such a question. On 4,800 answerable questions of 50 imagined houses, in the
documents' words and twice in customers', the right document is first in .957, .884 and .460 (with a constant weight .954,
.892 and .399), on the 1,078 of concierge in .906 (.905). The constants were chosen on these."""
OVERSAMPLING = 4
"""Factor by which the search depth grows if too few hits are left after collapsing and limiting."""


class Stopwatch:
    """Milliseconds by stage; a stage that runs several times is summed."""

    def __init__(self) -> None:
        """Start the total."""
        self._start = time.perf_counter()
        self._stages: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._stages[name] = self._stages.get(name, 0.0) + (time.perf_counter() - start) * 1000

    def part(self, count: int) -> Stopwatch:
        """Return a stopwatch that starts with one of ``count`` equal parts of the time so far."""
        other = Stopwatch()
        other._start -= (time.perf_counter() - self._start) / count
        other._stages = {name: ms / count for name, ms in self._stages.items()}
        return other

    def read(self) -> dict[str, float]:
        """Return the milliseconds of each stage and in total, rounded to two places."""
        total = (time.perf_counter() - self._start) * 1000
        return {name: round(ms, 2) for name, ms in {**self._stages, "total": total}.items()}


class Searcher:
    """Searches one generation of an index."""

    def __init__(self, backend: Backend, encoder: Encoder, reranker: Scorer | None = None) -> None:
        """Store the parts.

        Args:
            backend: holds the chunks.
            encoder: embeds the questions.
            reranker: puts the best candidates into its order; None for the order of the fused scores.
        """
        self._backend = backend
        self._encoder = encoder
        self._reranker = reranker

    def find(
        self, questions: Sequence[str], queries: Sequence[Query], settings: IndexSettings
    ) -> list[Results]:
        """Return the results of each question under its own query.

        Work that the questions share is done at once, and its time is divided equally among them.

        Args:
            questions: embedded in one batch.
            queries: one for each question.
            settings: of the index.
        """
        if not questions:
            return []
        today = date.today()
        watch = Stopwatch()
        with watch.stage("embed"):
            vectors = self._encoder.encode(questions, query=True)
        with watch.stage("filter"):
            selections = [self._backend.select(query, today) for query in queries]
        with watch.stage("dense"):
            depths = [max(settings.pool, query.k, self._reranked(query)) for query in queries]
            nearest = self._backend.by_vector(vectors, max(depths), selections)
        results = []
        for question, vector, query, selection, ids, depth in zip(
            questions, vectors, queries, selections, nearest, depths, strict=True
        ):
            day = query.as_of or today
            own_watch = watch.part(len(questions))
            results.append(
                self._result(
                    _Search(question, vector, query, selection, day, own_watch), ids, depth, settings
                )
            )
        return results

    @property
    def encoder(self) -> Encoder:
        """The embedder of the questions."""
        return self._encoder

    def rerank(
        self, scorer: Scorer, question: str, hits: Sequence[Hit], depth: int, settings: IndexSettings
    ) -> list[Hit]:
        """Return hits with the first ``depth`` in the order of a reranker, which reads what was embedded of each."""
        text = Chunker(self._encoder, settings).embedded_text
        return rerank(scorer, question, hits, depth, text)

    def read(
        self, reader: Scorer, question: str, hits: Sequence[Hit], depth: int, settings: IndexSettings
    ) -> list[Hit]:
        """Return hits in their order, the first ``depth`` with the log odds that they answer the question."""
        text = Chunker(self._encoder, settings).embedded_text
        return with_answers(reader, question, hits, depth, text)

    def _result(self, search: _Search, nearest: np.ndarray, depth: int, settings: IndexSettings) -> Results:
        """Rank the candidates, search deeper as long as too few hits are left, and complete the hits."""
        query = search.query
        watch = search.watch
        truncated_before = self._reranker.truncated if self._reranker else 0
        while True:
            ranked = self._ranked(search, nearest, depth, settings)
            with watch.stage("arrange"):
                hits = arrange_hits(ranked, query)
            if len(hits) >= query.k or depth >= search.selection.count:
                break
            depth *= OVERSAMPLING
            with watch.stage("dense"):
                nearest = self._backend.by_vector(search.vector[None], depth, [search.selection])[0]
        with watch.stage("arrange"):
            finished = tuple(self._finished(hits, search))
        notes = (*search.selection.notes, *self._remarks(search.question, truncated_before))
        return Results(finished, notes, watch.read())

    def _ranked(self, search: _Search, nearest: np.ndarray, depth: int, settings: IndexSettings) -> list[Hit]:
        """Return the candidates of both searches with exact scores of both, best first."""
        watch = search.watch
        with watch.stage("lexical"):
            matches = self._backend.by_words(search.question, depth, search.selection)
        with watch.stage("fuse"):
            # a candidate of one side gets its exact score on the other side too: nothing is taken as 0 for being unranked
            ids = np.union1d(matches.ids, nearest[:depth])
            if not len(ids):
                return []
            dense = self._backend.vectors(ids) @ search.vector
            lexical = matches.scores_of(ids)
            weight = search.query.lexical_weight
            weight = settings.lexical_weight if weight is None else weight
            if settings.fusion == "convex":
                best = float(lexical.max())
                if settings.weigh_by_rarity:
                    weight = weight_of_matches(weight, best, search.question, self._backend.facts.chunks)
                fused = convex_fusion(dense, lexical, weight)
            else:
                fused = reciprocal_rank_fusion(dense, lexical, weight)
            order = np.argsort(-fused, kind="stable")
            chunks = self._backend.chunks(ids[order].tolist())
            ranked = [
                Hit(chunk, float(fused[n]), float(dense[n]), float(lexical[n]))
                for chunk, n in zip(chunks, order.tolist(), strict=True)
            ]
        if self._reranker is None or not search.query.rerank:
            return ranked
        with watch.stage("rerank"):
            depth = self._reranked(search.query)
            return self.rerank(self._reranker, search.question, ranked, depth, settings)

    def _finished(self, hits: Sequence[Hit], search: _Search) -> Iterator[Hit]:
        """Yield the hits with their documents' metadata, joined with their neighbours if the query asks for them."""
        backend = self._backend
        shown = set[int]()
        for hit in hits:
            doc = hit.chunk.doc
            chunk = hit.chunk
            if search.query.neighbours:
                run = with_neighbours(chunk, backend.chunks_of(doc), search.query.neighbours, shown)
                shown.update(neighbour.id for neighbour in run)
                chunk = join_chunks(run, chunk, backend.raw(doc) or "") if len(run) > 1 else chunk
            metadata = backend.metadata(doc)
            days = day_span(metadata.get("valid_until"))
            expired = days is not None and days.last < search.day
            yield replace(hit, chunk=chunk, metadata=metadata, expired=expired)

    def _remarks(self, question: str, truncated_before: int) -> Iterator[str]:
        """Yield remarks for the user about this search, besides those of the filters."""
        if note := language_note([question], self._encoder, "the question"):
            yield note
        encoder = self._encoder
        if isinstance(encoder, Configurable) and encoder.count_tokens(question) > encoder.max_tokens:
            yield (
                f"the question is longer than the {encoder.max_tokens} tokens that the embedder reads: the vectors of "
                "its parts were averaged"
            )
        if self._reranker:
            yield from truncation_notes(self._reranker.truncated - truncated_before)

    def _reranked(self, query: Query) -> int:
        """Return the number of candidates given to the reranker."""
        return max(query.k, query.rerank) if self._reranker and query.rerank else 0


def convex_fusion(dense: np.ndarray, lexical: np.ndarray, weight: float) -> np.ndarray:
    """Return ``(1 - weight) * dense + weight * lexical``, each scaled to 0..1 over the candidates (Bruch et al. 2023).

    Both arrays are [candidates]. A side whose scores are all equal does not distinguish them and counts as 0.
    """
    return (1 - weight) * _scaled(dense) + weight * _scaled(lexical)


def weight_of_matches(weight: float, best: float, question: str, chunks: int) -> float:
    """Return the weight of BM25 for one question, by how much rarity its best match carries; 0 and 1 stay as they are.

    A question in the words of its document matches rare ones, another only words that are everywhere, which say nothing.
    The best score is compared with that of a text that had every word of the question, all of them in no other; the odds
    of the weight are multiplied by up to :data:`MOST_LEXICAL_ODDS`, at a share of :data:`FULL_MATCH`, and by 0 at none.

    Args:
        weight: of the index, 0 to 1.
        best: the best BM25 score.
        question: the question.
        chunks: how many chunks the index has.
    """
    if not 0 < weight < 1:
        return weight
    most = len(query_words(question)) * float(inverse_frequency(chunks, np.array(0)))
    share = best / most if most > 0 else 0.0
    odds = weight / (1 - weight) * MOST_LEXICAL_ODDS * min(1.0, share / FULL_MATCH)
    return odds / (1 + odds)


def reciprocal_rank_fusion(dense: np.ndarray, lexical: np.ndarray, weight: float = 0.5) -> np.ndarray:
    """Return the weighted sum of ``1 / (60 + rank)`` of both sides, [candidates]; a lexical score of 0 adds nothing."""
    lexical_part = np.where(lexical > 0, 1 / (RRF_K + _ranks(lexical)), 0.0)
    return (1 - weight) / (RRF_K + _ranks(dense)) + weight * lexical_part


def _scaled(scores: np.ndarray) -> np.ndarray:
    """Return scores scaled to 0..1 by their minimum and maximum; all 0 if they are equal."""
    scores = np.asarray(scores, dtype=np.float64)
    if not len(scores) or (spread := scores.max() - scores.min()) <= 0:
        return np.zeros(len(scores))
    return np.asarray((scores - scores.min()) / spread)


def _ranks(scores: np.ndarray) -> np.ndarray:
    """Return ranks from 1 for the best, float [n]; equal scores are ranked in their order."""
    ranks = np.empty(len(scores))
    ranks[np.argsort(-np.asarray(scores), kind="stable")] = np.arange(1, len(scores) + 1)
    return ranks


@dataclass(frozen=True, slots=True)
class _Search:
    """One question with its query, while it is searched."""

    question: str
    vector: np.ndarray
    query: Query
    selection: ChunkSelection
    day: date
    watch: Stopwatch

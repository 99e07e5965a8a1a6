"""Search one generation of an index: filter, dense and lexical search, fusion, reranking, arranging; each stage timed.

:class:`Searcher` runs the stages. :func:`convex_fusion` and :func:`reciprocal_rank_fusion` join the dense and the
lexical scores, :class:`Stopwatch` measures the stages.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property

import numpy as np

from rag.embedding.language import language_note
from rag.embedding.protocol import Configurable, Encoder
from rag.embedding.reranker import Scorer, rerank, truncation_notes
from rag.indexing.chunking import Chunker
from rag.search.documents import ChunkSelection, DocumentIndex
from rag.search.postprocessing import arrange_hits, join_chunks, with_neighbours
from rag.search.query import Query
from rag.settings import IndexSettings
from rag.stores.base import VectorStore
from rag.stores.bm25 import BM25Index
from rag.types import Chunk, Hit, Results

RRF_K = 60
"""The constant k of reciprocal rank fusion (Cormack, Clarke and Büttcher 2009)."""
MAX_POST_FILTERED = 256
"""If the filters leave out at most this many chunks, they are searched too and dropped from the results."""
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


@dataclass(frozen=True, slots=True)
class IndexParts:
    """The opened parts of one generation of an index."""

    chunks: Sequence[Chunk]
    """Sorted by id."""
    documents: DocumentIndex
    encoder: Encoder
    store: VectorStore
    lexical: BM25Index
    raw: Callable[[str], str | None]
    """Returns a document's source text by its id."""
    reranker: Scorer | None = None


class Searcher:
    """Searches one generation of an index."""

    def __init__(self, parts: IndexParts) -> None:
        """Store the parts."""
        self._parts = parts
        self._ids = np.array([chunk.id for chunk in parts.chunks], dtype=np.int64)

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
            vectors = self._parts.encoder.encode(questions, query=True)
        with watch.stage("filter"):
            selections = [self._parts.documents.select(query, today) for query in queries]
        with watch.stage("dense"):
            depths = [max(settings.pool, query.k, self._reranked(query)) for query in queries]
            nearest = self._nearest(vectors, queries, selections, max(depths))
        results = []
        for question, vector, query, selection, rows, depth in zip(
            questions, vectors, queries, selections, nearest, depths, strict=True
        ):
            day = query.as_of or today
            own_watch = watch.part(len(questions))
            results.append(
                self._result(
                    _Search(question, vector, query, selection, day, own_watch), rows, depth, settings
                )
            )
        return results

    @property
    def encoder(self) -> Encoder:
        """The embedder of the questions."""
        return self._parts.encoder

    def rerank(
        self, scorer: Scorer, question: str, hits: Sequence[Hit], depth: int, settings: IndexSettings
    ) -> list[Hit]:
        """Return hits with the first ``depth`` in the order of a reranker, which reads what was embedded of each."""
        text = Chunker(self._parts.encoder, settings).embedded_text
        return rerank(scorer, question, hits, depth, text)

    def _result(self, search: _Search, nearest: np.ndarray, depth: int, settings: IndexSettings) -> Results:
        """Rank the candidates, search deeper as long as too few hits are left, and complete the hits."""
        query = search.query
        watch = search.watch
        truncated_before = self._parts.reranker.truncated if self._parts.reranker else 0
        with watch.stage("filter"):
            allowed = self._allowed(query, search.selection)
        available = len(self._ids) if allowed is None else int(allowed.sum())
        while True:
            ranked = self._ranked(search, nearest, allowed, depth, settings)
            with watch.stage("arrange"):
                hits = arrange_hits(ranked, query)
            if len(hits) >= query.k or depth >= available:
                break
            depth *= OVERSAMPLING
            with watch.stage("dense"):
                nearest = self._nearest(search.vector[None], [query], [search.selection], depth)[0]
        with watch.stage("arrange"):
            finished = tuple(self._finished(hits, search))
        notes = (*search.selection.notes, *self._remarks(search.question, truncated_before))
        return Results(finished, notes, watch.read())

    def _nearest(
        self, vectors: np.ndarray, queries: Sequence[Query], selections: Sequence[ChunkSelection], depth: int
    ) -> list[np.ndarray]:
        """Return the rows of the chunks nearest to each vector, enough that ``depth`` of them are allowed.

        If few chunks are not allowed, that many more are requested; else the store gets the list of allowed ids.
        """
        # equal filters give the same cached selection, so their queries are searched together in one call
        groups: defaultdict[int, list[int]] = defaultdict(list)
        for n, selection in enumerate(selections):
            groups[id(selection)].append(n)
        nearest: dict[int, np.ndarray] = {}
        for members in groups.values():
            rows = selections[members[0]].rows
            left_out = 0 if rows is None else int((~rows).sum())
            among = self._ids[rows] if rows is not None and left_out > MAX_POST_FILTERED else None
            hidden = max(len(self._rows_of(queries[n].without)) for n in members)
            hidden += left_out if among is None else 0
            ids, _ = self._parts.store.search(vectors[members], depth + hidden, among)
            # chunk ids are sorted, so searchsorted gives the row of each id
            nearest |= zip(members, np.searchsorted(self._ids, ids), strict=True)
        return [nearest[n] for n in range(len(queries))]

    def _ranked(
        self,
        search: _Search,
        nearest: np.ndarray,
        allowed: np.ndarray | None,
        depth: int,
        settings: IndexSettings,
    ) -> list[Hit]:
        """Return the candidates of both searches with exact scores of both, best first."""
        parts = self._parts
        watch = search.watch
        with watch.stage("lexical"):
            scores = parts.lexical.scores(search.question)
            if allowed is not None:
                scores = np.where(allowed, scores, 0)
                nearest = nearest[allowed[nearest]]
            matching = np.flatnonzero(scores > 0)
            # only rows that match a word are lexical candidates; a stable sort keeps equal scores in row order
            lexical_rows = matching[np.argsort(-scores[matching], kind="stable")][:depth]
        with watch.stage("fuse"):
            # a candidate of one side gets its exact score on the other side too: nothing is taken as 0 for being unranked
            rows = np.union1d(lexical_rows, nearest[:depth])
            if not len(rows):
                return []
            dense = parts.store.vectors(self._ids[rows]) @ search.vector
            lexical = scores[rows]
            weight = search.query.lexical_weight
            fuse = convex_fusion if settings.fusion == "convex" else reciprocal_rank_fusion
            fused = fuse(dense, lexical, settings.lexical_weight if weight is None else weight)
            ranked = [
                Hit(parts.chunks[rows[n]], float(fused[n]), float(dense[n]), float(lexical[n]))
                for n in np.argsort(-fused, kind="stable").tolist()
            ]
        if parts.reranker is None or not search.query.rerank:
            return ranked
        with watch.stage("rerank"):
            depth = self._reranked(search.query)
            return self.rerank(parts.reranker, search.question, ranked, depth, settings)

    def _finished(self, hits: Sequence[Hit], search: _Search) -> Iterator[Hit]:
        """Yield the hits with their documents' metadata, joined with their neighbours if the query asks for them."""
        documents = self._parts.documents
        shown = set[int]()
        for hit in hits:
            doc = hit.chunk.doc
            chunk = hit.chunk
            if search.query.neighbours:
                rows = self._by_document[doc]
                run = with_neighbours(
                    chunk, [self._parts.chunks[n] for n in rows], search.query.neighbours, shown
                )
                shown.update(neighbour.id for neighbour in run)
                chunk = join_chunks(run, chunk, self._parts.raw(doc) or "") if len(run) > 1 else chunk
            expired = documents.has_expired(doc, search.day)
            yield replace(hit, chunk=chunk, metadata=documents.metadata(doc), expired=expired)

    def _remarks(self, question: str, truncated_before: int) -> Iterator[str]:
        """Yield remarks for the user about this search, besides those of the filters."""
        if note := language_note([question], self._parts.encoder, "the question"):
            yield note
        encoder = self._parts.encoder
        if isinstance(encoder, Configurable) and encoder.count_tokens(question) > encoder.max_tokens:
            yield (
                f"the question is longer than the {encoder.max_tokens} tokens that the embedder reads: the vectors of "
                "its parts were averaged"
            )
        reranker = self._parts.reranker
        if reranker:
            yield from truncation_notes(reranker.truncated - truncated_before)

    def _reranked(self, query: Query) -> int:
        """Return the number of candidates given to the reranker."""
        return max(query.k, query.rerank) if self._parts.reranker and query.rerank else 0

    def _allowed(self, query: Query, selection: ChunkSelection) -> np.ndarray | None:
        """Return which rows may be returned, bool [chunks]; None for all."""
        hidden = self._rows_of(query.without)
        if not hidden:
            return selection.rows
        allowed = np.ones(len(self._ids), dtype=bool) if selection.rows is None else selection.rows.copy()
        allowed[hidden] = False
        return allowed

    def _rows_of(self, documents: Collection[str]) -> list[int]:
        return [row for doc in set(documents) for row in self._by_document.get(doc, ())]

    @cached_property
    def _by_document(self) -> dict[str, list[int]]:
        """The rows of each document's chunks, in the order of the text."""
        rows_of_documents: defaultdict[str, list[int]] = defaultdict(list)
        for row, chunk in enumerate(self._parts.chunks):
            rows_of_documents[chunk.doc].append(row)
        return {
            doc: sorted(rows, key=lambda row: self._parts.chunks[row].ordinal)
            for doc, rows in rows_of_documents.items()
        }


def convex_fusion(dense: np.ndarray, lexical: np.ndarray, weight: float) -> np.ndarray:
    """Return ``(1 - weight) * dense + weight * lexical``, each scaled to 0..1 over the candidates (Bruch et al. 2023).

    Both arrays are [candidates]. A side whose scores are all equal does not distinguish them and counts as 0.
    """
    return (1 - weight) * _scaled(dense) + weight * _scaled(lexical)


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

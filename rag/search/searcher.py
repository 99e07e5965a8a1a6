"""Search: filter, look by meaning and by words, fuse, rerank, arrange; every stage timed.

Where the time of a search goes, stage by stage.

Join the two searches: a weighted sum of min-max scores (convex), or reciprocal ranks (RRF).
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
from rag.embedding.protocol import Encoder
from rag.embedding.reranker import Scorer, rerank
from rag.indexing.chunking import Chunker
from rag.search.documents import ChunkSelection, DocumentIndex
from rag.search.postprocessing import arrange_hits, join_chunks, with_neighbours
from rag.search.query import Query
from rag.settings import IndexSettings
from rag.stores.base import VectorStore
from rag.stores.bm25 import BM25Index
from rag.types import Chunk, Hit, Results


class Stopwatch:
    """Milliseconds by stage; a stage that comes again is added up."""

    def __init__(self) -> None:
        """Begin."""
        self._began = time.perf_counter()
        self._stages: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is done inside."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._stages[name] = self._stages.get(name, 0.0) + (time.perf_counter() - began) * 1000

    def part(self, count: int) -> Stopwatch:
        """Return a watch that begins with one of ``count`` equal parts of what was timed so far."""
        other = Stopwatch()
        other._began -= (time.perf_counter() - self._began) / count
        other._stages = {name: ms / count for name, ms in self._stages.items()}
        return other

    def read(self) -> dict[str, float]:
        """Return the milliseconds of each stage and in total, with two places."""
        total = (time.perf_counter() - self._began) * 1000
        return {name: round(ms, 2) for name, ms in {**self._stages, "total": total}.items()}


RRF_K = 60
"""The constant of Cormack, Clarke and Büttcher 2009."""


def convex_fusion(dense: np.ndarray, lexical: np.ndarray, weight: float) -> np.ndarray:
    """Return ``(1 - weight) * dense + weight * lexical`` after scaling each to 0..1 over the candidates.

    Both arrays hold one score per candidate. A side whose scores are all equal says nothing and counts as 0.
    """
    return (1 - weight) * _scaled(dense) + weight * _scaled(lexical)


def reciprocal_rank_fusion(dense: np.ndarray, lexical: np.ndarray, weight: float = 0.5) -> np.ndarray:
    """Return the weighted sum of ``1 / (60 + rank)``; a lexical score of 0 earns nothing."""
    by_words = np.where(lexical > 0, 1 / (RRF_K + _ranks(lexical)), 0.0)
    return (1 - weight) / (RRF_K + _ranks(dense)) + weight * by_words


def _scaled(scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, dtype=np.float64)
    if not len(scores) or (spread := scores.max() - scores.min()) <= 0:
        return np.zeros(len(scores))
    return np.asarray((scores - scores.min()) / spread)


def _ranks(scores: np.ndarray) -> np.ndarray:
    """Return ranks from 1 for the best; equal scores share the better rank's order of appearance."""
    ranks = np.empty(len(scores))
    ranks[np.argsort(-np.asarray(scores), kind="stable")] = np.arange(1, len(scores) + 1)
    return ranks


MAX_EXACT_ROWS = 256
"""Up to so many chunks that filters leave out are looked at and dropped."""
OVERSAMPLING = 4
"""How many times further to look when too few hits are left after collapsing and capping."""


@dataclass(frozen=True, slots=True)
class IndexParts:
    """What is searched: one generation of an index, opened."""

    chunks: Sequence[Chunk]
    """Sorted by id."""
    documents: DocumentIndex
    encoder: Encoder
    store: VectorStore
    lexical: BM25Index
    raw: Callable[[str], str | None]
    """Gives a document's source text."""
    reranker: Scorer | None = None


@dataclass(frozen=True, slots=True)
class _Asked:
    """One question on its way."""

    question: str
    vector: np.ndarray
    query: Query
    selection: ChunkSelection
    day: date
    watch: Stopwatch


class Searcher:
    """Searches one generation of an index."""

    def __init__(self, parts: IndexParts) -> None:
        """Keep the parts."""
        self._parts = parts
        self._ids = np.array([chunk.id for chunk in parts.chunks], dtype=np.int64)

    def find(
        self, questions: Sequence[str], queries: Sequence[Query], settings: IndexSettings
    ) -> list[Results]:
        """Return the results of each question under its own query.

        What questions share is done at once, and its time counted for each with an equal part.
        """
        if not questions:
            return []
        today, watch = date.today(), Stopwatch()
        with watch.stage("embed"):
            vectors = self._parts.encoder.encode(questions, query=True)
        with watch.stage("filter"):
            selections = [self._parts.documents.select(query, today) for query in queries]
        with watch.stage("dense"):
            depths = [max(settings.pool, query.k, self._reranked(query)) for query in queries]
            near = self._nearest(vectors, queries, selections, max(depths))
        results = []
        for question, vector, query, selection, rows, depth in zip(
            questions, vectors, queries, selections, near, depths, strict=True
        ):
            day, own = query.as_of or today, watch.part(len(questions))
            results.append(
                self._result(_Asked(question, vector, query, selection, day, own), rows, depth, settings)
            )
        return results

    def _result(self, asked: _Asked, near: np.ndarray, depth: int, settings: IndexSettings) -> Results:
        """Rank, look further while too few hits are left, and finish the hits."""
        query, watch = asked.query, asked.watch
        cut = self._parts.reranker.truncated if self._parts.reranker else 0
        with watch.stage("filter"):
            allowed = self._allowed(query, asked.selection)
        available = len(self._ids) if allowed is None else int(allowed.sum())
        while True:
            ranked = self._ranked(asked, near, allowed, depth, settings)
            with watch.stage("arrange"):
                hits = arrange_hits(ranked, query)
            if len(hits) >= query.k or depth >= available:
                break
            depth *= OVERSAMPLING
            with watch.stage("dense"):
                near = self._nearest(asked.vector[None], [query], [asked.selection], depth)[0]
        with watch.stage("arrange"):
            finished = tuple(self._finished(hits, asked))
        notes = (*asked.selection.notes, *self._remarks(asked.question, cut))
        return Results(finished, notes, watch.read())

    def _nearest(
        self, vectors: np.ndarray, queries: Sequence[Query], selections: Sequence[ChunkSelection], depth: int
    ) -> list[np.ndarray]:
        """Return the rows of the chunks nearest to each vector, so many that ``depth`` of them may be found.

        Where few chunks may not be found, as many more are looked for; else the store is told which may.
        """
        groups: defaultdict[int, list[int]] = defaultdict(list)
        for n, selection in enumerate(selections):
            groups[id(selection)].append(n)
        near: dict[int, np.ndarray] = {}
        for members in groups.values():
            rows = selections[members[0]].rows
            left_out = 0 if rows is None else int((~rows).sum())
            among = self._ids[rows] if rows is not None and left_out > MAX_EXACT_ROWS else None
            hidden = max(len(self._rows_of(queries[n].without)) for n in members)
            hidden += left_out if among is None else 0
            ids, _ = self._parts.store.search(vectors[members], depth + hidden, among)
            near |= zip(members, np.searchsorted(self._ids, ids), strict=True)
        return [near[n] for n in range(len(queries))]

    def _ranked(
        self, asked: _Asked, near: np.ndarray, allowed: np.ndarray | None, depth: int, settings: IndexSettings
    ) -> list[Hit]:
        """Join both searches: the candidates of either side, both scores exact for each, best first."""
        parts, watch = self._parts, asked.watch
        with watch.stage("lexical"):
            scores = parts.lexical.scores(asked.question)
            if allowed is not None:
                scores = np.where(allowed, scores, 0)
                near = near[allowed[near]]
            matching = np.flatnonzero(scores > 0)
            worded = matching[np.argsort(-scores[matching], kind="stable")][:depth]
        with watch.stage("fuse"):
            rows = np.union1d(worded, near[:depth])
            if not len(rows):
                return []
            dense, lexical = parts.store.vectors(self._ids[rows]) @ asked.vector, scores[rows]
            weight = asked.query.lexical_weight
            join = convex_fusion if settings.fusion == "convex" else reciprocal_rank_fusion
            fused = join(dense, lexical, settings.lexical_weight if weight is None else weight)
            ranked = [
                Hit(parts.chunks[rows[n]], float(fused[n]), float(dense[n]), float(lexical[n]))
                for n in np.argsort(-fused, kind="stable").tolist()
            ]
        if parts.reranker is None or not asked.query.rerank:
            return ranked
        with watch.stage("rerank"):
            text = Chunker(parts.encoder, settings).embedded_text
            return rerank(parts.reranker, asked.question, ranked, self._reranked(asked.query), text)

    def _finished(self, hits: Sequence[Hit], asked: _Asked) -> Iterator[Hit]:
        """Yield the hits with their documents' metadata, and with their neighbours where these are wanted."""
        documents, shown = self._parts.documents, set[int]()
        for hit in hits:
            doc, chunk = hit.chunk.doc, hit.chunk
            if asked.query.neighbours:
                rows = self._by_document[doc]
                run = with_neighbours(
                    chunk, [self._parts.chunks[n] for n in rows], asked.query.neighbours, shown
                )
                shown.update(each.id for each in run)
                chunk = join_chunks(run, chunk, self._parts.raw(doc) or "") if len(run) > 1 else chunk
            expired = documents.has_expired(doc, asked.day)
            yield replace(hit, chunk=chunk, metadata=documents.metadata(doc), expired=expired)

    def _remarks(self, question: str, cut: int) -> Iterator[str]:
        """Yield what the user should know of this search besides what the filters left out."""
        if note := language_note([question], self._parts.encoder, "the question"):
            yield note
        reranker = self._parts.reranker
        if reranker and (more := reranker.truncated - cut):
            yield f"{more} of the passages were longer than the reranker reads, and judged by their beginnings"

    def _reranked(self, query: Query) -> int:
        """Return how many candidates the reranker is given."""
        return max(query.k, query.rerank) if self._parts.reranker and query.rerank else 0

    def _allowed(self, query: Query, selection: ChunkSelection) -> np.ndarray | None:
        """Return which rows may be found, bool [chunks]; None for all."""
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
        found: defaultdict[str, list[int]] = defaultdict(list)
        for row, chunk in enumerate(self._parts.chunks):
            found[chunk.doc].append(row)
        return {
            doc: sorted(rows, key=lambda row: self._parts.chunks[row].ordinal) for doc, rows in found.items()
        }

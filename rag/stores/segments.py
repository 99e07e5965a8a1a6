"""Vectors and words of a generation that consists of a base and a few rows added to and removed from it.

The base is what a whole build wrote and is never changed; the added rows have a store and a BM25 index of their own,
rewritten by every update. So an update costs what it changes, not what the index holds. Results are those of a whole
build: the same candidates, exact inner products, and BM25 by the statistics of all rows that remain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from rag.errors import BadInput
from rag.stores.base import VectorStore, refuse_mapped
from rag.stores.bm25 import BM25Index, inverse_frequency, length_norm, query_words, summed_postings


class SegmentedStore:
    """A base store without some of its ids, and a store of added vectors; for reading only."""

    def __init__(self, base: VectorStore, added: VectorStore, removed: np.ndarray) -> None:
        """Take the parts.

        Args:
            base: the store of a whole build.
            added: vectors under ids that are higher than all of the base.
            removed: ids of the base that are left out, ascending, int64.
        """
        self._base = base
        self._added = added
        self._removed = removed

    @cached_property
    def ids(self) -> np.ndarray:
        """All ids, those of the base first."""
        base = self._base.ids
        return np.concatenate([base[~np.isin(base, self._removed)], self._added.ids])

    def add(self, ids: np.ndarray, vectors: np.ndarray) -> None:
        """Raise BadInput: segments are written with a generation."""
        refuse_mapped(True)

    def vectors(self, ids: np.ndarray) -> np.ndarray:
        """Return the stored vectors of ids; KeyError for an unknown or removed one."""
        ids = np.asarray(ids, dtype=np.int64)
        if np.isin(ids, self._removed).any():
            raise KeyError(f"not in the store: one of {ids[:5].tolist()}")
        in_added = np.isin(ids, self._added.ids)
        of_base = self._base.vectors(ids[~in_added])
        of_added = self._added.vectors(ids[in_added])
        vectors = np.empty((len(ids), max(of_base.shape[1], of_added.shape[1])), dtype=np.float32)
        vectors[~in_added] = of_base
        vectors[in_added] = of_added
        return vectors

    def search(
        self, queries: np.ndarray, k: int, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the best ids and inner products of both parts.

        As many more results are asked of the base as ids are removed, so that k remain in any case.
        """
        if among is not None:
            among = np.asarray(among, dtype=np.int64)
            among = among[~np.isin(among, self._removed)]
        extra = len(self._removed) if among is None else 0
        base_ids, base_scores = self._base.search(queries, k + extra, among)
        added_ids, added_scores = self._added.search(queries, k, among)
        gone = np.isin(base_ids, self._removed)
        scores = np.concatenate([np.where(gone, -np.inf, base_scores), added_scores], axis=1)
        ids = np.concatenate([base_ids, added_ids], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")
        count = min(k, scores.shape[1] - (int(gone.sum(axis=1).max()) if len(gone) else 0))
        order = order[:, : max(count, 0)]
        best = np.take_along_axis(scores, order, axis=1).astype(np.float32)
        return np.take_along_axis(ids, order, axis=1), best

    def save(self, folder: Path) -> None:
        """Raise BadInput: segments are written with a generation."""
        refuse_mapped(True)

    @classmethod
    def load(cls, folder: Path, dimension: int, *, mapped: bool = False) -> Self:
        """Raise BadInput: see :func:`rag.indexing.segments.load_store`."""
        raise BadInput(f"{folder} is read through the manifest of its generation")


@dataclass(frozen=True, slots=True)
class WordSegment:
    """The words of some rows, and which of the rows remain."""

    bm25: BM25Index
    lengths: np.ndarray
    """Number of words of each row, int64 [rows]."""
    removed: np.ndarray
    """Positions of the rows that are left out, ascending, int64."""
    removed_frequency: dict[int, int]
    """How many of the removed rows contain a word, by the word's number in this segment."""

    @property
    def remaining(self) -> int:
        """Number of rows that remain."""
        return len(self.lengths) - len(self.removed)


class SegmentedWords:
    """BM25 over the rows of several segments, by the statistics of all rows that remain.

    A row is numbered by its position among the rows that remain, segment after segment.
    """

    def __init__(self, segments: Sequence[WordSegment], k1: float, b: float) -> None:
        """Take the segments and the parameters of BM25."""
        self._segments = segments
        self._k1 = k1
        self._b = b
        self._rows = sum(segment.remaining for segment in segments)
        total = sum(int(s.lengths.sum()) - int(s.lengths[s.removed].sum()) for s in segments)
        self._mean_length = total / self._rows if self._rows else 0.0

    def matches(self, question: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows that contain a content word of the question, ascending, int64, and their scores, float32."""
        postings = []
        for word in query_words(question):
            in_segments = [
                (start, segment, number)
                for start, segment in self._with_starts()
                if (number := segment.bm25.numbers.get(word)) is not None
            ]
            frequency = sum(
                len(segment.bm25.postings(number)[0]) - segment.removed_frequency.get(number, 0)
                for _, segment, number in in_segments
            )
            if not frequency:
                continue
            idf = inverse_frequency(self._rows, np.array(frequency))
            parts = [self._scored(start, segment, number, idf) for start, segment, number in in_segments]
            rows, scores = (np.concatenate(columns) for columns in zip(*parts, strict=True))
            postings.append((rows, scores))
        return summed_postings(postings, self._rows)

    def _with_starts(self) -> list[tuple[int, WordSegment]]:
        """Return each segment with the number of rows that remain before it."""
        starts = np.cumsum([0, *(segment.remaining for segment in self._segments)])
        return [(int(start), segment) for start, segment in zip(starts, self._segments, strict=False)]

    def _scored(
        self, start: int, segment: WordSegment, number: int, idf: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the remaining rows of a segment that contain a word, and the word's score in each."""
        rows, _ = segment.bm25.postings(number)
        positions = np.searchsorted(segment.removed, rows)
        if len(segment.removed):
            present = segment.removed[np.minimum(positions, len(segment.removed) - 1)] != rows
        else:
            present = np.ones(len(rows), dtype=bool)
        counts = self._counts(segment, number)[present]
        norm = length_norm(segment.lengths[rows[present]], self._mean_length, self._k1, self._b)
        return start + rows[present] - positions[present], idf * (counts / (norm + counts))

    def _counts(self, segment: WordSegment, number: int) -> np.ndarray:
        """Return how often a word occurs in each row that contains it, float32, from the stored scores.

        A segment stores score = idf * tf / (norm + tf) by the statistics of its own rows, so that tf = r * norm / (1 - r)
        with r = score / idf; rounding removes the error of float32.
        """
        rows, scores = segment.bm25.postings(number)
        if self._k1 == 0:
            return np.ones(len(rows), dtype=np.float32)  # the score does not depend on the count
        count = len(segment.lengths)
        norm = length_norm(segment.lengths[rows], float(segment.lengths.mean()), self._k1, self._b)
        ratio = scores.astype(np.float64) / inverse_frequency(count, np.array(len(rows)))
        counts = np.rint(ratio * norm / np.maximum(1 - ratio, 1e-12))
        return np.maximum(counts, 1).astype(np.float32)

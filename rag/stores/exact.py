"""Exact search in one numpy matrix: the reference for every store, and what reads the vectors of older ones."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np

from rag.errors import BadInput
from rag.stores import base
from rag.stores.base import checked_ids, checked_vectors, refuse_mapped

IDS = "ids.npy"
VECTORS = "vectors.npy"


class ExactStore:
    """A matrix of vectors and a list of ids."""

    def __init__(self, dimension: int) -> None:
        """Create an empty store."""
        self._dimension = dimension
        self._ids = np.empty(0, dtype=np.int64)
        self._matrix = np.empty((0, dimension), dtype=np.float32)
        self._order: np.ndarray | None = None
        self._mapped = False

    @property
    def ids(self) -> np.ndarray:
        """All ids in the order in which they were added."""
        return self._ids

    def add(self, ids: np.ndarray, vectors: np.ndarray) -> None:
        """Add vectors under new ids."""
        refuse_mapped(self._mapped)
        vectors = checked_vectors(vectors, self._dimension)
        ids = checked_ids(ids, len(vectors), self._ids)
        self._ids = np.concatenate([self._ids, ids])
        self._matrix = np.concatenate([self._matrix, vectors]) if len(self._matrix) else vectors
        self._order = None

    def vectors(self, ids: np.ndarray) -> np.ndarray:
        """Return the stored vectors of ids."""
        rows, present = self._rows(np.asarray(ids, dtype=np.int64))
        if not present.all():
            raise KeyError(f"not in the store: one of {list(ids)[:5]}")
        return np.asarray(self._matrix[rows], dtype=np.float32).reshape(-1, self._dimension)

    def search(
        self, queries: np.ndarray, k: int, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the best ids and inner products; equal scores keep the order in which they were added."""
        queries = checked_vectors(queries, self._dimension)
        if among is None:
            return _best(_products(queries, self._matrix), self._ids, k)
        rows, present = self._rows(np.unique(np.asarray(among, dtype=np.int64)))
        rows = np.sort(rows[present])
        return _best(_products(queries, self._matrix[rows]), self._ids[rows], k)

    def save(self, folder: Path) -> None:
        """Write ``ids.npy`` and ``vectors.npy``."""
        base.write_array(folder / IDS, self._ids)
        base.write_array(folder / VECTORS, self._matrix)

    @classmethod
    def load(cls, folder: Path, dimension: int, *, mapped: bool = False) -> Self:
        """Read what :meth:`save` wrote; BadInput if shapes or values do not fit."""
        store = cls(dimension)
        ids, matrix = base.read_array(folder / IDS), base.read_array(folder / VECTORS, mapped=mapped)
        if matrix.ndim != 2 or matrix.shape[1] != dimension or matrix.dtype != np.float32:
            raise BadInput(f"the vectors in {folder} are {matrix.dtype} {matrix.shape}, not [n, {dimension}]")
        store._ids = checked_ids(ids, len(matrix), store._ids)
        store._matrix = matrix if mapped else checked_vectors(matrix, dimension)
        store._mapped = mapped
        return store

    def _rows(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return each id's row, int64 [ids], and whether the store has the id, bool [ids]."""
        if not len(self._ids):
            return np.zeros(len(ids), dtype=np.int64), np.zeros(len(ids), dtype=bool)
        if self._order is None:
            self._order = np.argsort(self._ids, kind="stable")
        # searchsorted gives the length for an id above all others; the comparison below then finds it missing
        positions = np.minimum(np.searchsorted(self._ids, ids, sorter=self._order), len(self._ids) - 1)
        rows = self._order[positions]
        return rows, self._ids[rows] == ids


def _products(queries: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return the inner products, float32 [queries, rows].

    One row after the other: in a product of matrices the last digits of a score depend on where its row stands and how
    many queries are asked, so that equal texts would not tie, and an updated index would differ from a new one.
    """
    scores = np.empty((len(queries), len(matrix)), dtype=np.float32)
    for number, query in enumerate(queries):
        np.vecdot(matrix, query, out=scores[number])
    return scores


def _best(scores: np.ndarray, ids: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids and scores of the k best of each row, both [queries, k]; ties keep the order of their columns."""
    k = max(0, min(k, scores.shape[1]))
    best = np.array([_best_columns(row, k) for row in scores], dtype=np.int64).reshape(len(scores), k)
    return ids[best], np.take_along_axis(scores, best, axis=1)


def _best_columns(row: np.ndarray, k: int) -> np.ndarray:
    """Return the columns of the k highest values, highest first; only these and their ties are sorted."""
    columns = np.arange(len(row))
    if 0 < k < len(row):
        columns = np.flatnonzero(row >= np.partition(row, len(row) - k)[len(row) - k])
    return columns[np.argsort(-row[columns], kind="stable")[:k]]

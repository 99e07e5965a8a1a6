"""The reference store: one numpy matrix, exact search. Every other store is tested against it."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np

from rag.stores.base import checked, checked_ids


class ExactStore:
    """A matrix of vectors and a list of ids."""

    def __init__(self, dimension: int) -> None:
        """Make an empty store."""
        self._dimension = dimension
        self._ids = np.empty(0, dtype=np.int64)
        self._matrix = np.empty((0, dimension), dtype=np.float32)

    @property
    def ids(self) -> np.ndarray:
        """All ids in the order in which they were added."""
        return self._ids

    def add(self, ids: np.ndarray, vectors: np.ndarray) -> None:
        """Add vectors under new ids."""
        vectors = checked(vectors, self._dimension)
        ids = checked_ids(ids, len(vectors), self._ids)
        self._ids = np.concatenate([self._ids, ids])
        self._matrix = np.concatenate([self._matrix, vectors])

    def vectors(self, ids: np.ndarray) -> np.ndarray:
        """Return the stored vectors of ids."""
        places = {int(id): row for row, id in enumerate(self._ids)}
        return self._matrix[[places[int(id)] for id in ids]].reshape(-1, self._dimension)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the best ids and inner products; equal scores keep the order in which they were added."""
        scores = checked(queries, self._dimension) @ self._matrix.T
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return self._ids[best], np.take_along_axis(scores, best, axis=1)

    def save(self, folder: Path) -> None:
        """Write ``ids.npy`` and ``vectors.npy``."""
        np.save(folder / "ids.npy", self._ids, allow_pickle=False)
        np.save(folder / "vectors.npy", self._matrix, allow_pickle=False)

    @classmethod
    def load(cls, folder: Path, dimension: int) -> Self:
        """Read what ``save`` wrote."""
        store = cls(dimension)
        vectors = np.load(folder / "vectors.npy", allow_pickle=False)
        store.add(np.load(folder / "ids.npy", allow_pickle=False), vectors)
        return store

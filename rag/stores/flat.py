"""The default store: FAISS ``IDMap2,Flat`` with inner product, exact up to about a million vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import faiss
import numpy as np

from rag.errors import BadInput, CannotRun
from rag.stores.base import checked, checked_ids, refuse_mapped

_FILE = "vectors.faiss"


def written(index: faiss.Index, path: Path) -> None:
    """Write an index and look at what came to the disk: CannotRun when it is not all there.

    When the last part of a file cannot be written, FAISS prints so and goes on.
    """
    faiss.write_index(index, str(path))
    try:
        there = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise CannotRun(
            f"cannot write {path}: it was cut off at {path.stat().st_size} bytes",
            "free some space and run it again",
        ) from error
    if (there.d, there.ntotal) != (index.d, index.ntotal):
        raise CannotRun(f"cannot write {path}: {there.ntotal} of {index.ntotal} vectors came to the disk")


class FlatStore:
    """A FAISS index behind our own checks of shape, type, finiteness and ids."""

    def __init__(self, dimension: int) -> None:
        """Make an empty store."""
        self._dimension = dimension
        self._index = faiss.IndexIDMap2(faiss.IndexFlatIP(dimension))
        self._mapped = False

    @property
    def ids(self) -> np.ndarray:
        """All ids in the order in which they were added."""
        return np.array(faiss.vector_to_array(self._index.id_map), dtype=np.int64)

    def add(self, ids: np.ndarray, vectors: np.ndarray) -> None:
        """Add vectors under new ids."""
        refuse_mapped(self._mapped)
        vectors = checked(vectors, self._dimension)
        self._index.add_with_ids(vectors, checked_ids(ids, len(vectors), self.ids))

    def vectors(self, ids: np.ndarray) -> np.ndarray:
        """Return the stored vectors of ids."""
        if not len(ids):
            return np.empty((0, self._dimension), dtype=np.float32)
        try:
            found = self._index.reconstruct_batch(np.ascontiguousarray(ids, dtype=np.int64))
        except RuntimeError as error:
            raise KeyError(f"not in the store: one of {list(ids)[:5]}") from error
        return np.asarray(found, dtype=np.float32)

    def search(
        self, queries: np.ndarray, k: int, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the best ids and inner products."""
        queries = checked(queries, self._dimension)
        chosen = None
        if among is not None:
            chosen = self.ids[np.isin(self.ids, np.asarray(among, dtype=np.int64))]
        k = min(k, self._index.ntotal if chosen is None else len(chosen))
        if k <= 0 or not len(queries):
            shape = (len(queries), max(k, 0))
            return np.empty(shape, dtype=np.int64), np.empty(shape, dtype=np.float32)
        only = None
        if chosen is not None:
            only = faiss.SearchParameters(sel=faiss.IDSelectorBatch(chosen))  # type: ignore[call-arg]
        scores, ids = self._index.search(queries, k, params=only)
        return np.asarray(ids, dtype=np.int64), np.asarray(scores, dtype=np.float32)

    def save(self, folder: Path) -> None:
        """Write ``vectors.faiss``."""
        written(self._index, folder / _FILE)

    @classmethod
    def load(cls, folder: Path, dimension: int, *, mapped: bool = False) -> Self:
        """Read what ``save`` wrote; BadInput when FAISS finds another kind or dimension in it."""
        store = cls(dimension)
        try:
            index = faiss.read_index(str(folder / _FILE), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
        except RuntimeError as error:
            raise BadInput(f"{folder / _FILE} cannot be read: {error}") from error
        if not isinstance(index, faiss.IndexIDMap2) or index.d != dimension:
            raise BadInput(f"{folder / _FILE} is a {type(index).__name__} of dimension {index.d}")
        store._index, store._mapped = index, mapped
        return store

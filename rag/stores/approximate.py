"""Stores for many vectors: FAISS proposes from one byte per value, exact vectors on the disk dispose.

The compressed index (inverted lists, a graph, or a plain scan) names four times as many candidates as were
asked for; these are scored again by their full vectors, which stay in a mapped file. So every score is
exact, and only what was never proposed can be missed; ``recall`` says how often that happened when the index
was made. How far FAISS looks is raised until ``GOOD`` recall is reached. One thread and fixed seeds make
equal contents give equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Self

import faiss
import numpy as np

from rag.errors import BadInput
from rag.stores.base import checked, recall, samples
from rag.stores.exact import ExactStore
from rag.stores.flat import written

_FILE, _FACTS = "proposer.faiss", "proposer.json"
FEWEST = 1000
"""Fewer vectors are searched exactly: FAISS refuses to train on less than one per cell and warns below 39."""
WIDER = 4
GOOD = 0.99
DEPTH = 10
"""Recall is measured at this depth."""
_QUERIES = 64


class ApproximateStore(ExactStore):
    """Exact vectors, found through a compressed FAISS index over their positions."""

    efforts: ClassVar[tuple[int, ...]] = (1,)

    def __init__(self, dimension: int) -> None:
        """Make an empty store."""
        super().__init__(dimension)
        self._index: faiss.Index | None = None
        self.effort = 0
        """The probes or the search depth of FAISS; 0 while the search is exact."""
        self.recall = 1.0
        """Share of the exact ten best that were found, over made queries."""

    def factory(self, count: int) -> str:
        """Return FAISS's name for the index over ``count`` vectors."""
        raise NotImplementedError

    def exert(self, effort: int) -> None:
        """Tell FAISS how far to look."""

    def add(self, ids: np.ndarray, vectors: np.ndarray) -> None:
        """Add vectors under new ids; the index over all of them is made at the next search or save."""
        super().add(ids, vectors)
        self._index = None

    def search(
        self, queries: np.ndarray, k: int, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the best ids of those proposed, with exact inner products; a filter is searched exactly.

        A filtered graph search loses most of what it should find (HNSW32, one in 200 allowed: recall .09).
        """
        queries = checked(queries, self._dimension)
        self._make()
        if self._index is None or among is not None or k * WIDER >= len(self._ids):
            return super().search(queries, k, among)
        _, rows = self._index.search(queries, max(k, 1) * WIDER)
        exact = super().search
        found = [exact(q[None], k, self._ids[r[r >= 0]]) for q, r in zip(queries, rows, strict=True)]
        if any(ids.shape[1] < k for ids, _ in found):
            return super().search(queries, k)
        return np.concatenate([ids for ids, _ in found]), np.concatenate([scores for _, scores in found])

    def save(self, folder: Path) -> None:
        """Write the exact vectors, and the index where there is one."""
        self._make()
        super().save(folder)
        facts = {"effort": self.effort, "recall": round(self.recall, 4), "indexed": self._index is not None}
        (folder / _FACTS).write_text(json.dumps(facts), encoding="utf-8")
        if self._index is not None:
            written(self._index, folder / _FILE)

    @classmethod
    def load(cls, folder: Path, dimension: int, *, mapped: bool = False) -> Self:
        """Read what ``save`` wrote; BadInput when the index and the vectors do not belong together."""
        store = super().load(folder, dimension, mapped=mapped)
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        store.effort, store.recall = int(facts["effort"]), float(facts["recall"])
        if facts["indexed"]:
            try:
                index = faiss.read_index(str(folder / _FILE), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
            except RuntimeError as error:
                raise BadInput(f"{folder / _FILE} cannot be read: {error}") from error
            if index.d != dimension or index.ntotal != len(store._ids):
                raise BadInput(f"{folder / _FILE} holds {index.ntotal} vectors of dimension {index.d}")
            store._index = index
            store.exert(store.effort)
        return store

    def _make(self) -> None:
        """Train and fill the index when there are enough vectors, and find the effort it needs."""
        if self._index is not None or self._mapped or len(self._ids) < FEWEST:
            return
        with _one_thread():
            index = faiss.index_factory(
                self._dimension, self.factory(len(self._ids)), faiss.METRIC_INNER_PRODUCT
            )
            index.train(self._matrix)
            index.add(self._matrix)
            self._index = index
            queries = samples(self._matrix, _QUERIES)
            wanted, _ = super().search(queries, DEPTH)
            for effort in self.efforts:
                self.effort = effort
                self.exert(effort)
                self.recall = recall(self.search(queries, DEPTH)[0], wanted)
                if self.recall >= GOOD:
                    break


class IvfStore(ApproximateStore):
    """Inverted lists: only the cells nearest to the query are scanned."""

    efforts = (4, 8, 16, 32, 64, 128, 256)

    def factory(self, count: int) -> str:
        """Return lists for four times the square root of the count, with 39 vectors each to train on."""
        return f"IVF{max(1, min(int(4 * count**0.5), count // 39))},SQ8"

    def exert(self, effort: int) -> None:
        """Set the number of cells that are scanned."""
        if self._index is not None:
            faiss.extract_index_ivf(self._index).nprobe = effort


class HnswStore(ApproximateStore):
    """A graph of neighbours: fastest, largest, slow to make."""

    efforts = (16, 32, 64, 128, 256, 512)

    def factory(self, count: int) -> str:
        """Return a graph of 32 links each."""
        return "HNSW32,SQ8"

    def exert(self, effort: int) -> None:
        """Set how many nodes stay open in the search."""
        if isinstance(self._index, faiss.IndexHNSW):
            self._index.hnsw.efSearch = effort


class Sq8Store(ApproximateStore):
    """A scan over one byte per value: a quarter of the memory."""

    def factory(self, count: int) -> str:
        """Return a plain list of 8-bit codes."""
        return "SQ8"


@contextmanager
def _one_thread() -> Iterator[None]:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)

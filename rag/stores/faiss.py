"""Vector stores on FAISS: exact search, and approximate search for many vectors.

:class:`FlatStore` is the default: ``IDMap2,Flat`` with inner product, exact, fast enough up to about a million vectors.
:class:`IvfStore` finds candidates in a compressed index (inverted lists, one byte per value) and rescores them exactly:
FAISS returns four times as many candidates as were asked for, which are scored again by their full vectors from a
memory-mapped file. So every score is exact, and only a vector that was not among the candidates can be missed;
``recall`` says how often that happened when the index was built. The search effort of FAISS is raised until
:data:`TARGET_RECALL` is reached. One thread and fixed seeds make equal contents give equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Self

import faiss
import numpy as np

from rag.errors import BadInput, CannotRun
from rag.stores.base import checked_ids, checked_vectors, refuse_mapped, sample_queries, store_recall
from rag.stores.exact import ExactStore

_FLAT_FILE = "vectors.faiss"
SPARE = 8
"""Vectors beyond those asked for that are fetched, so that a tie with the last one is seen."""
ROUNDING = 1e-6
"""Largest difference of two inner products of the same unit vectors."""
_APPROXIMATE_FILE = "proposer.faiss"
_FACTS = "proposer.json"
MIN_TRAINING_VECTORS = 1000
"""Fewer vectors are searched exactly: FAISS refuses to train on less than one per cell and warns below 39."""
RESCORE_FACTOR = 4
"""Candidates of the compressed index for each result asked for."""
TARGET_RECALL = 0.99
RECALL_DEPTH = 10
"""Recall is measured at this depth."""
_QUERIES = 64


class FlatStore:
    """An exact FAISS index behind our own checks of shape, type, finiteness and ids."""

    def __init__(self, dimension: int) -> None:
        """Create an empty store."""
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
        vectors = checked_vectors(vectors, self._dimension)
        self._index.add_with_ids(vectors, checked_ids(ids, len(vectors), self.ids))

    def vectors(self, ids: np.ndarray) -> np.ndarray:
        """Return the stored vectors of ids."""
        if not len(ids):
            return np.empty((0, self._dimension), dtype=np.float32)
        try:
            vectors = self._index.reconstruct_batch(np.ascontiguousarray(ids, dtype=np.int64))
        except RuntimeError as error:
            raise KeyError(f"not in the store: one of {list(ids)[:5]}") from error
        return np.asarray(vectors, dtype=np.float32)

    def search(
        self, queries: np.ndarray, k: int, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the best ids and inner products; equal scores are in the order in which they were added.

        FAISS finds them, and their scores are computed again, each from its two vectors alone: the last digits of those of
        FAISS depend on how many are asked for and on where a row stands, so that equal texts would not tie, and an updated
        index would differ from a new one. For the same reason all that tie with the last one are looked at.
        """
        queries, own, flat = checked_vectors(queries, self._dimension), self.ids, self._index.index
        parameters, count = None, len(own)
        if among is not None:
            allowed = np.flatnonzero(np.isin(own, np.asarray(among, dtype=np.int64)))
            parameters, count = faiss.SearchParameters(sel=faiss.IDSelectorBatch(allowed)), len(allowed)  # type: ignore[call-arg]
        shape = (len(queries), max(0, min(k, count)))
        ids, scores = np.empty(shape, dtype=np.int64), np.empty(shape, dtype=np.float32)
        for number, query in enumerate(queries if shape[1] else ()):
            (near,), (rows,) = flat.search(query[None], min(count, shape[1] + SPARE), params=parameters)
            last = near[shape[1] - 1] - ROUNDING
            if near[-1] > last and len(rows) < count:
                rows = flat.range_search(query[None], float(last), params=parameters)[2]
            again = (flat.reconstruct_batch(rows) * query).sum(axis=1)
            best = np.lexsort((rows, -again))[: shape[1]]
            ids[number], scores[number] = own[rows[best]], again[best]
        return ids, scores

    def save(self, folder: Path) -> None:
        """Write ``vectors.faiss``."""
        write_faiss_index(self._index, folder / _FLAT_FILE)

    @classmethod
    def load(cls, folder: Path, dimension: int, *, mapped: bool = False) -> Self:
        """Read what :meth:`save` wrote; BadInput if it has another kind of index or dimension."""
        store = cls(dimension)
        try:
            index = faiss.read_index(str(folder / _FLAT_FILE), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
        except RuntimeError as error:
            raise BadInput(f"{folder / _FLAT_FILE} cannot be read: {error}") from error
        if not isinstance(index, faiss.IndexIDMap2):
            raise BadInput(f"{folder / _FLAT_FILE} is a {type(index).__name__}")
        if not isinstance(flat := faiss.downcast_index(index.index), faiss.IndexFlat) or index.d != dimension:
            raise BadInput(f"{folder / _FLAT_FILE} is a {type(flat).__name__} of dimension {index.d}")
        store._index = index
        store._mapped = mapped
        return store


class IvfStore(ExactStore):
    """Exact vectors, found through a compressed FAISS index over their positions: only the nearest cells are scanned."""

    efforts: ClassVar[tuple[int, ...]] = (4, 8, 16, 32, 64, 128, 256)
    """Numbers of cells tried in this order until the recall is good enough."""

    def __init__(self, dimension: int) -> None:
        """Create an empty store."""
        super().__init__(dimension)
        self._index: faiss.Index | None = None
        self.effort = 0
        """Number of cells that are scanned; 0 while the search is exact."""
        self.recall = 1.0
        """Share of the exact ten best that were found, over artificial queries."""

    def factory(self, count: int) -> str:
        """Return 4 * sqrt(count) lists (FAISS's guidelines), but at most so many that 39 vectors train each."""
        return f"IVF{max(1, min(int(4 * count**0.5), count // 39))},SQ8"

    def set_effort(self, effort: int) -> None:
        """Set the number of cells that are scanned."""
        if self._index is not None:
            faiss.extract_index_ivf(self._index).nprobe = effort

    def add(self, ids: np.ndarray, vectors: np.ndarray) -> None:
        """Add vectors under new ids; the index over all of them is built at the next search or save."""
        super().add(ids, vectors)
        self._index = None

    def search(
        self, queries: np.ndarray, k: int, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the best ids among the candidates, with exact inner products; a filtered search is exact."""
        queries = checked_vectors(queries, self._dimension)
        self._build_index()
        if self._index is None or among is not None or k * RESCORE_FACTOR >= len(self._ids):
            return super().search(queries, k, among)
        _, rows = self._index.search(queries, max(k, 1) * RESCORE_FACTOR)
        exact = super().search
        results = [
            exact(query[None], k, self._ids[candidates[candidates >= 0]])
            for query, candidates in zip(queries, rows, strict=True)
        ]
        # FAISS returns -1 where it has too few candidates: then search exactly
        if any(ids.shape[1] < k for ids, _ in results):
            return super().search(queries, k)
        return np.concatenate([ids for ids, _ in results]), np.concatenate([scores for _, scores in results])

    def save(self, folder: Path) -> None:
        """Write the exact vectors, and the compressed index if there is one."""
        self._build_index()
        super().save(folder)
        facts = {"effort": self.effort, "recall": round(self.recall, 4), "indexed": self._index is not None}
        (folder / _FACTS).write_text(json.dumps(facts), encoding="utf-8")
        if self._index is not None:
            write_faiss_index(self._index, folder / _APPROXIMATE_FILE)

    @classmethod
    def load(cls, folder: Path, dimension: int, *, mapped: bool = False) -> Self:
        """Read what :meth:`save` wrote; BadInput if the index and the vectors do not belong together."""
        store = super().load(folder, dimension, mapped=mapped)
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        store.effort = int(facts["effort"])
        store.recall = float(facts["recall"])
        if facts["indexed"]:
            try:
                index = faiss.read_index(
                    str(folder / _APPROXIMATE_FILE), faiss.IO_FLAG_MMAP_IFC if mapped else 0
                )
            except RuntimeError as error:
                raise BadInput(f"{folder / _APPROXIMATE_FILE} cannot be read: {error}") from error
            if index.d != dimension or index.ntotal != len(store._ids):
                raise BadInput(
                    f"{folder / _APPROXIMATE_FILE} has {index.ntotal} vectors of dimension {index.d}"
                )
            store._index = index
            store.set_effort(store.effort)
        return store

    def _build_index(self) -> None:
        """Train and fill the index if there are enough vectors, and find the effort it needs."""
        if self._index is not None or self._mapped or len(self._ids) < MIN_TRAINING_VECTORS:
            return
        with _one_thread():
            index = faiss.index_factory(
                self._dimension, self.factory(len(self._ids)), faiss.METRIC_INNER_PRODUCT
            )
            index.train(self._matrix)
            index.add(self._matrix)
            self._index = index
            queries = sample_queries(self._matrix, _QUERIES)
            wanted, _ = super().search(queries, RECALL_DEPTH)
            for effort in self.efforts:
                self.effort = effort
                self.set_effort(effort)
                self.recall = store_recall(self.search(queries, RECALL_DEPTH)[0], wanted)
                if self.recall >= TARGET_RECALL:
                    break


def write_faiss_index(index: faiss.Index, path: Path) -> None:
    """Write an index and verify the file: CannotRun if it is not complete.

    If the last part of a file cannot be written, FAISS prints a message and continues.
    """
    faiss.write_index(index, str(path))
    try:
        written = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise CannotRun(
            f"cannot write {path}: it was cut off at {path.stat().st_size} bytes",
            "free some space and run it again",
        ) from error
    if (written.d, written.ntotal) != (index.d, index.ntotal):
        raise CannotRun(f"cannot write {path}: {written.ntotal} of {index.ntotal} vectors came to the disk")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one FAISS thread, since the order of additions would otherwise vary."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)

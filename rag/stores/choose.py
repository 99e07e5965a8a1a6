"""Choose a vector store by measurement: query time and size of each, and its recall against exact search."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rag.stores.base import AUTO, STORES, VectorStore, sample_queries, store_class, store_recall

MAX_QUERY_MS = 10.0
"""Exact search is used as long as one query takes no longer than this ..."""
LARGE_BYTES = 2 * 1024**3
"""... and the vectors are no larger than this."""
MIN_RECALL = 0.98
_QUERIES = 32
_DEPTH = 10
"""Recall and time are measured for this many results of a query."""


@dataclass(frozen=True, slots=True)
class StoreMeasurement:
    """Time, size and recall of one store with the vectors of an index."""

    store: str
    ms: float
    """Median time of one query for the ten best, in milliseconds."""
    mib: float
    """Size of what a query scans, in MiB: the vectors, or the compressed index if there is one."""
    recall: float
    """Share of the exact ten best that it finds, over artificial queries."""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that ``index build --json`` lists."""
        return asdict(self)


def filled_store(name: str, ids: np.ndarray, vectors: np.ndarray) -> VectorStore:
    """Return a store of that name holding the vectors."""
    store = store_class(name)(vectors.shape[1])
    store.add(ids, vectors)
    return store


def choose_store(
    wanted: str,
    ids: np.ndarray,
    vectors: np.ndarray,
    *,
    measuring: bool = True,
    fast_ms: float = MAX_QUERY_MS,
) -> tuple[str, VectorStore, tuple[StoreMeasurement, ...]]:
    """Return the name of the store to use, the store filled with the vectors, and the measurements.

    ``auto`` uses exact search (flat) as long as it is fast and small enough, else the fastest store of good recall. An
    approximate store that was asked for is measured too, so that its recall is reported.

    Args:
        wanted: name of a store, or ``auto``.
        ids: int64 [n].
        vectors: float32 [n, dimension].
        measuring: False uses a store that was asked for without measuring it.
        fast_ms: the limit for exact search, in milliseconds.
    """
    if wanted == "flat" or len(ids) == 0 or (wanted != AUTO and not measuring):
        name = "flat" if wanted == AUTO else wanted
        return name, filled_store(name, ids, vectors), ()
    flat = filled_store("flat", ids, vectors)
    queries = sample_queries(vectors, _QUERIES) if len(vectors) else vectors
    best, _ = flat.search(queries, _DEPTH)
    measured = [measure_store("flat", flat, queries, best)]
    if wanted == AUTO and measured[0].ms <= fast_ms and vectors.nbytes <= LARGE_BYTES:
        return "flat", flat, tuple(measured)
    names = [wanted] if wanted != AUTO else [name for name in STORES if name != "flat"]
    stores: dict[str, VectorStore] = {"flat": flat}
    for name in names:
        stores[name] = filled_store(name, ids, vectors)
        measured.append(measure_store(name, stores[name], queries, best))
    if wanted != AUTO:
        return wanted, stores[wanted], tuple(measured)
    accurate = [measurement for measurement in measured if measurement.recall >= MIN_RECALL]
    chosen = min(accurate, key=lambda measurement: measurement.ms).store
    return chosen, stores[chosen], tuple(measured)


def measure_store(name: str, store: VectorStore, queries: np.ndarray, best: np.ndarray) -> StoreMeasurement:
    """Measure single queries (after a warm-up), recall against ``best`` [queries, 10], and the size of the files."""
    store.search(queries[:1], _DEPTH)
    times_ms, ids_of_queries = [], []
    for query in queries:
        start = time.perf_counter()
        ids, _ = store.search(query[None], _DEPTH)
        times_ms.append((time.perf_counter() - start) * 1000)
        ids_of_queries.append(ids[0])
    ms = float(np.median(times_ms)) if times_ms else 0.0
    recall = store_recall(np.array(ids_of_queries), best) if ids_of_queries else 1.0
    return StoreMeasurement(name, round(ms, 3), round(_scanned(store) / 1024**2, 2), round(recall, 4))


def _scanned(store: VectorStore) -> int:
    """Return the bytes that a query scans: of the compressed index if there is one, else of all files."""
    with tempfile.TemporaryDirectory() as folder:
        store.save(Path(folder))
        sizes = {path.name: path.stat().st_size for path in Path(folder).iterdir()}
    return sizes.get("proposer.faiss") or sum(sizes.values())

"""Choose a vector store by measuring: latency and size of each, and its recall against exact search."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rag.stores.base import AUTO, STORES, VectorStore, sample_queries, store_class, store_recall

MAX_QUERY_MS = 10.0
"""Exact search is kept while one query takes no longer than this."""
LARGE_BYTES = 2 * 1024**3
"""... and the vectors are no larger than this."""
MIN_RECALL = 0.98
_QUERIES, _DEPTH = 32, 10


@dataclass(frozen=True, slots=True)
class StoreMeasurement:
    """What one store does with these vectors."""

    store: str
    ms: float
    """Median time of one query for the ten best."""
    mib: float
    """Size of what is scanned: the vectors, or the compressed index where there is one."""
    recall: float
    """Share of the exact ten best that it finds."""

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
    """Return the name of the store to use, the store holding the vectors, and what was measured.

    ``auto`` keeps exact search (flat) while it is fast and small enough; else it takes the fastest store of
    good recall. An approximate store that was asked for is measured too, so that its recall is known, unless
    ``measuring`` is false.
    """
    if wanted in ("exact", "flat") or len(ids) == 0 or (wanted != AUTO and not measuring):
        name = "flat" if wanted == AUTO else wanted
        return name, filled_store(name, ids, vectors), ()
    flat = filled_store("flat", ids, vectors)
    queries = sample_queries(vectors, _QUERIES) if len(vectors) else vectors
    best, _ = flat.search(queries, _DEPTH)
    measured = [measure_store("flat", flat, queries, best)]
    if wanted == AUTO and measured[0].ms <= fast_ms and vectors.nbytes <= LARGE_BYTES:
        return "flat", flat, tuple(measured)
    names = [wanted] if wanted != AUTO else [n for n in STORES if n not in ("exact", "flat")]
    stores: dict[str, VectorStore] = {"flat": flat}
    for name in names:
        stores[name] = filled_store(name, ids, vectors)
        measured.append(measure_store(name, stores[name], queries, best))
    if wanted != AUTO:
        return wanted, stores[wanted], tuple(measured)
    good = [m for m in measured if m.recall >= MIN_RECALL]
    chosen = min(good, key=lambda m: m.ms).store
    return chosen, stores[chosen], tuple(measured)


def measure_store(name: str, store: VectorStore, queries: np.ndarray, best: np.ndarray) -> StoreMeasurement:
    """Time single queries, count what is found, and weigh the files."""
    store.search(queries[:1], _DEPTH)
    took, found = [], []
    for query in queries:
        began = time.perf_counter()
        ids, _ = store.search(query[None], _DEPTH)
        took.append((time.perf_counter() - began) * 1000)
        found.append(ids[0])
    ms = float(np.median(took)) if took else 0.0
    share = store_recall(np.array(found), best) if found else 1.0
    return StoreMeasurement(name, round(ms, 3), round(_scanned(store) / 1024**2, 2), round(share, 4))


def _scanned(store: VectorStore) -> int:
    with tempfile.TemporaryDirectory() as folder:
        store.save(Path(folder))
        sizes = {p.name: p.stat().st_size for p in Path(folder).iterdir()}
    return sizes.get("proposer.faiss") or sum(sizes.values())

"""The vector index of LanceDB: IVF_PQ, always with a refinement, its recall measured when it is built.

Inverted lists with product quantisation (Jégou et al. 2011, IEEE TPAMI 33(1)) answer from codes of one byte for eight
dimensions. These alone find a third of the right ones (recall .337 of 10 of 100,000 vectors of 384 dimensions), so that the
best candidates are always compared again by their full vectors, which LanceDB calls ``refine_factor``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from rag.backends.lance.storage import APPROXIMATE_SEARCH, AUTO_SEARCH
from rag.stores.base import sample_queries, store_recall

if TYPE_CHECKING:
    from lancedb.table import Table

EXACT_ROWS = 100_000
"""Indexes of at most so many chunks are searched exactly: 0.1 s a question at 384 dimensions on two cores."""
WANTED_RECALL = 0.99
SAMPLE = 64
"""Questions that the recall is measured on, between stored vectors."""
DEPTH = 50
"""Results that the recall is measured on, the default of ``IndexSettings.pool``."""
_SETTINGS = ((10, 10), (20, 10), (40, 20), (80, 40), (160, 80))
"""Lists read and candidates refined (as a multiple of DEPTH results), tried in this order. Of 100,000 clustered vectors of
384 dimensions the first finds .9999 of the right 50."""
_MIN_REFINE = 4
"""For many results at least so many times more candidates are refined."""
_TRAINING_ROUNDS = 20
_TRAINING_RATE = 64
"""Vectors for each centroid that k-means is trained on; LanceDB's 256 took three times as long for the same recall."""


@dataclass(frozen=True, slots=True)
class VectorIndexSizes:
    """The sizes of an IVF_PQ index."""

    partitions: int
    sub_vectors: int

    @classmethod
    def of(cls, rows: int, dimension: int) -> VectorIndexSizes:
        """Return sqrt(rows) partitions, and the divisor of the dimension nearest to an eighth of it as sub-vectors."""
        divisors = [n for n in range(1, dimension + 1) if dimension % n == 0]
        sub_vectors = min(divisors, key=lambda n: abs(n - dimension / 8))
        return cls(max(1, min(4096, round(math.sqrt(rows)))), sub_vectors)


def wants_index(rows: int, search: str) -> bool:
    """Return whether an index of so many chunks gets a vector index under a setting of the URL's ``search``."""
    if search == AUTO_SEARCH:
        return rows > EXACT_ROWS
    return search == APPROXIMATE_SEARCH and rows >= 256  # product quantisation has 256 centroids


def build_vector_index(table: Table, rows: int, dimension: int) -> dict[str, Any]:
    """Build the index over all rows of a table, choose how much a search reads, and return what is recorded of it.

    The lists that are read and the candidates that are refined grow until the recall is :data:`WANTED_RECALL`. Where the
    largest of :data:`_SETTINGS` does not reach it, the index is removed and the vectors are searched exactly.

    Returns:
        The sizes and what was measured; only ``rejected`` with the recall if the vectors are searched exactly.
    """
    from lancedb.index import IvfPq

    sizes = VectorIndexSizes.of(rows, dimension)
    config = IvfPq(
        distance_type="dot",
        num_partitions=sizes.partitions,
        num_sub_vectors=sizes.sub_vectors,
        max_iterations=_TRAINING_ROUNDS,
        sample_rate=_TRAINING_RATE,
    )
    table.create_index("vector", config=config)
    queries, wanted = exact_sample(table, rows, dimension)
    depth = wanted.shape[1]
    measured: dict[str, Any] = {}
    for probes, refine in _SETTINGS:
        read = {"probes": min(probes, sizes.partitions), "refine": refine}
        nearest_ids = [nearest(table, query, depth, read)["id"].to_numpy() for query in queries]
        recall = round(store_recall(_filled(nearest_ids, depth), wanted), 4)
        measured = {**read, "recall": recall, "recall_at": depth, "queries": len(queries)}
        if recall >= WANTED_RECALL:
            return {"kind": APPROXIMATE_SEARCH, "rows": rows, **asdict(sizes), **measured}
    for index in table.list_indices():
        if index.columns == ["vector"]:
            table.drop_index(index.name)
    return {"rejected": measured, "rows": rows}


def vector_remark(record: Mapping[str, Any]) -> str:
    """Return in words how vectors are searched, by what :func:`build_vector_index` recorded."""
    measured = record.get("rejected", record)
    recall = (
        f"{measured['recall']:.3f} of the exact {measured['recall_at']} on {measured['queries']} questions"
    )
    if "kind" not in record:
        return (
            f"vectors are searched exactly: IVF_PQ found {recall}, less than {WANTED_RECALL:g}; every search reads all of "
            f"{record['rows']} vectors"
        )
    return (
        f"IVF_PQ of {record['rows']} vectors in {record['partitions']} lists, {measured['probes']} of which a search "
        f"reads, refined by full vectors: it finds {recall}"
    )


def nearest(
    table: Table,
    vector: np.ndarray,
    limit: int,
    index: Mapping[str, Any],
    share: float = 1.0,
    condition: str = "",
) -> pa.Table:
    """Return id, document and distance of the nearest rows by the index, best first, refined by full vectors.

    Args:
        table: of chunks.
        vector: unit vector, float32 [dimension].
        limit: number of results.
        index: the lists that are read and the candidates that are refined, as :func:`build_vector_index` records them.
        share: of the rows, how many satisfy the condition; as many more lists are read as rows are left out.
        condition: on columns; applied before the search.
    """
    probes = math.ceil(index["probes"] / max(share, 1e-6))
    # as many candidates are refined as in the measurement, for fewer results and up to a limit for more
    factor = max(_MIN_REFINE, math.ceil(index["refine"] * DEPTH / limit))
    query: Any = table.search(vector, vector_column_name="vector")
    query = (
        query.distance_type("dot").nprobes(min(probes, index.get("partitions", probes))).refine_factor(factor)
    )
    return _fetched(query, limit, condition)


def nearest_exactly(table: Table, vector: np.ndarray, limit: int, condition: str = "") -> pa.Table:
    """Return id, document and distance of the nearest rows, best first, by comparing all that satisfy the condition."""
    query: Any = table.search(vector, vector_column_name="vector")
    return _fetched(query.distance_type("dot").bypass_vector_index(), limit, condition)


def exact_sample(table: Table, rows: int, dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """Return artificial questions, float32 [n, dimension], and the ids nearest to each, int64 [n, at most DEPTH].

    Two passes over the vectors: for the questions, and for their nearest, of which only the best are held.
    """
    step = max(1, rows // 2000)
    seen, chosen = 0, []
    for _, vectors in _vector_batches(table, dimension):
        chosen.append(vectors[(-seen) % step :: step])
        seen += len(vectors)
    queries = sample_queries(np.concatenate(chosen), SAMPLE)
    depth = min(DEPTH, rows)
    best = np.full((len(queries), depth), -np.inf, dtype=np.float32)
    best_ids = np.full((len(queries), depth), -1, dtype=np.int64)
    for ids, vectors in _vector_batches(table, dimension):
        scores = np.concatenate([best, queries @ vectors.T], axis=1)
        all_ids = np.concatenate([best_ids, np.broadcast_to(ids, (len(queries), len(ids)))], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
        best = np.take_along_axis(scores, order, axis=1)
        best_ids = np.take_along_axis(all_ids, order, axis=1)
    return queries, best_ids


def _vector_batches(table: Table, dimension: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield ids and vectors, float32 [n, dimension], of all rows, few at a time."""
    for batch in table.search().select(["id", "vector"]).to_batches(8_192):
        vectors = batch.column("vector").flatten().to_numpy(zero_copy_only=False).reshape(-1, dimension)
        yield batch.column("id").to_numpy(), vectors


def _fetched(query: Any, limit: int, condition: str) -> pa.Table:
    if condition:
        query = query.where(condition, prefilter=True)
    return query.select(["id", "document", "_distance"]).limit(limit).to_arrow()


def _filled(rows: list[np.ndarray], width: int) -> np.ndarray:
    """Return rows of ids as one array, -1 where one is shorter."""
    filled = np.full((len(rows), width), -1, dtype=np.int64)
    for n, row in enumerate(rows):
        filled[n, : len(row)] = row
    return filled

"""Sizes of indexes by formula: what was measured, pages, and growth."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from rag.stores.capacity import flat_bytes, heap_bytes, hnsw_bytes, ivf_bytes, value_bytes


@pytest.mark.parametrize(("vectors", "measured"), [("vector", 2045), ("halfvec", 1174)])
def test_hnsw_takes_what_postgresql_measured(vectors: str, measured: int) -> None:
    """pgvector 0.8.0, 100,000 rows of 384 values."""
    assert hnsw_bytes(100_000, 384, vectors) / 100_000 == pytest.approx(measured, rel=0.005)


def test_hnsw_rows_are_whole_on_a_page() -> None:
    """Two rows of 768 values fill a page as one of 1,536 does; a larger one has its neighbours elsewhere."""
    assert hnsw_bytes(1000, 768) == hnsw_bytes(1000, 900) == 500 * 8192
    assert hnsw_bytes(1000, 1536) == 1000 * 8192
    assert 1000 * 8192 < hnsw_bytes(1000, 2000) < 1100 * 8192
    assert hnsw_bytes(1000, 384, neighbours=64) > hnsw_bytes(1000, 384)


def test_heap_pages_hold_whole_rows() -> None:
    assert heap_bytes(5, 24 + 384 * value_bytes("vector")) == 8192
    assert heap_bytes(6, 24 + 384 * value_bytes("vector")) > 8192


def test_faiss_writes_what_the_formulas_say() -> None:
    rows, dimension = 4000, 32
    vectors = np.random.default_rng(0).standard_normal((rows, dimension), dtype=np.float32)
    for factory, expected in (
        ("IDMap2,Flat", flat_bytes(rows, dimension)),
        ("IVF64,SQ8", ivf_bytes(rows, dimension, 64, dimension)),
        ("IVF64_HNSW32,SQ8", ivf_bytes(rows, dimension, 64, dimension, graph=True)),
    ):
        index = faiss.index_factory(dimension, factory)
        index.train(vectors)
        index.add_with_ids(vectors, np.arange(rows))
        assert len(faiss.serialize_index(index)) == pytest.approx(expected, rel=0.03), factory

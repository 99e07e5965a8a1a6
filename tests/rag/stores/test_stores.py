"""One contract for all vector stores; the exact one is the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rag.errors import BadInput
from rag.stores.base import STORES, VectorStore, store_class

DIMENSION = 16


def unit(n: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n, DIMENSION)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(params=sorted(STORES))
def store(request: pytest.FixtureRequest) -> VectorStore:
    return store_class(request.param)(DIMENSION)


def test_search_equals_the_reference(store: VectorStore) -> None:
    reference = store_class("exact")(DIMENSION)
    ids, vectors = np.arange(100, 300, dtype=np.int64)[::-1].copy(), unit(200)
    for each in (store, reference):
        each.add(ids[:150], vectors[:150])
        each.add(ids[150:], vectors[150:])
    found, scores = store.search(unit(7, 1), 10)
    wanted, best = reference.search(unit(7, 1), 10)
    assert found.dtype == np.int64
    assert np.array_equal(found, wanted)
    assert np.allclose(scores, best, atol=1e-5)
    assert np.array_equal(store.ids, ids)


def test_vectors_come_back_bit_for_bit(store: VectorStore) -> None:
    store.add(np.array([5, 3]), unit(2))
    assert np.array_equal(store.vectors(np.array([3, 5])), unit(2)[::-1])
    assert store.vectors(np.array([], dtype=np.int64)).shape == (0, DIMENSION)
    with pytest.raises(KeyError):
        store.vectors(np.array([4]))


def test_fewer_than_k_and_none_at_all(store: VectorStore) -> None:
    assert [part.shape for part in store.search(unit(2), 5)] == [(2, 0), (2, 0)]
    store.add(np.array([1]), unit(1))
    assert [part.shape for part in store.search(unit(2), 5)] == [(2, 1), (2, 1)]


@pytest.mark.parametrize(
    ("ids", "vectors"),
    [
        ([1], np.ones((1, DIMENSION + 1))),
        ([1], np.full((1, DIMENSION), np.nan)),
        ([1, 2], np.ones((1, DIMENSION))),
        ([1, 1], np.ones((2, DIMENSION))),
        ([-1], np.ones((1, DIMENSION))),
        ([9], np.ones((1, DIMENSION))),
        ([1], np.ones(DIMENSION)),
    ],
)
def test_wrong_vectors_and_ids_are_refused(store: VectorStore, ids: list[int], vectors: np.ndarray) -> None:
    store.add(np.array([9]), unit(1))
    with pytest.raises(BadInput):
        store.add(np.array(ids), vectors)
    with pytest.raises(BadInput):
        store.search(np.full((1, DIMENSION), np.inf, dtype=np.float32), 1)
    assert store.ids.tolist() == [9]


def test_saved_files_are_equal_and_load_again(store: VectorStore, tmp_path: Path) -> None:
    ids, vectors = np.arange(50, dtype=np.int64), unit(50)
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        same = type(store)(DIMENSION)
        same.add(ids, vectors)
        same.save(folder)
    names = sorted(path.name for path in folders[0].iterdir())
    assert names
    assert all((folders[0] / name).read_bytes() == (folders[1] / name).read_bytes() for name in names)
    again = type(store).load(folders[0], DIMENSION)
    assert np.array_equal(again.vectors(ids), vectors)
    again.add(np.array([99]), unit(1, 5))
    with pytest.raises(BadInput):
        type(store).load(folders[0], DIMENSION + 1)


def test_an_unknown_store_names_those_there_are() -> None:
    with pytest.raises(BadInput, match="exact, faiss"):
        store_class("pinecone")

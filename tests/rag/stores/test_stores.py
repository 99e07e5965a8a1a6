"""The contract of all vector stores, with the exact store as the reference, and the checks around FAISS."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pytest

from rag.errors import BadInput
from rag.stores import base
from rag.stores import faiss as stores_faiss
from rag.stores.base import STORES, VectorStore, store_class, stored_class
from rag.stores.choose import choose_store
from rag.stores.exact import ExactStore

DIMENSION = 16
MANY = stores_faiss.MIN_TRAINING_VECTORS + 500


def unit(n: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n, DIMENSION)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def filled(name: str, count: int) -> VectorStore:
    store = store_class(name)(DIMENSION)
    store.add(np.arange(count, dtype=np.int64) * 3, unit(count))
    return store


@pytest.fixture(params=sorted(STORES))
def store(request: pytest.FixtureRequest) -> VectorStore:
    return store_class(request.param)(DIMENSION)


def test_store_search_equals_exact_reference(store: VectorStore) -> None:
    reference = ExactStore(DIMENSION)
    ids, vectors = np.arange(100, 300, dtype=np.int64)[::-1].copy(), unit(200)
    for either in (store, reference):
        either.add(ids[:150], vectors[:150])
        either.add(ids[150:], vectors[150:])
    actual, scores = store.search(unit(7, 1), 10)
    wanted, best = reference.search(unit(7, 1), 10)
    assert actual.dtype == np.int64
    assert np.array_equal(actual, wanted)
    assert np.allclose(scores, best, atol=1e-5)
    assert np.array_equal(store.ids, ids)


def test_store_filter_is_exact_and_returns_k_results(store: VectorStore) -> None:
    ids = np.arange(MANY, dtype=np.int64)
    store.add(ids, unit(MANY))
    few = ids[::173]
    reference = ExactStore(DIMENSION)
    reference.add(few, unit(MANY)[few])
    wanted, best = reference.search(unit(3, 1), 5)
    actual, scores = store.search(unit(3, 1), 5, among=np.append(few, [10**9, few[0]]))
    assert np.array_equal(actual, wanted)
    assert np.allclose(scores, best, atol=1e-5)
    assert store.search(unit(3, 1), 5, among=np.array([10**9]))[0].shape == (3, 0)


def test_store_returns_vectors_bit_exact(store: VectorStore) -> None:
    store.add(np.array([5, 3]), unit(2))
    assert np.array_equal(store.vectors(np.array([3, 5])), unit(2)[::-1])
    assert store.vectors(np.array([], dtype=np.int64)).shape == (0, DIMENSION)
    with pytest.raises(KeyError):
        store.vectors(np.array([4]))


def test_store_search_with_fewer_than_k_vectors(store: VectorStore) -> None:
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
def test_store_rejects_invalid_vectors_and_ids(
    store: VectorStore, ids: list[int], vectors: np.ndarray
) -> None:
    store.add(np.array([9]), unit(1))
    with pytest.raises(BadInput):
        store.add(np.array(ids), vectors)
    for wrong in (
        np.full((1, DIMENSION), np.inf),
        np.full((1, DIMENSION), np.nan),
        np.ones((1, DIMENSION - 1)),
    ):
        with pytest.raises(BadInput):
            store.search(wrong.astype(np.float32), 1)
    assert store.ids.tolist() == [9]


@pytest.mark.parametrize("count", [50, MANY])
def test_store_save_is_deterministic_and_loads(store: VectorStore, tmp_path: Path, count: int) -> None:
    ids, vectors = np.arange(count, dtype=np.int64), unit(count)
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
    mapped = type(store).load(folders[0], DIMENSION, mapped=True)
    for loaded in (again, mapped):
        assert np.array_equal(loaded.vectors(ids), vectors)
        assert np.array_equal(loaded.search(unit(5, 1), 10)[0], same.search(unit(5, 1), 10)[0])
    again.add(np.array([count]), unit(1, 5))
    assert count in again.search(unit(1, 5), 1)[0]
    with pytest.raises(BadInput, match="mapped"):
        mapped.add(np.array([count]), unit(1, 5))
    with pytest.raises(BadInput):
        type(store).load(folders[0], DIMENSION + 1)


def test_store_checks_work_under_python_O(root: Path) -> None:
    code = (
        "import numpy as np\nfrom rag.errors import BadInput\nfrom rag.stores.base import STORES, store_class\n"
        "assert False\nrefused = 0\n"
        "for name in STORES:\n store = store_class(name)(8)\n store.add(np.arange(9), np.eye(9, 8, dtype='f4'))\n"
        " for wrong in (np.ones((1, 4)), np.ones((1, 16)), np.full((1, 8), np.nan)):\n"
        "  for use in (lambda: store.search(wrong, 2), lambda: store.add(np.array([77]), wrong)):\n"
        "   try: use()\n   except BadInput: refused += 1\nprint(refused, len(STORES))"
    )
    done = subprocess.run(
        [sys.executable, "-O", "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(6 * len(STORES)), str(len(STORES))]


@pytest.mark.skipif(os.name == "nt", reason="limits of a process are POSIX")
@pytest.mark.parametrize(("count", "limit"), [(10, 100), (50, 1500), (400, 8000)])
@pytest.mark.parametrize("kind", ["faiss:FlatStore", "exact:ExactStore"])
def test_truncated_file_raises_cannot_run(
    root: Path, tmp_path: Path, count: int, limit: int, kind: str
) -> None:
    """FAISS and numpy raise only if a whole buffer cannot be written, not for a failure at closing."""
    module, _, name = kind.partition(":")
    code = (
        "import resource, signal, numpy as np\nfrom pathlib import Path\nfrom rag.errors import Problem\n"
        f"from rag.stores.{module} import {name}\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"store = {name}(8)\nstore.add(np.arange({count}), np.eye({count}, 8, dtype='f4'))\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, -1))\n"
        f"try: store.save(Path({str(tmp_path)!r}))\nexcept (Problem, RuntimeError): print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("refused")


@pytest.mark.skipif(os.name == "nt", reason="stores are mapped on POSIX only")
@pytest.mark.parametrize("name", ["flat", "exact"])
def test_mapped_store_does_not_read_vectors_into_memory(name: str, root: Path, tmp_path: Path) -> None:
    """Opening 49 MiB of vectors costs a reader only the ids; loading them costs all of it."""
    count, dimension = 100_000, 128
    store = stored_class(name)(dimension)
    draw = np.random.default_rng(0)
    store.add(np.arange(count), draw.normal(size=(count, dimension)).astype(np.float32))
    store.save(tmp_path)
    code = (
        "import psutil, sys, numpy as np\nfrom pathlib import Path\nfrom rag.stores.base import stored_class\n"
        f"kind, folder = stored_class({name!r}), Path({str(tmp_path)!r})\nrss = psutil.Process().memory_info\n"
        "kind(8).search(np.ones((1, 8)), 1)\nbefore = rss().rss\n"
        f"store = kind.load(folder, {dimension}, mapped=sys.argv[1] == 'mapped')\n"
        "print((rss().rss - before) / 2**20)"
    )

    def grown(how: str) -> float:
        command = [sys.executable, "-c", code, how]
        return float(subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout)

    assert grown("loaded") > 45
    assert grown("mapped") < 15


def test_files_that_are_no_flat_store_are_refused(tmp_path: Path) -> None:
    filled("flat", 40).save(tmp_path)
    with pytest.raises(BadInput, match="of dimension"):
        stored_class("flat").load(tmp_path, DIMENSION + 1)
    plain, codes = faiss.IndexFlatIP(DIMENSION), faiss.index_factory(DIMENSION, "IDMap2,SQfp16")
    for index, name in ((plain, "IndexFlatIP"), (codes, "IndexScalarQuantizer")):
        faiss.write_index(index, str(tmp_path / "vectors.faiss"))
        with pytest.raises(BadInput, match=name):
            stored_class("flat").load(tmp_path, DIMENSION)
    (tmp_path / "vectors.faiss").write_bytes(b"damage")
    with pytest.raises(BadInput, match="cannot be read"):
        stored_class("flat").load(tmp_path, DIMENSION)


@pytest.mark.parametrize("name", ["exact", "hnsw", "sq8"])
def test_other_stores_of_0_2_0_are_read_exactly(tmp_path: Path, name: str) -> None:
    store = ExactStore(DIMENSION)
    store.add(np.arange(30), unit(30))
    store.save(tmp_path)
    (tmp_path / "proposer.faiss").write_bytes(b"of hnsw or sq8, not read")
    again = stored_class(name).load(tmp_path, DIMENSION)
    assert np.array_equal(again.search(unit(3, 1), 5)[0], store.search(unit(3, 1), 5)[0])


def test_scores_do_not_depend_on_other_rows_and_queries() -> None:
    """So that equal texts tie, and an index made of two parts gives the scores of a whole one."""
    vectors, queries = np.concatenate([unit(37), unit(37)]), unit(23, 1)
    store = store_class("flat")(DIMENSION)
    store.add(np.arange(74), vectors)
    ids, scores = store.search(queries, 74)
    for number, query in enumerate(queries):
        alone = store.search(query[None], 74)
        assert np.array_equal(alone[0][0], ids[number])
        assert np.array_equal(alone[1][0], scores[number])
        pairs = ids[number].reshape(37, 2)
        assert (pairs[:, 1] == pairs[:, 0] + 37).all(), "a repeat follows its first, with the same score"


@pytest.mark.parametrize("name", ["flat", "exact"])
def test_of_many_ties_the_first_added_are_returned(name: str) -> None:
    """FAISS alone keeps the last ones, and others when more are asked for."""
    vectors = np.repeat(unit(3), 60, axis=0)
    store = stored_class(name)(DIMENSION)
    store.add(np.arange(180)[::-1].copy(), vectors)
    query = unit(3)[1:2]
    for k in (1, 5, 40, 60):
        assert store.search(query, k)[0].tolist() == [list(range(119, 119 - k, -1))]
    even = np.arange(0, 180, 2)
    assert store.search(query, 7, among=even)[0].tolist() == [list(range(118, 104, -2))]


def test_faiss_still_needs_our_checks() -> None:
    """If one of these fails, FAISS has changed its behaviour and the check for it can be removed."""
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(DIMENSION))
    index.add_with_ids(np.full((2, DIMENSION), np.nan, dtype=np.float32), np.array([1, 1]))
    assert index.ntotal == 2
    with pytest.raises(RuntimeError, match="training points"):
        faiss.index_factory(DIMENSION, "IVF64,Flat").train(unit(20))


def test_approximate_store_recall() -> None:
    store = filled("ivf", MANY)
    actual, scores = store.search(unit(40, 2), 10)
    wanted, best = filled("flat", MANY).search(unit(40, 2), 10)
    assert base.store_recall(actual, wanted) >= 0.95
    assert store.recall >= stores_faiss.TARGET_RECALL  # type: ignore[attr-defined]
    same = actual == wanted
    assert np.allclose(scores[same], best[same], atol=1e-6), "scores are exact, not those of the codes"


def test_approximate_store_is_exact_with_few_vectors(tmp_path: Path) -> None:
    store = filled("ivf", stores_faiss.MIN_TRAINING_VECTORS - 1)
    assert np.array_equal(
        store.search(unit(5, 1), 10)[0],
        filled("flat", stores_faiss.MIN_TRAINING_VECTORS - 1).search(unit(5, 1), 10)[0],
    )
    store.save(tmp_path)
    assert not list(tmp_path.glob("*.faiss"))


def test_auto_store_prefers_exact_search_while_fast() -> None:
    ids, vectors = np.arange(MANY, dtype=np.int64), unit(MANY)
    name, _, measured = choose_store("auto", ids, vectors, fast_ms=1e9)
    assert (name, [m.store for m in measured], measured[0].recall) == ("flat", ["flat"], 1.0)
    name, store, measured = choose_store("ivf", ids, vectors)
    assert (name, [m.store for m in measured]) == ("ivf", ["flat", "ivf"])
    assert measured[1].recall >= 0.95
    assert measured[1].mib < measured[0].mib
    assert len(store.ids) == MANY
    name, store, measured = choose_store("auto", ids, vectors, fast_ms=0.0)
    assert [m.store for m in measured] == ["flat", "ivf"]
    best = min((m for m in measured if m.recall >= 0.98), key=lambda m: m.ms)
    assert name == best.store


def test_unknown_store_error_lists_known_stores() -> None:
    with pytest.raises(BadInput, match="flat, ivf"):
        store_class("pinecone")

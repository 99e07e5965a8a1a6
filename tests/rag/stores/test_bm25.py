"""BM25 and fusion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rag.errors import BadInput
from rag.search import searcher
from rag.stores.bm25 import BM25Index

TEXTS = ["Dogs travel on deck.", "The fare is 14.50.", "Parking is free for dog owners parked here.", ""]


def test_bm25_matches_stemmed_words_only() -> None:
    lexical = BM25Index.build(TEXTS, 1.2, 0.75)
    scores = lexical.scores("dogs")
    assert scores.argmax() == 0
    assert scores[2] > 0
    assert scores[1] == scores[3] == 0
    assert not lexical.scores("zebra").any()
    assert lexical.scores("is the").any()


def test_bm25_scores_equal_the_formula() -> None:
    lexical = BM25Index.build(["a b", "a c c", "d"], 1.2, 0.75)
    n, df, tf, length, mean = 3, 1, 2, 3, 2
    idf = np.log(1 + (n - df + 0.5) / (df + 0.5))
    wanted = idf * tf / (tf + 1.2 * (1 - 0.75 + 0.75 * length / mean))
    assert lexical.scores("c")[1] == pytest.approx(wanted, rel=1e-5)


def test_bm25_save_is_deterministic_and_loads(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        BM25Index.build(TEXTS, 1.2, 0.75).save(tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert all(path.endswith((".npy", ".json")) for path in files)
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)
    again = BM25Index.load(tmp_path / "a", len(TEXTS))
    assert np.array_equal(again.scores("dog fare"), BM25Index.build(TEXTS, 1.2, 0.75).scores("dog fare"))
    with pytest.raises(BadInput, match="covers 4 chunks, not 5"):
        BM25Index.load(tmp_path / "a", 5)


def test_convex_fusion_scales_each_side() -> None:
    dense, lexical = np.array([0.2, 0.4, 0.6]), np.array([10.0, 0.0, 5.0])
    assert searcher.convex_fusion(dense, lexical, 0.25).tolist() == pytest.approx([0.25, 0.375, 0.875])
    assert searcher.convex_fusion(np.array([0.5, 0.5]), np.array([0.0, 2.0]), 0.25).tolist() == [0.0, 0.25]
    assert searcher.convex_fusion(np.array([]), np.array([]), 0.25).tolist() == []


def test_rrf_adds_reciprocal_ranks_and_ignores_zero_scores() -> None:
    fused = searcher.reciprocal_rank_fusion(np.array([0.9, 0.1]), np.array([0.0, 3.0]))
    assert fused.tolist() == pytest.approx([0.5 / 61, 0.5 / 62 + 0.5 / 61])

"""Planted bad rows among the shipped example's own: the checks throw them out and keep the good ones.

The same as ``benchmarks/planted_rows.py`` does with public sets, in a few seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.planted_rows import KINDS, PlantedSet
from runners.synthesis.row_checks import CandidateRow, RowChecker

pytestmark = pytest.mark.real  # the embedder


@pytest.fixture(scope="module")
def planted(example: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, Any]]:
    """Rows of the shipped example, bad ones made from them, and what the checks said."""
    from rag.embedding.embedder import Embedder
    from rag.index import Index
    from runners.models.resolve import resolve_model

    folder = tmp_path_factory.mktemp("planted")
    (folder / "train.jsonl").write_bytes((example / "examples.jsonl").read_bytes())
    embedder = Embedder(resolve_model("all-minilm-l6-v2").folder, name="all-minilm-l6-v2")
    Index.build(folder / "index", example / "documents", embedder)
    index = Index.open(folder / "index", embedder)
    rows, held_out = PlantedSet("harbor", folder, index, 0).plant(30, 30)
    checker = RowChecker(index, language="English", held_out=held_out)
    checked = checker.check_all([CandidateRow(p.row.question, p.row.reply, p.row.passage) for p in rows])
    return list(zip(rows, checked, strict=True))


def test_bad_rows_are_thrown_out(planted: list[tuple[Any, Any]]) -> None:
    bad = [(row, checked) for row, checked in planted if row.kind != "good"]
    assert {row.kind for row, _ in bad} == set(KINDS)
    out = sum(bool(checked.kind) for _, checked in bad)
    assert out >= 0.9 * len(bad), [(r.how, r.row.question, r.row.reply) for r, c in bad if not c.kind]
    assert all(checked.reason for _, checked in bad if checked.kind)


def test_good_rows_are_kept(planted: list[tuple[Any, Any]]) -> None:
    good = [(row, checked) for row, checked in planted if row.kind == "good"]
    lost = [(c.kind, c.reason, r.row.question, r.row.reply) for r, c in good if c.kind]
    assert len(good) == 30
    assert len(lost) <= 0.2 * len(good), lost

"""Refusal: signals, the fit, the default, and metrics."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

from rag import metrics, refuse
from rag.errors import BadInput
from rag.index import Index
from rag.types import Hit


class Scripted:
    """A search whose scores are known: high for answerable questions, low without the gold document."""

    def __init__(self, make_chunk) -> None:
        self.make_chunk = make_chunk

    def search_many(
        self, questions: Sequence[str], k: int, without: Sequence[Collection[str]] | None = None
    ) -> list[list[Hit]]:
        found = []
        for n, question in enumerate(questions):
            known = question.startswith("known") and not (without and without[n])
            dense = (0.7 if known else 0.35) + 0.01 * (n % 5)
            chunk = self.make_chunk(question if known else "something else")
            found.append([Hit(chunk, 1.0, dense, 4.0 * known), Hit(self.make_chunk("x"), 0.1, 0.3, 0.0)])
        return found


def test_signals_of_hits(make_chunk) -> None:
    hits = [Hit(make_chunk("Dogs travel on deck."), 1, 0.6, 3.0), Hit(make_chunk("Cats"), 0.5, 0.4, 1.0)]
    found = refuse.signals("Do dogs travel free?", hits)
    assert (found.dense, found.margin) == (0.6, pytest.approx(0.2))
    assert (found.lexical, found.coverage) == (1.0, pytest.approx(2 / 3))
    assert refuse.signals("x", []) == refuse.Signals(0, 0, 0, 0)


def test_real_unanswerable_questions_are_learned_from(make_chunk) -> None:
    index = Scripted(make_chunk)
    dev = [(f"known thing {n}", "a.md", True) for n in range(12)] + [
        (f"odd {n}", None, False) for n in range(6)
    ]
    fitted = refuse.fit(index, dev)
    assert (fitted.how, fitted.answerable, fitted.unanswerable, fitted.made) == ("logistic", 12, 18, 12)
    assert fitted.balanced_accuracy == 1.0
    (good, bad) = index.search_many(["known thing", "odd"], 5)
    assert not fitted.refuses("known thing", good)
    assert fitted.refuses("odd", bad)
    assert fitted.refuses("anything", [])
    again = refuse.Threshold.from_json(json.loads(json.dumps(fitted.to_json())))
    assert again == fitted
    with pytest.raises(BadInput):
        refuse.Threshold.from_json({"weights": [1]})


def test_gold_removed_searches_stand_in_for_missing_ones(make_chunk) -> None:
    dev = [(f"known thing {n}", "a.md", True) for n in range(10)]
    fitted = refuse.fit(Scripted(make_chunk), dev)
    assert (fitted.how, fitted.unanswerable, fitted.made) == ("logistic", 10, 10)


@pytest.mark.parametrize("dev", [[], [("known", "a.md", True)] * 4, [("known", None, True)] * 30])
def test_too_little_data_gives_the_default_and_says_so(make_chunk, dev) -> None:
    fitted = refuse.fit(Scripted(make_chunk), dev)
    assert fitted.how == "default"
    assert "too few" in fitted.note
    assert not fitted.refuses("x", [Hit(make_chunk("x"), 1, 0.5, 0)])
    assert fitted.refuses("x", [Hit(make_chunk("x"), 1, 0.3, 0)])


@pytest.mark.real
def test_refusal_on_public_questions(shared: Path, minilm, tmp_path: Path) -> None:
    folder = shared / "data" / "xquad_en"
    Index.build(tmp_path / "index", folder / "documents.jsonl", minilm)
    index = Index.open(tmp_path / "index", minilm)
    lines = (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines()[::6]
    rows = [json.loads(line) for line in lines]
    dev, test = rows[::3], [row for n, row in enumerate(rows) if n % 3]
    fitted = refuse.fit(index, [(r["question"], r["doc_id"], True) for r in dev])
    asked, gold = [r["question"] for r in test], [[r["doc_id"]] for r in test]
    answered = [not fitted.refuses(q, h) for q, h in zip(asked, index.search_many(asked, 5), strict=True)]
    refused = [fitted.refuses(q, h) for q, h in zip(asked, index.search_many(asked, 5, gold), strict=True)]
    assert sum(answered) / len(test) > 0.85
    assert sum(refused) / len(test) > 0.5


def test_metrics(make_chunk) -> None:
    found = ["b", "a", "c"]
    assert [metrics.hit_at_k(found, {"a"}, k) for k in (1, 2)] == [0, 1]
    assert metrics.recall_at_k(found, {"a", "z"}, 3) == 0.5
    assert metrics.recall_at_k(found, set(), 3) == 0
    assert metrics.mrr(found, {"a"}) == 0.5
    assert metrics.mrr(found, {"q"}) == 0
    chunks = [make_chunk("x" * 10, start=0, end=10), make_chunk("x" * 10, start=5, end=15)]
    assert metrics.span_recall(chunks, "a.md", [(8, 18)]) == pytest.approx(0.7)
    assert metrics.span_recall(chunks, "b.md", [(8, 18)]) == 0

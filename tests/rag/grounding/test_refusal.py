"""Refusal: signals, the fit, the default threshold, and the curve."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, astuple
from pathlib import Path

import numpy as np
import pytest

from rag.embedding.embedder import Embedder
from rag.errors import BadInput
from rag.grounding import curve, refusal
from rag.index import Index
from rag.types import Chunk, Hit


class ScriptedIndex:
    """An index with fixed scores: high for answerable questions, low without the gold document."""

    def __init__(self, make_chunk: Callable[..., Chunk]) -> None:
        self.make_chunk = make_chunk

    def search_many(
        self, questions: Sequence[str], k: int, without: Sequence[Collection[str]] | None = None
    ) -> list[list[Hit]]:
        hits_of_questions = []
        for n, question in enumerate(questions):
            known = question.startswith("known") and not (without and without[n])
            dense = (0.7 if known else 0.35) + 0.01 * (n % 5)
            chunk = self.make_chunk(question if known else "something else")
            hits_of_questions.append(
                [Hit(chunk, 1.0, dense, 4.0 * known), Hit(self.make_chunk("x"), 0.1, 0.3, 0.0)]
            )
        return hits_of_questions


def test_threshold_of_newer_format_is_rejected() -> None:
    with pytest.raises(BadInput, match="newer tunewise: refusal of schema 7"):
        refusal.RefusalThreshold.from_json({**refusal.default_threshold().to_json(), "schema": 7})


def test_refusal_signals_of_hits(make_chunk: Callable[..., Chunk]) -> None:
    hits = [
        Hit(make_chunk("They travel on deck.", title="Dogs on board"), 1, 0.5, 3.0),
        Hit(make_chunk("Cats travel free."), 0.5, 0.6, 1.0),
        Hit(make_chunk("Boats"), 0.5, 0.1, 1.0),
    ]
    signals = refusal.refusal_signals("Do dogs travel free?", hits)
    assert asdict(signals) == {
        "dense": 0.6,
        "lead": pytest.approx(0.2),
        "margin": pytest.approx(0.3),
        "coverage": pytest.approx(2 / 3),
        "body": pytest.approx(1 / 3),
        "subject": pytest.approx(1 / 3),
        "named": 0.5,
        "length": 3,
        "answers": 0.0,
    }
    assert refusal.refusal_signals("Do dogs travel free?", hits[:1]).margin == 0
    assert refusal.refusal_signals("x", []) == refusal.RefusalSignals()
    assert refusal.refusal_signals("Who are you?", hits).coverage == 0


def test_refusal_curve_counts_refused_questions() -> None:
    scores = np.array([-2.0, -1.0, 0.5, -0.5, 1.0, 2.0, 3.0, 4.0])
    answerable = np.array([False, False, False, True, True, True, True, True])
    points = curve.refusal_curve(scores, answerable)
    assert (points[0].right, points[0].wrong) == (0, 0)
    assert (points[-1].right, points[-1].wrong) == (1, 1)
    assert [point.cut for point in points] == sorted(point.cut for point in points)
    assert astuple(curve.refusal_point(0.0, scores, answerable)) == (0.0, pytest.approx(2 / 3), 0.2)
    price = curve.threshold_for_refusal_share(0.9, scores, answerable)
    assert (price.right, price.wrong) == (1.0, 0.2)
    assert curve.threshold_for_refusal_share(0.6, scores, answerable).wrong == 0
    assert curve.auroc(scores, answerable) == pytest.approx(14 / 15)
    assert curve.auroc(np.zeros(8), answerable) == 0.5
    assert len(curve.refusal_curve(np.arange(500.0), np.arange(500) > 250)) == 21


def test_fit_is_at_the_optimum_of_its_loss() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, len(refusal.SEARCH_SIGNALS))) * [0.2, 0.1, 0.1, 0.3, 0.3, 0.2, 0.2, 3.0]
    x[:, 5] = 0.25  # a signal that never varies
    y = x[:, 0] + rng.normal(size=60) * 0.2 > 0
    constructed = ~y & (rng.random(60) < 0.5)
    weights, bias = refusal.fit_logistic(x, y, constructed)
    share = np.where(y, 0.5 / y.sum(), np.where(constructed, 0.25 / constructed.sum(), 0))
    share[~y & ~constructed] = 0.25 / (~y & ~constructed).sum()
    z = (x - x.mean(axis=0)) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1)
    log_odds = x @ weights + bias
    # The gradient of the weighted logistic loss with ridge 3 / (2 n), by the standardised weights and the bias.
    slope = share * (1 / (1 + np.exp(-log_odds)) - y)
    gradient = z.T @ slope + 3.0 / len(y) * weights * np.where(x.std(axis=0) > 0, x.std(axis=0), 1)
    assert np.abs(gradient).max() < 1e-8
    assert abs(slope.sum()) < 1e-8
    again = refusal.fit_logistic(x, y, constructed)
    assert (again[0].tolist(), again[1]) == (weights.tolist(), bias)


def test_cut_of_twenty_may_refuse_one_and_never_half_of_equal_scores() -> None:
    none = np.zeros(24, dtype=bool)
    answerable = np.arange(24) < 20
    scores = np.concatenate([[0.0], np.arange(2.0, 21.0), [1.0, 1.0, 1.0, -1.0]])
    assert refusal.best_cut(scores, answerable, none) == 1.5  # refuses 1 of 20 wrongly, all others rightly
    scores = np.concatenate([[0.0, 0.0], np.arange(2.0, 20.0), [0.0, 0.0, 0.0, -1.0]])
    assert (
        refusal.best_cut(scores, answerable, none) == -0.5
    )  # two answerable share the score of the unanswerable


def test_fit_uses_real_unanswerable_questions(make_chunk: Callable[..., Chunk]) -> None:
    index = ScriptedIndex(make_chunk)
    dev = [(f"known thing {n}", "a.md", True) for n in range(12)] + [
        (f"odd {n}", None, False) for n in range(6)
    ]
    fitted = refusal.fit_threshold(index, dev)
    assert (fitted.how, fitted.answerable, fitted.unanswerable, fitted.made) == ("logistic", 12, 18, 12)
    assert (fitted.balanced_accuracy, fitted.auroc) == (1.0, 1.0)
    assert fitted.chosen is not None
    assert (fitted.chosen.cut, fitted.chosen.right, fitted.chosen.wrong) == (0.0, 1.0, 0.0)
    assert fitted.at_most is not None
    assert fitted.at_most.wrong == 0
    assert len(fitted.curve) > 2
    (good, bad) = index.search_many(["known thing", "odd"], 5)
    assert not fitted.refuses("known thing", good)
    assert fitted.refuses("odd", bad)
    assert fitted.refuses("anything", [])
    stored = json.loads(json.dumps(fitted.to_json()))
    assert refusal.RefusalThreshold.from_json(stored).to_json() == stored
    assert refusal.RefusalThreshold.from_json(stored).weights == fitted.weights
    broken = ({"weights": [1]}, {**stored, "weights": {"luck": 1.0}}, {**stored, "curve": [{"cut": 1}]})
    for damaged in (*broken, {key: value for key, value in stored.items() if key != "bias"}):
        with pytest.raises(BadInput, match="run RUN --resume"):
            refusal.RefusalThreshold.from_json(damaged)


def test_refusal_decision_lists_its_signals(make_chunk: Callable[..., Chunk]) -> None:
    hits = [Hit(make_chunk("Dogs travel on deck."), 1, 0.35, 3.0)]
    decision = refusal.default_threshold().decide("Do dogs travel?", hits)
    assert decision.refuse
    assert decision.to_json() == {
        "refuse": True,
        "score": -0.05,
        "signals": {
            "dense": 0.35,
            "lead": 0.0,
            "margin": 0.0,
            "coverage": 1.0,
            "body": 1.0,
            "subject": 0.0,
            "named": 0.0,
            "length": 2.0,
            "answers": 0.0,
        },
    }


def test_fit_adds_searches_without_gold_documents(make_chunk: Callable[..., Chunk]) -> None:
    dev = [(f"known thing {n}", "a.md", True) for n in range(10)]
    fitted = refusal.fit_threshold(ScriptedIndex(make_chunk), dev)
    assert (fitted.how, fitted.unanswerable, fitted.made) == ("logistic", 10, 10)


@pytest.mark.parametrize("dev", [[], [("known", "a.md", True)] * 4, [("known", None, True)] * 30])
def test_fit_with_few_questions_returns_the_default(
    make_chunk: Callable[..., Chunk], dev: list[tuple[str, str | None, bool]]
) -> None:
    fitted = refusal.fit_threshold(ScriptedIndex(make_chunk), dev)
    assert fitted.how == "default"
    assert "too few" in fitted.note
    assert not fitted.refuses("x", [Hit(make_chunk("x"), 1, 0.5, 0)])
    assert fitted.refuses("x", [Hit(make_chunk("x"), 1, 0.3, 0)])


@pytest.mark.real
def test_refusal_accuracy_on_public_questions(shared: Path, minilm: Embedder, tmp_path: Path) -> None:
    folder = shared / "data" / "xquad_en"
    Index.build(tmp_path / "index", folder / "documents.jsonl", minilm)
    index = Index.open(tmp_path / "index", minilm)
    lines = (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines()[::6]
    rows = [json.loads(line) for line in lines]
    dev, test = rows[::3], [row for n, row in enumerate(rows) if n % 3]
    fitted = refusal.fit_threshold(index, [(r["question"], r["doc_id"], True) for r in dev])
    asked, gold = [r["question"] for r in test], [[r["doc_id"]] for r in test]
    answered = [
        not fitted.refuses(question, hits)
        for question, hits in zip(asked, index.search_many(asked, refusal.SIGNAL_DEPTH), strict=True)
    ]
    refused = [
        fitted.refuses(question, hits)
        for question, hits in zip(asked, index.search_many(asked, refusal.SIGNAL_DEPTH, gold), strict=True)
    ]
    assert sum(answered) / len(test) > 0.85
    assert sum(refused) / len(test) > 0.5

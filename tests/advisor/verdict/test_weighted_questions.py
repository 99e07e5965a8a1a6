"""Questions that are asked unequally often: the intervals of scores, shares and differences, by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from advisor.verdict.comparison import compare_arms
from advisor.verdict.right_answers import right_answers
from rag.evaluation.statistics import bootstrap_interval, clustered_share, paired_test
from runners.report.arm_scores import ArmScores
from runners.trial.trial import scores_with_intervals

TRIALS = 400
LEAST = 0.93


def arm(right: np.ndarray, weights: np.ndarray | None, name: str = "a") -> ArmScores:
    """Return the scores of an arm; questions have these weights."""
    count = len(right)
    times = () if weights is None else tuple((weights / weights.mean()).tolist())
    return ArmScores(
        name,
        tuple(f"q{n}" for n in range(count)),
        tuple({"right": float(value)} for value in right),
        tuple(map(float, right)),
        (0.1,) * count,
        (1,) * count,
        (1,) * count,
        question_weights=times,
        asked=times,
    )


def drawn_weights(kind: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return weights as logs have them: Zipf's law, or a sample of which the frequent ones were drawn for sure."""
    if kind == "zipf":
        return 1 / np.arange(1.0, count + 1)
    return np.concatenate([rng.pareto(1.5, count // 4) * 5 + 5, np.full(count - count // 4, 5.0)])


@pytest.mark.parametrize("count", [40, 100, 250])
@pytest.mark.parametrize("kind", ["zipf", "sample"])
@pytest.mark.parametrize(("share", "slope"), [(0.6, 0.0), (0.6, 0.5), (0.85, 0.0)])
def test_intervals_of_weighted_means_hold(count: int, kind: str, share: float, slope: float) -> None:
    """``slope``: by how much the questions that are asked most are right more often than the rarest ones."""
    rng = np.random.default_rng(count)
    held = {"right": 0, "score": 0}
    for _ in range(TRIALS):
        weights = drawn_weights(kind, count, rng)
        rank = np.argsort(np.argsort(weights)) / count
        chances = np.clip(share + slope * (rank - 0.5), 0.02, 0.98)
        truth = float((weights * chances).sum() / weights.sum())
        scores = arm(rng.random(count) < chances, weights)
        right = right_answers(scores)
        assert right is not None
        score = scores_with_intervals(scores)["combined"]
        held["right"] += right.low <= truth <= right.high
        held["score"] += score.low <= truth <= score.high
    assert min(held.values()) / TRIALS >= LEAST


@pytest.mark.parametrize("kind", ["zipf", "sample"])
def test_intervals_of_weighted_differences_hold(kind: str) -> None:
    rng = np.random.default_rng(1)
    held = sure = 0
    for _ in range(TRIALS):
        weights = drawn_weights(kind, 80, rng)
        first = rng.random(80) < 0.6
        second = np.where(rng.random(80) < 0.3, rng.random(80) < 0.6, first)
        difference = compare_arms(arm(first, weights), arm(second, weights, "b"), 0)
        held += difference.low <= 0 <= difference.high
        sure += difference.p <= 0.05
    assert held / TRIALS >= LEAST
    assert sure / TRIALS <= 0.08


def test_equal_weights_change_nothing() -> None:
    rng = np.random.default_rng(0)
    values, other = rng.random(40), rng.random(40)
    documents = [f"d{n // 3}" for n in range(40)]
    ones = [1.0] * 40
    plain = paired_test("a", "b", values.tolist(), other.tolist(), documents=documents)
    same = paired_test("a", "b", values.tolist(), other.tolist(), documents=documents, weights=ones)
    assert same.difference == pytest.approx(plain.difference)
    assert same.p == pytest.approx(plain.p)
    assert clustered_share(values.tolist()).mean == pytest.approx(
        clustered_share(values.tolist(), weights=ones).mean
    )


def test_one_question_with_nearly_all_of_the_weight_makes_nothing_sure() -> None:
    weights = np.array([10_000.0, *[1.0] * 39])
    right = right_answers(arm(np.ones(40), weights))
    assert right is not None
    assert right.low < 0.5
    mixed = bootstrap_interval([-3.0, *[0.1] * 39], weights=weights.tolist())
    assert mixed.low < mixed.mean < mixed.high


def test_weights_and_documents_together() -> None:
    """Questions of one document succeed and fail together; the interval is wider than without documents."""
    rng = np.random.default_rng(3)
    weights = drawn_weights("sample", 120, rng)
    documents = [f"d{n // 6}" for n in range(120)]
    right = np.repeat(rng.random(20) < 0.6, 6)
    scores = arm(right, weights)
    values, times = scores.by_question("right"), scores.weights_by_question("right")
    alone, together = (
        clustered_share(values, weights=times),
        clustered_share(values, documents, weights=times),
    )
    assert together.mean == pytest.approx(float((right * weights).sum() / weights.sum()))
    assert together.high - together.low > 1.5 * (alone.high - alone.low)

"""Questions that are asked unequally often: the intervals of scores, shares and differences, by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from advisor.verdict.comparison import compare_arms
from advisor.verdict.regression import ScoreChange, change_text, paired_changes, smallest_found_loss
from advisor.verdict.right_answers import right_answers
from rag.evaluation.statistics import bootstrap_interval, clustered_share, paired_test
from runners.report.arm_scores import ArmScores
from runners.trial.trial import scores_with_intervals

TRIALS = 400
LEAST = 0.93
RECHECKS_WITH_POWER = 20


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


@pytest.mark.parametrize("kind", ["zipf", "sample"])
def test_rechecks_of_weighted_questions_alarm_seldom_and_find_the_loss_they_state(kind: str) -> None:
    """Answers drawn again from the same chances are no loss; the stated smallest loss is found in about 80 %."""
    rng = np.random.default_rng(3)
    alarms = gains = found = stated = 0
    for trial in range(TRIALS // 2):
        weights = drawn_weights(kind, 120, rng)
        before = rng.random(120) < 0.8
        noise = rng.random(120) < 0.05
        now = np.where(noise, rng.random(120) < 0.8, before)
        change = recheck(before, now, weights)
        alarms += change.sure_loss(0.0)
        gains += change.sure_gain(0.0)
        if trial >= RECHECKS_WITH_POWER:
            continue
        loss = smallest_found_loss(arm(before, weights), [change])
        if loss is not None:
            stated += 1
            lost = rng.choice(np.flatnonzero(before), loss.answers, replace=False)
            worse = now.copy()
            worse[lost] = False
            found += recheck(before, worse, weights).sure_loss(0.0)
    assert alarms / (TRIALS // 2) <= 0.04
    assert gains / (TRIALS // 2) <= 0.04
    assert stated >= RECHECKS_WITH_POWER // 2
    assert found / stated >= 0.65


def recheck(before: np.ndarray, now: np.ndarray, weights: np.ndarray) -> ScoreChange:
    """Return the change of right answers."""
    changes = paired_changes([(arm(before, weights), arm(now, weights))])
    return next(change for change in changes if change.score == "right")


def test_a_change_of_weighted_questions_is_said_by_count_and_by_what_is_asked() -> None:
    """Three of four answers are lost of questions that are hardly asked: the count falls by more than the share."""
    weights = np.array([90.0, 4, 3, 3])
    change = recheck(np.array([1.0, 1, 1, 1]), np.array([1.0, 0, 0, 0]), weights)
    assert (change.now, change.before) == (pytest.approx(0.9), 1.0)
    assert change.independent == 1
    assert "answers 1 of 4 right, 4 before" in change_text(change)
    assert "of what is asked 90%, 100% before" in change_text(change)


def test_the_same_weights_are_as_no_weights() -> None:
    """Weights that are all equal change neither the difference nor the test."""
    rng = np.random.default_rng(1)
    before, now = rng.random(60) < 0.8, rng.random(60) < 0.7
    plain = next(c for c in paired_changes([(arm(before, None), arm(now, None))]) if c.score == "right")
    equal = recheck(before, now, np.ones(60))
    assert (equal.difference, equal.p_loss, equal.n) == (plain.difference, plain.p_loss, plain.n)

"""The decision of a recheck: exact tests, their size and power, and the outcomes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from advisor.verdict.regression import (
    LEVEL,
    ScoreChange,
    decide,
    paired_changes,
    smallest_found_loss,
)
from rag.evaluation.sign_flips import sign_flip_family
from runners.trial.trial import ArmScores
from tests.support.worded import repeat_in_wordings


def arm(
    right: list[float],
    documents: list[str] | None = None,
    name: str = "rag",
    cites: list[float] | None = None,
) -> ArmScores:
    """Return an arm's scores, one question for each value."""
    count = len(right)
    rows = tuple({"right": r} | ({"citation": cites[n]} if cites else {}) for n, r in enumerate(right))
    whole = tuple(0.9 * r for r in right)
    ids = tuple(f"q{n}" for n in range(count))
    sources = tuple(documents or [f"d{n}" for n in range(count)])
    return ArmScores(name, ids, rows, whole, (0.1,) * count, (1,) * count, (1,) * count, sources)


@pytest.mark.parametrize(("losses", "gains"), [(5, 0), (6, 0), (7, 1), (9, 2), (14, 4), (3, 8)])
def test_one_score_is_the_exact_mcnemar_test(losses: int, gains: int) -> None:
    table = np.array([[-1.0] * losses + [1.0] * gains + [0.0] * 20])
    exact = stats.binomtest(gains, losses + gains, 0.5, alternative="less").pvalue
    drawn = losses + gains > 12
    assert sign_flip_family(table)[0] == pytest.approx(exact, abs=0.01 if drawn else 1e-12)


def test_scores_that_change_together_cost_nothing() -> None:
    losses = np.array([[-1.0] * 6 + [0.0] * 30])
    assert sign_flip_family(np.vstack([losses, 0.9 * losses])) == pytest.approx([2**-6, 2**-6])
    apart = np.hstack([losses, np.zeros_like(losses)])
    both = sign_flip_family(np.vstack([apart, np.roll(apart, 36, axis=1)]))
    assert 2**-6 < both[0] <= 2 * 2**-6


@pytest.mark.parametrize(("count", "flips", "rechecks"), [(20, 0.4, 1500), (60, 0.15, 400)])
def test_harmless_changes_are_alarms_in_at_most_the_level(count: int, flips: float, rechecks: int) -> None:
    """Two arms, two scores each, old and new answers drawn alike: rechecks; alarms at most 2.5 % (and chance)."""
    rng = np.random.default_rng(5)
    alarms = 0
    for _ in range(rechecks):
        rows = []
        for _ in range(2):
            chance = rng.beta(1, 1, count)
            old = rng.random(count) < chance
            new = np.where(rng.random(count) < flips, rng.random(count) < chance, old)
            style = rng.choice([0.8, 0.9, 1.0], (2, count))
            rows += [new * 1.0 - old, new * style[0] - old * style[1]]
        alarms += min(sign_flip_family(np.array(rows)[:, : 12 if count == 20 else None])) <= LEVEL
    assert alarms / rechecks <= LEVEL + 3 * (LEVEL * (1 - LEVEL) / rechecks) ** 0.5


def test_outcomes() -> None:
    before = arm([1.0] * 30 + [0.0] * 30)

    def outcome(right: list[float], margin: float = 0.0, lost: int = 0, made: bool = False) -> str:
        return decide(paired_changes([(before, arm(right))]), margin, lost, made).outcome

    assert outcome([1.0] * 30 + [0.0] * 30) == "unchanged"
    assert outcome([1.0] * 30 + [0.0] * 30, lost=2) == "needs new gold"
    assert outcome([0.0] * 8 + [1.0] * 22 + [0.0] * 30) == "regression"
    assert outcome([0.0] * 8 + [1.0] * 22 + [0.0] * 30, made=True) == "undecided"
    assert outcome([0.0] * 8 + [1.0] * 22 + [0.0] * 30, margin=0.1) == "undecided"
    assert outcome([0.0] * 8 + [1.0] * 22 + [0.0] * 30, lost=3) == "regression"
    assert outcome([1.0] * 40 + [0.0] * 20) == "improved"
    assert outcome([0.0] * 4 + [1.0] * 26 + [0.0] * 30) == "undecided"
    large = paired_changes([(arm([1.0] * 200), arm([0.0] + [1.0] * 199))])
    assert decide(large, 0.0, 0).outcome == "unchanged", "a loss of more than .05 is excluded"
    assert decide((), 0.0, 3).outcome == "needs new gold"
    needed = decide(paired_changes([(before, arm([0.0] * 4 + [1.0] * 26 + [0.0] * 30))]), 0.0, 0)
    assert needed.more_questions_needed is not None
    assert needed.more_questions_needed > 0


def test_losses_of_one_document_are_one_loss() -> None:
    documents = [f"d{n // 10}" for n in range(100)]
    before = arm([1.0] * 100, documents)
    one = paired_changes([(before, arm([0.0] * 10 + [1.0] * 90, documents))])
    assert not any(change.sure_loss(0.0) for change in one)
    spread = [0.0 if n % 10 == 0 else 1.0 for n in range(100)]
    each = paired_changes([(before, arm(spread, documents))])
    assert any(change.sure_loss(0.0) for change in each)


def test_citations_decide_where_sources_are_demanded() -> None:
    right = [1.0] * 40
    before, now = (arm(right, cites=cites) for cites in ([1.0] * 40, [0.0] * 12 + [1.0] * 28))
    shown = paired_changes([(before, now)])
    assert decide(shown, 0.0, 0).outcome == "unchanged"
    demanded = paired_changes([(before, now)], demanded=["citation"])
    assert decide(demanded, 0.0, 0).outcome == "regression"
    assert {change.score for change in demanded if change.decides} == {"right", "combined", "citation"}


@pytest.mark.parametrize(("margin", "each"), [(0.0, 1), (0.1, 1), (0.05, 16)])
def test_stated_power_is_reached(margin: float, each: int) -> None:
    """Losses of the stated size, drawn at random, are found in about 80 % of 100 draws, half of them in clearly fewer."""
    before = arm([1.0, 0.0] * 40, [f"d{n // each}" for n in range(80)])
    stated = smallest_found_loss(before, (), margin=margin)
    assert stated is not None
    rng = np.random.default_rng(2)

    def share(answers: float) -> float:
        count = 0
        for _ in range(100):
            right = np.where(rng.random(80) < answers / stated.right, 0.0, before.of("right"))
            now = arm([float(value) for value in right], [str(source) for source in before.sources()])
            count += decide(paired_changes([(before, now)]), margin, 0).outcome == "regression"
        return count / 100

    assert 0.68 <= share(stated.answers) <= 0.92
    assert share(stated.answers / 2) < 0.5
    assert smallest_found_loss(arm([1.0] * 5 + [0.0] * 30), ()) is None
    assert smallest_found_loss(arm([0.0] * 20), ()) is None


def test_a_change_can_be_read_back() -> None:
    change = paired_changes([(arm([1.0] * 8), arm([0.0] * 8))])[0]
    assert ScoreChange(**change.to_json()).sure_loss(0.0)


@pytest.mark.parametrize("documents", [None, ["a", "b", "c", "d"] * 6])
def test_wordings_with_the_same_result_are_no_further_evidence(documents: list[str] | None) -> None:
    """Three losses of 24 stay three losses, however often each question was asked in other words."""
    before, now = arm([1.0] * 24, documents), arm([0.0] * 3 + [1.0] * 21, documents)
    plain = paired_changes([(before, now)])
    worded = (repeat_in_wordings(before, 2), repeat_in_wordings(now, 2))
    changes = paired_changes([worded])
    for one, other in zip(plain, changes, strict=True):
        assert (other.n, other.losses, other.independent) == (72, 9, 24)
        assert (one.n, one.losses, one.independent) == (24, 3, 24)
        assert other.p_loss == one.p_loss
        assert (other.difference, other.low, other.high) == pytest.approx(
            (one.difference, one.low, one.high), abs=0.02
        )
    decisions = [decide(rows, 0.0, 0) for rows in (plain, changes)]
    assert decisions[0].outcome == decisions[1].outcome == "undecided"
    assert decisions[0].more_questions_needed == decisions[1].more_questions_needed
    assert ScoreChange(**changes[0].to_json()).independent == 24
    assert "questions" not in plain[0].to_json()
    once, often = (
        smallest_found_loss(scores, rows) for scores, rows in ((before, plain), (worded[0], changes))
    )
    assert once is not None
    assert often is not None
    assert often.answers >= once.answers

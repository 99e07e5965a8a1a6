"""Curves held against each other: what is decided at which size, and how often it is wrong, through what decides."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from scipy import stats

from advisor.verdict.comparison import SIGNIFICANCE_LEVEL
from advisor.verdict.crossings import Crossings, compare_curves
from advisor.workflows.curve import show_curve
from advisor.workflows.curve_arms import MAX_COLUMNS
from benchmarks.simulated_verdicts import arm_of, share_crossed
from runners.trial.trial import ArmScores

QUESTIONS = 40
SIZES = (50, 100, 200)


def scores(arm: str, *right: int) -> dict[int, list[ArmScores]]:
    """Return an arm's scores at each size, with so many right answers of forty."""
    ids = [str(n) for n in range(QUESTIONS)]
    return {
        size: [arm_of(arm, [float(n < count) for n in range(QUESTIONS)], ids)]
        for size, count in zip(SIZES, right, strict=True)
    }


def crossings(**right: tuple[int, ...]) -> Crossings:
    """Return what is decided between arms of so many right answers at each size."""
    return compare_curves({arm: scores(arm, *counts) for arm, counts in right.items()}, 0)


def test_curves_that_cross_are_ahead_one_after_the_other() -> None:
    result = crossings(shown=(22, 22, 22), head=(4, 24, 40))
    assert [one.ahead for one in result.at] == ["shown", None, "head"]
    assert (result.best, result.best_from, result.leader(100)) == ("head", 200, None)
    assert result.sentences() == [
        "head scored highest with 200 rows, and is clearly ahead of shown there.",
        "shown is clearly ahead of head with 50 rows; head is clearly ahead of shown with 200 rows.",
    ]
    data = result.to_json()
    assert data["best"] == {"arm": "head", "from": 200}
    assert data["pairs"][0]["from"] == {"arm": "head", "n": 200}
    assert [row["arm"] for row in data["leaders"]] == ["shown", None, "head"]


def test_a_lead_that_is_lost_again_is_none_from_there_on() -> None:
    result = crossings(shown=(4, 30, 30), head=(30, 30, 31), last=(2, 2, 2))
    assert result.leads("head", "shown") == (50,)
    assert (result.best, result.best_from) == ("head", None)
    best, pair, *_ = result.sentences()
    assert best == "head scored highest with 200 rows; whether it is ahead of shown is not decided there."
    assert pair == "head is clearly ahead of shown with 50 rows."
    steady = crossings(shown=(22, 22, 22), head=(22, 40, 40))
    assert steady.sentences() == [
        "head scored highest with 200 rows, and is clearly ahead of shown from 100 rows on.",
        "head is clearly ahead of shown from 100 rows on.",
    ]
    assert result.lead_from("head", ["last"]) == 50


def test_equal_arms_and_several_trainings() -> None:
    """Of equal arms nothing is decided; the trainings of a size are averaged question by question."""
    equal = crossings(a=(20, 20, 20), b=(20, 20, 20))
    assert [one.ahead for one in equal.at] == [None] * 3
    assert equal.sentences()[1:] == ["Not decided at any size: a against b."]
    many, few = scores("a", 40, 40, 40), scores("a", 0, 0, 0)
    both = {size: [*many[size], *few[size]] for size in SIZES}
    (first, *_) = compare_curves({"a": both, "b": scores("b", 20, 20, 20)}, 0).at
    assert first.pair.difference == 0
    assert crossings(a=(20, 20, 20)).to_json()["sentences"] == []


def test_p_is_corrected_over_all_pairs_and_sizes() -> None:
    """A difference that two arms alone would show is not shown among many."""
    two = crossings(a=(28, 20, 20), b=(20, 20, 20))
    assert two.at[0].ahead == "a"
    others = {f"c{n}": (20, 20, 20) for n in range(4)}
    many = crossings(a=(28, 20, 20), b=(20, 20, 20), **others)
    assert len(many.at) == 45
    assert many.at[0].pair.p == two.at[0].pair.p
    assert many.at[0].ahead is None


@pytest.mark.parametrize(("arms", "questions"), [(2, 40), (3, 40)])
def test_equal_arms_are_seldom_clearly_ahead(arms: int, questions: int) -> None:
    """Of any of them at any size; the bound is one that a true rate of .05 passes in all but one of a thousand sessions."""
    trials = 20
    false = share_crossed(arms, questions, trials=trials)["false"]
    assert false * trials <= stats.binom.ppf(0.999, trials, SIGNIFICANCE_LEVEL)


def test_an_arm_that_is_better_with_more_rows_is_found() -> None:
    assert share_crossed(2, 100, 2.0, trials=10)["found"] > 0.7


def test_table_of_many_arms_is_no_wider_than_its_limit() -> None:
    names = [f"few-shot-scored-{n}" for n in range(9)]
    points = [{"n": n, "score": 0.5, "low": 0.4, "high": 0.6, "right": 20.0, "of": 1000} for n in SIZES]
    data = {
        "sizes": list(SIZES),
        "arms": [{"arm": name, "points": points} for name in names],
        "crossings": {
            "leaders": [{"n": n, "arm": names[0] if n == 200 else None} for n in SIZES],
            "sentences": ["a: not decided."],
        },
        "warnings": ["few-shot is not measured: why"],
        "folder": "c",
    }
    shown = io.StringIO()
    show_curve(data, Console(file=shown, width=1000))
    lines = shown.getvalue().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= MAX_COLUMNS
    assert all(any(name in line for line in lines) for name in names)
    assert sum("0.500*" in line for line in lines) == 1
    assert sum(line.split()[0] == "50" for line in lines) == 2

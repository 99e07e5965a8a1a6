"""A prompt replaces the default by a lead that holds on enough fresh questions, and by its price where both are as good."""

from __future__ import annotations

import math

import pytest

from benchmarks.audition import CELLS, GRADES, compare_rules
from runners.scoring.prompt_lead import ScoreLead, is_cheaper, score_lead

TRIALS = 400
LEVEL = 0.15
"""Largest share of trials in which one of equal prompts may replace the default."""
DEMO = [0.07] + [0.0] * 14
"""The demo's fresh questions: one of 15 differed, by .07."""


def lead(differences: list[float], tokens: float = 300, default_tokens: float = 300) -> ScoreLead:
    """Return the lead with these paired differences."""
    return score_lead(
        [0.5 + value for value in differences], [0.5] * len(differences), tokens, default_tokens
    )


@pytest.mark.parametrize(
    ("differences", "replaces"),
    [
        ([0.0] * 15, False),
        (DEMO, False),
        ([1.0] + [0.0] * 14, False),
        ([1.0, 1.0] + [0.0] * 13, False),
        ([1.0, 1.0, 1.0] + [0.0] * 12, True),
        ([1.0, 1.0, 1.0, -1.0] + [0.0] * 11, False),
        ([1.0] * 5 + [-1.0] * 2 + [0.0] * 8, True),
        ([1.0] * 4 + [-1.0] * 3 + [0.0] * 8, False),
        ([-1.0] * 5 + [0.0] * 10, False),
        ([0.1] * 8, True),
        ([0.3, -0.2, 0.25, -0.2, 0.1, -0.1, 0.0, 0.05], False),
        ([0.3, 0.2, 0.25, -0.2, 0.1, 0.1, 0.0, 0.05], True),
    ],
)
def test_three_questions_differ_and_the_lead_holds(differences: list[float], replaces: bool) -> None:
    one = lead(differences)
    assert one.replaces is replaces
    assert one.questions == len(differences)


@pytest.mark.parametrize(
    ("differences", "tokens", "default_tokens", "replaces"),
    [
        (DEMO, 3_781, 230, False),
        (DEMO, 230, 3_781, True),
        ([0.0] * 15, 200, 230, True),
        ([0.0] * 15, 229, 230, False),
        ([-0.07] + [0.0] * 14, 230, 3_781, False),
        ([0.2, -0.2, 0.1, -0.1] + [0.0] * 11, 230, 3_781, False),
        ([0.01] * 15, 3_781, 230, False),
        ([0.01] * 15, 230, 230, True),
        ([0.02] * 15, 3_781, 230, True),
        ([0.01] * 15, 230, 3_781, True),
    ],
)
def test_the_cheaper_of_prompts_about_as_good_is_kept(
    differences: list[float], tokens: float, default_tokens: float, replaces: bool
) -> None:
    assert lead(differences, tokens, default_tokens).replaces is replaces


def test_a_tenth_fewer_tokens_are_cheaper() -> None:
    assert is_cheaper(90, 100)
    assert not is_cheaper(91, 100)
    assert not is_cheaper(0, 0)


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (
            lead([0.3, 0.3, 0.25, 0.1, 0.1, 0.0125] + [0.0] * 9),
            "B chosen: +0.07 on 15 fresh questions, 6 of them differ",
        ),
        (
            lead([1.0] * 4 + [0.0] * 11, 3_781, 230),
            "B chosen: +0.27 on 15 fresh questions, 4 of them differ; 3,781 prompt tokens instead of 230",
        ),
        (
            lead(DEMO, 3_781, 230),
            "A kept: B +0.00 on 15 fresh questions, 1 of them differs (at least 3 must)",
        ),
        (lead([0.0] * 15), "A kept: B +0.00 on 15 fresh questions, none of them differs (not ahead)"),
        (
            lead([1.0] * 4 + [-1.0] * 3 + [0.0] * 8),
            "A kept: B +0.07 on 15 fresh questions, 7 of them differ "
            "(a lead below 1.12 of its standard errors (0.18) may be luck)",
        ),
        (
            lead([0.01] * 15, 3_781, 230),
            "A kept: B +0.01 on 15 fresh questions, 15 of them differ "
            "(about as good, but 3,781 prompt tokens instead of 230)",
        ),
        (
            lead(DEMO, 230, 3_781),
            "B chosen: +0.00 on 15 fresh questions, 1 of them differs; 230 prompt tokens instead of 3,781",
        ),
    ],
)
def test_reason_has_the_lead_and_how_many_differ(one: ScoreLead, reason: str) -> None:
    assert one.reason("B", "A") == reason


def test_equal_prompts_are_seldom_taken_and_the_gain_is_kept() -> None:
    """Simulated through :func:`score_lead`, on other cells than those that the rule was chosen on.

    Nine tenths of the gain of 0.2.0 are asked of combined scores, whose paired differences have spreads as measured in
    trials. Of grades that are 0 or 1 no rule at this level can keep them: what the most powerful test keeps is the measure.
    """
    found = {(cell, grades): compare_rules(*cell, grades, TRIALS, 7) for cell in CELLS for grades in GRADES}
    noise = math.sqrt(LEVEL * (1 - LEVEL) / TRIALS)
    assert max(one.equal for one in found.values()) <= LEVEL + 3.5 * noise  # 72 cells, one seed
    for grades in GRADES:
        cells = [found[cell, grades] for cell in CELLS]
        assert sum(one.equal for one in cells) / len(cells) <= LEVEL, grades
        kept = sum(one.gain for one in cells) / sum(one.gain_before for one in cells)
        if grades.startswith("combined"):
            assert kept >= 0.9, grades
        elif grades == "0/1 apart":
            attainable = sum((one.bound or 0) * one.gain_before for one in cells)
            assert sum(one.gain for one in cells) >= 0.9 * attainable
    before = [one.equal_before for one in found.values()]
    assert sum(before) / len(before) > 2 * LEVEL  # the simulation shows the fault of 0.2.0


def test_fewer_than_eight_fresh_questions_are_never_compared() -> None:
    from runners.arms.prompt_selection import halving_rounds

    assert halving_rounds(2, 5, 60) == ()
    assert halving_rounds(2, 8, 60) == ((2, 8),)

"""The cuts of nearest replies and of routers: what is stated against what is found, over many draws."""

from __future__ import annotations

import math

import numpy as np
import pytest

from runners.selective.cuts import (
    CHANCE_ABOVE,
    choose_route_cut,
    enough_for_cut,
    fit_reply_cut,
)

NAMES = ("classifier", "few-shot")


def draw(rng: np.random.Generator, count: int, hard: float) -> tuple[np.ndarray, np.ndarray]:
    """Return similarities and the chance that each reply is right, which grows with them."""
    similarities = rng.beta(4, 2, count)
    return similarities, 1 / (1 + np.exp(-12 * (similarities - hard)))


@pytest.mark.parametrize("most_wrong", [0.05, 0.15, 0.3])
def test_share_of_wrong_replies_is_above_the_stated_one_in_a_fifth_of_samples_at_most(
    most_wrong: float,
) -> None:
    """300 draws each of 63 to 200 questions, easy and hard: above in .20 at most (and two standard errors of 300 draws)."""
    for hard in (0.45, 0.7):
        for count in (enough_for_cut(0.05), 200):
            rng = np.random.default_rng(7)
            above, draws = 0, 300
            for _ in range(draws):
                similarities, chance = draw(rng, count, hard)
                right = rng.random(count) < chance
                fitted = fit_reply_cut(similarities.tolist(), right.tolist(), most_wrong)
                if fitted.cut is None:
                    continue
                others, chance = draw(rng, 2_000, hard)
                given = others >= fitted.cut
                above += bool(given.any()) and float((1 - chance[given]).mean()) > most_wrong
            error = 2 * math.sqrt(CHANCE_ABOVE * (1 - CHANCE_ABOVE) / draws)
            assert above / draws <= CHANCE_ABOVE + error, (hard, count, above)


def test_cut_counts_what_it_gives_on_its_questions() -> None:
    fitted = fit_reply_cut([0.9] * 20 + [0.5] * 20, [True] * 20 + [False] * 20, 0.15)
    assert (fitted.cut, fitted.questions, fitted.given, fitted.wrong) == (pytest.approx(0.7), 40, 20, 0)
    never = fit_reply_cut([0.9, 0.8] * 20, [False] * 40, 0.3)
    assert (never.cut, never.given) == (None, 0)
    always = fit_reply_cut([0.9, 0.8] * 20, [True] * 40, 0.3)
    assert always.cut is not None
    assert always.cut < 0.8
    assert always.given == 40
    tied = fit_reply_cut([0.5] * 40, [True] * 20 + [False] * 20, 0.3)
    assert tied.cut is None, "equal similarities are given together or not at all"
    assert fit_reply_cut([], [], 0.3).cut is None
    assert [enough_for_cut(share) for share in (0.3, 0.15, 0.05)] == [10, 20, 63]


def test_route_takes_most_questions_within_one_standard_error() -> None:
    sure = [0.9] * 20 + [0.4] * 20
    first = [1.0] * 20 + [0.0] * 20
    route = choose_route_cut(sure, first, [1.0] * 40, NAMES, 0.7)
    assert (route.routed, route.cut) == (20, pytest.approx(0.65))
    assert route.scores == (0.5, 1.0, 1.0)
    assert "is taken for 20 of 40 dev questions" in route.reason
    always = choose_route_cut(sure, [1.0] * 40, [0.5] * 40, NAMES, 0.7)
    assert always.routed == 40
    assert "always sure enough" in always.reason
    never = choose_route_cut(sure, [0.0] * 40, [1.0] * 40, NAMES, 0.7)
    assert (never.routed, never.cut) == (0, None)
    assert "never sure enough" in never.reason
    refusing = choose_route_cut([None] * 40, [0.0] * 40, [0.0] * 40, NAMES, 0.7)
    assert (refusing.routed, refusing.cut) == (0, None), "an arm that gives no answer is not routed to"


@pytest.mark.parametrize("count", [0, 1, 7])
def test_route_with_few_dev_questions_goes_by_the_cost_of_a_wrong_answer(count: int) -> None:
    route = choose_route_cut([0.9] * count, [1.0] * count, [0.0] * count, NAMES, 0.95)
    assert route.cut == 0.95
    assert "fewer than 8" in route.reason


def test_route_loses_little_of_the_best_score() -> None:
    """200 draws of 40 dev questions: the routed score on other questions is at most .05 below the best cut's, on average.

    The first arm is as often right as it is sure, the other one on .7: the best cut routes what is surer than that.
    """
    rng = np.random.default_rng(3)
    lost, shares = [], []
    for _ in range(200):
        sure = rng.beta(2, 1, 40)
        first, other = rng.random(40) < sure, rng.random(40) < 0.7
        route = choose_route_cut(sure.tolist(), first.tolist(), other.tolist(), NAMES, None)
        asked = rng.beta(2, 1, 2_000)
        routed = asked >= (np.inf if route.cut is None else route.cut)
        lost.append(np.where(asked >= 0.7, asked, 0.7).mean() - np.where(routed, asked, 0.7).mean())
        shares.append(routed.mean())
    assert np.mean(lost) < 0.05
    assert np.mean(shares) > 0.5, "where a cut cannot be told from the best, the cheap arm answers more"

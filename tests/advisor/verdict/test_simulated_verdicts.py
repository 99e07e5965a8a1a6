"""What verdicts call sure with few documents, and which leads they find: simulated through the function that decides.

The full tables: ``python -m benchmarks.simulated_verdicts``. Here a few cells, with bounds that a true rate
passes in all but one of a thousand sessions.
"""

from __future__ import annotations

import re

import pytest
from scipy import stats

from advisor.verdict.comparison import SIGNIFICANCE_LEVEL, STATISTICAL_POWER
from advisor.verdict.sentences import FOUND_WITH_MORE
from benchmarks.simulated_verdicts import (
    BETTER,
    decided_with_more,
    found_with_more,
    share_led,
    share_sure,
    sure,
)


@pytest.mark.parametrize(
    ("documents", "each", "luck", "shape"),
    [(3, 40, 3.0, "alike"), (5, 12, 1.0, "unlike"), (5, 40, 3.0, "alike"), (7, 12, 1.0, "alike")],
)
def test_equal_arms_are_seldom_told_apart_by_few_documents(
    documents: int, each: int, luck: float, shape: str
) -> None:
    trials = 120
    found = share_sure(documents, each, luck, shape, trials=trials)
    assert found * trials <= stats.binom.ppf(0.999, trials, SIGNIFICANCE_LEVEL)


def test_few_documents_still_find_a_large_difference() -> None:
    """The bound on false alarms is not kept by never deciding."""
    assert share_sure(5, 12, 0.0, lift=2 * BETTER, trials=40) > 0.8
    assert share_sure(3, 40, 0.0, lift=2 * BETTER, trials=40) > 0.5


@pytest.mark.parametrize("documents", [["a"] * 40, ["a", "b"] * 20])
def test_one_or_two_documents_are_never_sure(documents: list[str]) -> None:
    import numpy as np

    assert sure(np.vstack([np.ones(40), np.zeros(40)]), documents, 0) is None
    assert sure(np.vstack([np.zeros(40), np.ones(40)]), documents, 0) is None


def test_the_lead_that_a_tendency_promises_is_found() -> None:
    """The sentence under a verdict on few questions, by its own numbers."""
    stated = re.findall(r"with (\d+) (?:a lead of|one of) (\d+)", FOUND_WITH_MORE)
    assert len(stated) == 2
    assert "in 8 of 10 trials" in FOUND_WITH_MORE
    for questions, points in stated:
        found = share_led(int(questions), int(points) / 100, 50)
        assert abs(found - STATISTICAL_POWER) <= 0.05 + 3 * (0.16 / 50) ** 0.5


@pytest.mark.parametrize("of", ["verdict", "recheck"])
def test_the_questions_that_are_named_decide(of: str) -> None:
    """Where the difference is the one that was seen, as the sentence says."""
    more = decided_with_more(12, 5, 0.5, 40) if of == "verdict" else found_with_more(120, 6, 0.0, 0.04, 40)
    assert more["open"] >= 10
    assert abs(more["as seen"] - STATISTICAL_POWER) <= 0.05 + 3 * (0.16 / more["open"]) ** 0.5

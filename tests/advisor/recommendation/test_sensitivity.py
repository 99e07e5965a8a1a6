"""Counterfactuals, thresholds and the value of unknown answers."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.questionnaire.profile import Profile
from advisor.recommendation.ranking import rank_methods
from advisor.recommendation.recommend import recommend_for_profile
from advisor.recommendation.thresholds import ChoiceSpan, largest_below

TUNE: dict[str, Any] = {"task_needs_facts": "none", "behaviour_gap": "high", "labelled_examples": 3000}
BOTH: dict[str, Any] = {"task_needs_facts": "new", "facts_change": "slow", "behaviour_gap": "high"}


def test_count_threshold_is_exact() -> None:
    """One example fewer does not change the choice."""
    profile = Profile.of({**BOTH, "labelled_examples": 8})
    change = next(f for f in recommend_for_profile(profile).flips if f["key"] == "labelled_examples")
    assert (change["to"], change["choice_becomes"]) == (50, "hybrid")
    assert rank_methods(profile.change("labelled_examples", 49)).choice == "rag"
    assert change["text"] == "hybrid, if labelled_examples were at least 50 (now 8)"


def test_memory_threshold_matches_estimate() -> None:
    """The threshold of a GPU's memory is the low end of the estimate, to three digits."""
    profile = Profile.of({**TUNE, "model_params_b": 8, "gpu_memory_gib": 10, "gpu_count": 1})
    assert rank_methods(profile).choice == "qlora"
    change = next(
        f
        for f in recommend_for_profile(profile).flips
        if f["key"] == "gpu_memory_gib" and f["choice_becomes"] == "lora"
    )
    assert rank_methods(profile.change("gpu_memory_gib", change["from"])).choice == "lora"
    assert rank_methods(profile.change("gpu_memory_gib", change["from"] * 0.999)).choice == "qlora"
    assert change["to"] == pytest.approx(change["from"], rel=1e-2)


def test_counterfactuals_are_sorted_by_distance() -> None:
    """The most plausible change comes first."""
    rec = recommend_for_profile(
        Profile.of({**TUNE, "model_params_b": 8, "gpu_memory_gib": 24, "gpu_count": 1})
    )
    distances = [change["distance"] for change in rec.flips]
    assert distances == sorted(distances)


def test_information_values_could_change_the_choice() -> None:
    """One or two unknown answers, each with a counterfactual."""
    rec = recommend_for_profile(Profile.of({"task_needs_facts": "new", "facts_change": "slow"}))
    assert 1 <= len(rec.worth_finding) <= 2
    for value_of_answer in rec.worth_finding:
        assert getattr(rec.profile, value_of_answer.key) is None
        assert any(change["key"] == value_of_answer.key for change in rec.flips)


@pytest.mark.parametrize(
    ("span", "whole", "words", "least", "most"),
    [
        (ChoiceSpan(0, 50, "rag"), True, "at most 49", 0, 49),
        (ChoiceSpan(50, 200, "rag"), True, "50 or more, and at most 199", 50, 199),
        (ChoiceSpan(23.4049, float("inf"), "lora"), False, "at least 23.5", 23.5, None),
        (ChoiceSpan(0.5, 0.8, "rag"), False, "0.5 or more, and below 0.8", 0.5, 0.79),
        (ChoiceSpan(0, 5e-324, "rag"), False, "0", 0, 0),
        (ChoiceSpan(200, 5_000, "lora"), True, "200 or more, and at most 4,999", 200, 4_999),
        (
            ChoiceSpan(10**6, 10**9, "lora"),
            True,
            "1,000,000 or more, and below 1,000,000,000",
            10**6,
            999_900_000,
        ),
        (ChoiceSpan(1, 200_001, "prompting"), True, "1 or more, and at most 200,000", 1, 200_000),
        (ChoiceSpan(200_001, float("inf"), "rag"), True, "at least 200,001", 200_001, None),
        (ChoiceSpan(48_270_000, float("inf"), "rag"), True, "at least 48,270,000", 48_270_000, None),
        (ChoiceSpan(0, 48_270_000, "lora"), True, "below 48,270,000", 0, 48_260_000),
    ],
)
def test_choice_span_words_and_values(
    span: ChoiceSpan, whole: bool, words: str, least: float, most: float | None
) -> None:
    """Conditions as printed, and values inside the span."""
    assert span.words(whole) == words
    assert span.least(whole) == least
    if most is not None:
        assert span.most(whole) == most


@given(value=st.floats(1e-6, 1e12), digits=st.integers(2, 4))
def test_largest_below_is_below_within_one_digit(value: float, digits: int) -> None:
    """It has as many digits and is less by at most one unit of the last digit."""
    found = largest_below(value, False, digits)
    assert found < value
    assert float(f"{found:.{digits - 1}e}") == found
    assert found >= value * (1 - 1.01 * 10 ** (1 - digits))
    if whole := math.floor(value):
        assert largest_below(whole, True, digits) < whole
        assert whole > 10**digits or largest_below(whole, True, digits) == whole - 1


def test_recommendation_takes_under_a_second() -> None:
    """CPU time of one profile, best of five."""
    profile = Profile.of(
        {
            **BOTH,
            "labelled_examples": 400,
            "model": "llama-3.1-8b-instruct",
            "gpu_memory_gib": 24,
            "gpu_count": 1,
            "budget_usd": 100,
            "calls_per_month": 9000,
        }
    )
    assert min(_seconds(profile) for _ in range(5)) < 1


def test_first_recommendation_with_budget_takes_under_a_second() -> None:
    """CPU time for sizes that are not cached, best of five."""
    asked = {
        **BOTH,
        "labelled_examples": 400,
        "gpu_kind": "none",
        "ram_gib": 32,
        "cpu_cores": 8,
        "budget_usd": 100,
    }
    fresh = (
        Profile.of({**asked, "model_params_b": 7.3 + n / 10, "prompt_tokens": 1200 + n}) for n in range(5)
    )
    assert min(_seconds(profile) for profile in fresh) < 1


def _seconds(profile: Profile) -> float:
    started = time.process_time()
    recommend_for_profile(profile.change("goal", "x"))
    return time.process_time() - started

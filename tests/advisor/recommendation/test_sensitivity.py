"""What would change the advice: true thresholds, in the order in which they are likely."""

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


def test_a_count_flips_at_its_exact_threshold() -> None:
    """One fewer would not do."""
    p = Profile.of({**BOTH, "labelled_examples": 8})
    flip = next(f for f in recommend_for_profile(p).flips if f["key"] == "labelled_examples")
    assert (flip["to"], flip["choice_becomes"]) == (50, "hybrid")
    assert rank_methods(p.change("labelled_examples", 49)).choice == "rag"
    assert flip["text"] == "hybrid, if labelled_examples were at least 50 (now 8)"


def test_memory_flips_where_the_estimate_says() -> None:
    """The threshold of a card's memory is the low end of the estimate, to three digits."""
    p = Profile.of({**TUNE, "model_params_b": 8, "gpu_memory_gib": 10, "gpu_count": 1})
    assert rank_methods(p).choice == "qlora"
    flip = next(
        f
        for f in recommend_for_profile(p).flips
        if f["key"] == "gpu_memory_gib" and f["choice_becomes"] == "lora"
    )
    assert rank_methods(p.change("gpu_memory_gib", flip["from"])).choice == "lora"
    assert rank_methods(p.change("gpu_memory_gib", flip["from"] * 0.999)).choice == "qlora"
    assert flip["to"] == pytest.approx(flip["from"], rel=1e-2)


def test_likely_changes_come_first() -> None:
    """Sorted by how near the change is; a loss of examples comes after a gain as large."""
    rec = recommend_for_profile(
        Profile.of({**TUNE, "model_params_b": 8, "gpu_memory_gib": 24, "gpu_count": 1})
    )
    distances = [flip["distance"] for flip in rec.flips]
    assert distances == sorted(distances)


def test_what_is_worth_finding_out_could_change_the_choice() -> None:
    """One or two unknown answers, each with where it would lead; none that is known."""
    rec = recommend_for_profile(Profile.of({"task_needs_facts": "new", "facts_change": "slow"}))
    assert 1 <= len(rec.worth_finding) <= 2
    for worth in rec.worth_finding:
        assert getattr(rec.profile, worth.key) is None
        assert any(flip["key"] == worth.key for flip in rec.flips)


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
def test_spans_in_words(span: ChoiceSpan, whole: bool, words: str, least: float, most: float | None) -> None:
    """Conditions as a person would write them, and numbers that lie inside."""
    assert span.words(whole) == words
    assert span.least(whole) == least
    if most is not None:
        assert span.most(whole) == most


@given(value=st.floats(1e-6, 1e12), digits=st.integers(2, 4))
def test_the_next_number_of_a_few_digits_is_below(value: float, digits: int) -> None:
    """It has as many digits and is less, by no more than one unit of the last; whole numbers of them are exact."""
    found = largest_below(value, False, digits)
    assert found < value
    assert float(f"{found:.{digits - 1}e}") == found
    assert found >= value * (1 - 1.01 * 10 ** (1 - digits))
    if whole := math.floor(value):
        assert largest_below(whole, True, digits) < whole
        assert whole > 10**digits or largest_below(whole, True, digits) == whole - 1


def test_advice_with_flips_is_quick() -> None:
    """Well under a second of CPU for one profile (best of five)."""
    p = Profile.of(
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
    assert min(_seconds(p) for _ in range(5)) < 1


def test_the_first_advice_with_a_budget_is_quick() -> None:
    """Well under a second of CPU for a size that was not asked about before (best of five)."""
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
    assert min(_seconds(p) for p in fresh) < 1


def _seconds(profile: Profile) -> float:
    started = time.process_time()
    recommend_for_profile(profile.change("goal", "x"))
    return time.process_time() - started

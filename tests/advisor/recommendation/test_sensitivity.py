"""Counterfactuals, thresholds and the value of unknown answers."""

from __future__ import annotations

import io
import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from advisor.display.console import render_recommendation
from advisor.questionnaire.answers import Answers
from advisor.questionnaire.profile import Profile
from advisor.recommendation.ranking import rank_methods
from advisor.recommendation.recommend import recommend_for_profile
from advisor.recommendation.sensitivity import is_plausible_choice, plausible_range
from advisor.recommendation.thresholds import NUMERIC_KEYS, ChoiceSpan, largest_below

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
    """The threshold of a GPU's memory is the smallest number of two digits from the low end of the estimate on."""
    profile = Profile.of({**TUNE, "model_params_b": 8, "gpu_memory_gib": 10, "gpu_count": 1})
    assert rank_methods(profile).choice == "qlora"
    change = next(
        f
        for f in recommend_for_profile(profile).flips
        if f["key"] == "gpu_memory_gib" and f["choice_becomes"] == "lora"
    )
    assert rank_methods(profile.change("gpu_memory_gib", change["from"])).choice == "lora"
    assert (
        rank_methods(profile.change("gpu_memory_gib", largest_below(change["from"], False))).choice == "qlora"
    )
    assert change["to"] == change["from"] == float(f"{change['from']:.2g}")


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
    ("answers", "key", "low", "high"),
    [
        ({}, "unlabelled_tokens", 0, 20_000_000),
        ({"corpus_tokens": 40_000}, "unlabelled_tokens", 0, 400_000),
        ({"answer_tokens": 240}, "answer_tokens", 240, 240),
        ({"labelled_examples": 300}, "labelled_examples", 300, 3000),
        ({"labelled_examples": 4}, "labelled_examples", 4, 100),
        ({"call_volume": "low"}, "calls_per_month", 100, 29_999),
        ({"prompting_pass_rate": 0.7}, "prompting_pass_rate", 0.6, 0.8),
        ({"budget_usd": "none"}, "budget_usd", math.inf, math.inf),
        ({"gpu_memory_gib": 24}, "gpu_memory_gib", 24, 24),
    ],
)
def test_range_of_a_number_follows_from_what_is_known(
    answers: dict[str, Any], key: str, low: float, high: float
) -> None:
    """Certain answers are one value, except for amounts that grow and shares that a person estimates."""
    assert plausible_range(Profile.of(answers), key) == (low, high)


def test_counted_answers_and_the_size_of_the_default_model() -> None:
    """Labels that were counted stay, a size that follows from the default model does not."""
    answers = Answers().put("counted", {"output_format": "free", "answers_in_documents": 0.6})
    answers = answers.put("default", {"model": "smollm2-135m-instruct"}).put(
        "detected", {"model_params_b": 0.1345}
    )
    profile = Profile.of(answers)
    assert not is_plausible_choice(profile, "output_format", "labels")
    assert plausible_range(profile, "answers_in_documents") == (0.6, 0.6)
    assert plausible_range(profile, "model_params_b") == (0.2, 70)


DESK: dict[str, Any] = {
    "task_needs_facts": "new",
    "facts_change": "slow",
    "behaviour_gap": "high",
    "output_format": "free",
    "corpus_tokens": 30_000,
    "labelled_examples": 300,
    "answer_tokens": 60,
    "gpu_kind": "none",
    "ram_gib": 32,
    "cpu_cores": 8,
    "model_params_b": 0.5,
}
SITUATIONS: tuple[dict[str, Any], ...] = (
    {},
    DESK,
    {**DESK, "behaviour_gap": "low", "labelled_examples": 0},
    {"task_needs_facts": "new", "corpus_tokens": 60_000, "call_volume": "low"},
    {"output_format": "labels", "label_count": 12, "labelled_examples": 900, "behaviour_gap": "low"},
    {"task_needs_facts": "none", "behaviour_gap": "high", "labelled_examples": 40, "budget_usd": 50},
)


@pytest.mark.parametrize("answers", SITUATIONS)
def test_only_plausible_flips_are_shown_and_they_come_first(answers: dict[str, Any]) -> None:
    """JSON keeps all; a person sees those that are in range and uncertain, one at least where there is one."""
    rec = recommend_for_profile(Profile.of(answers))
    screen = Console(width=250, file=io.StringIO())
    with screen.capture() as capture:
        screen.print(render_recommendation(rec))
    shown = capture.get()
    flips = rec.to_json()["flips"]
    assert [f["plausible"] for f in flips] == sorted((f["plausible"] for f in flips), reverse=True)
    for number, flip in enumerate(flips):
        assert (flip["text"] in shown) is (flip["plausible"] and number < 4)
        low, high = (
            plausible_range(rec.profile, flip["key"])
            if flip["key"] in NUMERIC_KEYS
            else (-math.inf, math.inf)
        )
        if flip["plausible"] and flip["key"] in NUMERIC_KEYS:
            assert low <= flip["to"] <= high
    assert not any("unlabelled_tokens" in fact.text for fact in rec.worth_finding)


def test_judgements_may_be_one_step_off() -> None:
    """A gap called high may be low, not none; what must be cited is not judged."""
    profile = Profile.of({**DESK, "must_cite": True})
    assert is_plausible_choice(profile, "behaviour_gap", "low")
    assert not is_plausible_choice(profile, "behaviour_gap", "none")
    assert not is_plausible_choice(profile, "must_cite", False)
    assert not is_plausible_choice(profile, "gpu_kind", "cuda")


@pytest.mark.parametrize(
    ("span", "whole", "words", "least"),
    [
        (ChoiceSpan(0, 50, "rag", 49), True, "at most 49", 0),
        (ChoiceSpan(50, 200, "rag", 199), True, "50 or more, and at most 199", 50),
        (ChoiceSpan(23.4, math.inf, "lora", math.inf), False, "at least 23.4", 23.4),
        (ChoiceSpan(0.5, 0.8, "rag", 0.79), False, "0.5 or more, and below 0.8", 0.5),
        (ChoiceSpan(0, 5e-324, "rag", 0), False, "0", 0),
        (ChoiceSpan(5e-324, 10, "rag", 9.9), False, "0.01 or more, and below 10", 0.01),
        (ChoiceSpan(200, 5_000, "lora", 4_999), True, "200 or more, and at most 4,999", 200),
        (ChoiceSpan(200, 4_100, "lora", 4_000), True, "200 or more, and below 4,100", 200),
        (ChoiceSpan(1, 200_001, "prompting", 200_000), True, "1 or more, and at most 200,000", 1),
        (ChoiceSpan(200_001, math.inf, "rag", math.inf), True, "at least 200,001", 200_001),
        (ChoiceSpan(0, 48_000_000, "lora", 47_000_000), True, "below 48,000,000", 0),
    ],
)
def test_choice_span_words_and_values(span: ChoiceSpan, whole: bool, words: str, least: float) -> None:
    """Conditions as printed, and the least value of the span."""
    assert span.words(whole) == words
    assert span.least(whole) == least


@given(value=st.floats(1e-6, 1e12))
def test_largest_below_is_below_within_one_digit(value: float) -> None:
    """It has two digits and is less by at most one unit of the second; of few whole numbers it is the one before."""
    found = largest_below(value, False)
    assert value * (1 - 1.01 * 10**-1) <= found < value
    assert float(f"{found:.1e}") == found
    if whole := math.floor(value):
        assert largest_below(whole, True) < whole
        assert whole > 10_000 or largest_below(whole, True) == whole - 1


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

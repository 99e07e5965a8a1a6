"""Advice: golden situations, the published cases, and what must hold in every situation."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from advisor.methods.registry import METHOD_BY_NAME
from advisor.questionnaire.profile import Profile
from advisor.recommendation.ranking import rank_methods
from advisor.recommendation.recommend import recommend_for_profile

NEW = {"task_needs_facts": "new"}
TUNE = {"task_needs_facts": "none", "behaviour_gap": "high"}


def test_the_json_is_whole() -> None:
    """Every key of the contract, for a choice and for a blocked method."""
    data = recommend_for_profile(
        Profile.of({**NEW, "behaviour_gap": "high", "labelled_examples": 5, "model_params_b": 7})
    ).to_json()
    data = json.loads(json.dumps(data))
    assert data["schema"] == 1
    assert {
        "choice",
        "confidence",
        "ranked",
        "flips",
        "ladder",
        "break_even",
        "ask_again_when",
        "profile",
    } <= set(data)
    assert data["ranked"][0]["method"] == data["choice"]
    assert {row["method"] for row in data["ranked"]} == set(METHOD_BY_NAME)
    for row in data["ranked"]:
        assert set(row) == {"method", "feasible", "score", "serves", "blockers", "reasons", "estimate"}
        assert row["feasible"] == (not row["blockers"])
        assert 0 <= row["score"] <= 1
    lora = next(row for row in data["ranked"] if row["method"] == "lora")
    assert lora["blockers"] == [{"rule": "BL001", "text": "needs at least 10 examples, there are 5"}]
    assert set(lora["estimate"]["memory_gib"]) >= {"low", "likely", "high", "fits", "terms"}
    assert data["ladder"][0]["then"] == "hybrid"


def test_confidence_follows_what_is_known() -> None:
    """Nothing known is low; a clear and well-known situation is high."""
    assert recommend_for_profile(Profile.of({})).confidence.level == "low"
    known = {
        **NEW,
        "facts_change": "fast",
        "must_cite": True,
        "behaviour_gap": "none",
        "labelled_examples": 0,
        "corpus_tokens": 900_000,
        "call_volume": "low",
    }
    assert recommend_for_profile(Profile.of(known)).confidence.level == "high"


def test_prompts_with_and_without_examples_are_no_rivals() -> None:
    """Nothing speaks for building anything: sure enough, though few-shot comes close."""
    p = Profile.of({"task_needs_facts": "none", "behaviour_gap": "none", "call_volume": "high"})
    found = recommend_for_profile(p)
    assert found.runner_up is not None
    assert (found.choice, found.runner_up.method.name) == ("prompting", "few-shot")
    assert found.confidence.level == "medium"


def test_a_way_out_is_never_highly_sure() -> None:
    """With a GPU the same situation is tuned, and surely; without one few-shot stands in for it."""
    known = {**TUNE, "labelled_examples": 3000, "call_volume": "low", "model_params_b": 8}
    sure = recommend_for_profile(Profile.of({**known, "gpu_count": 1, "gpu_memory_gib": 48}))
    assert (sure.choice, sure.confidence.level) == ("lora", "high")
    unsure = recommend_for_profile(Profile.of({**known, "gpu_kind": "none", "ram_gib": 64, "cpu_cores": 4}))
    assert (unsure.choice, unsure.confidence.level) == ("few-shot", "medium")
    assert "lora would serve better" in unsure.confidence.because


@pytest.mark.parametrize(
    ("answers", "rule"),
    [
        ({**TUNE, "labelled_examples": 3000}, "BE008"),
        ({**TUNE, "labelled_examples": 3000, "prompting_pass_rate": 0.6}, "RS001"),
        ({**NEW, "behaviour_gap": "high", "labelled_examples": 400, "model_params_b": 0.1}, "BE008"),
        (
            {
                **NEW,
                "corpus_tokens": 90_000,
                "behaviour_gap": "high",
                "labelled_examples": 0,
                "must_cite": True,
            },
            "BE001",
        ),
    ],
)
def test_the_reason_against_is_about_this_situation(answers: dict[str, Any], rule: str) -> None:
    """What always holds is named last; how to tune is nothing against a hybrid."""
    found = recommend_for_profile(Profile.of(answers))
    against = found.against(found.ranking.methods[0])
    assert against is not None
    assert against.rule.code() == rule


def test_a_label_and_a_detected_size_are_one_card() -> None:
    """80 on the label and 79.1 detected give the same advice."""
    base = {**TUNE, "labelled_examples": 9000, "model_params_b": 30, "gpu_count": 1}
    a, b = (rank_methods(Profile.of({**base, "gpu_memory_gib": gib})) for gib in (80, 79.1))
    assert [s.method.name for s in a.methods] == [s.method.name for s in b.methods]


def test_ranking_takes_about_a_millisecond() -> None:
    """So that properties can be tested widely (2 ms allowed on a busy machine, best of five rounds)."""
    p = Profile.of({**NEW, "facts_change": "slow", "behaviour_gap": "high", "labelled_examples": 400})
    best = min(_seconds(p) for _ in range(5))
    assert best < 0.002


def _seconds(profile: Profile, rounds: int = 20) -> float:
    started = time.perf_counter()
    for _ in range(rounds):
        rank_methods(profile.change("goal", "x"))
    return (time.perf_counter() - started) / rounds

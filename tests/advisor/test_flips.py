"""Every printed flip is true: applying it makes the choice what was printed."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.engine import recommend
from advisor.profile import Profile
from advisor.ranking import rank

SITUATIONS: list[dict[str, Any]] = [
    {},
    {"task_needs_facts": "new", "facts_change": "slow", "behaviour_gap": "high", "labelled_examples": 8},
    {
        "task_needs_facts": "new",
        "behaviour_gap": "high",
        "labelled_examples": 400,
        "model_params_b": 0.135,
        "gpu_kind": "none",
        "ram_gib": 16,
        "cpu_cores": 2,
        "corpus_tokens": 9000,
    },
    {
        "task_needs_facts": "none",
        "behaviour_gap": "high",
        "labelled_examples": 3000,
        "model_params_b": 8,
        "gpu_memory_gib": 24,
        "gpu_count": 1,
        "call_volume": "high",
    },
    {"task_needs_facts": "none", "behaviour_gap": "low", "labelled_examples": 30, "prompting_pass_rate": 0.5},
]


@pytest.mark.parametrize("answers", SITUATIONS)
def test_flips_are_true(answers: dict[str, Any]) -> None:
    """The answer as printed, all else the same, gives the printed choice, and another than now."""
    p = Profile.of(answers)
    rec = recommend(p)
    assert rec.flips
    for flip in rec.flips:
        assert flip["choice_becomes"] != rec.choice
        assert rank(p.change(flip["key"], flip["to"])).choice == flip["choice_becomes"]
        assert flip["key"] in flip["text"]
        assert flip["choice_becomes"] in flip["text"]


def test_a_count_flips_at_its_exact_threshold() -> None:
    """One fewer would not do."""
    p = Profile.of(SITUATIONS[1])
    flip = next(f for f in recommend(p).flips if f["key"] == "labelled_examples")
    assert flip["to"] == 50
    assert rank(p.change("labelled_examples", 49)).choice == "rag"


def test_likely_changes_come_first() -> None:
    """Sorted by how near the change is."""
    distances = [flip["distance"] for flip in recommend(Profile.of(SITUATIONS[3])).flips]
    assert distances == sorted(distances)

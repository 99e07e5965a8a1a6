"""Relaxations: what would allow a better method, smallest change first, and nothing that would not."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.questionnaire.profile import Profile
from advisor.recommendation.alternatives import relaxations
from advisor.recommendation.ranking import rank_methods

TUNE = {"task_needs_facts": "none", "behaviour_gap": "high", "labelled_examples": 3000}


def relaxations_of(**answers: Any) -> list[dict[str, Any]]:
    """Return the relaxations of a situation in which a hard behaviour is to be taught, with these answers."""
    profile = Profile.of({**TUNE, **answers})
    return list(relaxations(profile, rank_methods(profile)))


def test_relaxations_start_with_settings_of_the_choice() -> None:
    """70 B on one GPU: 4 bits and checkpointing, then a rented GPU for LoRA; no smaller base."""
    relaxed = relaxations_of(model="llama-3.1-70b-instruct", gpu_memory_gib=80, gpu_count=1)
    assert [relaxation["then"] for relaxation in relaxed] == ["qlora", "qlora", "lora"]
    four_bits, checkpoints, rented = relaxed
    assert four_bits["settings"] == {"method": "qlora"}
    assert checkpoints["settings"] == {"checkpointing": True}
    assert rented["set"]["gpu_count"] == 1
    assert rented["set"]["gpu_memory_gib"] >= 160
    assert "USD" in rented["cost"]


def test_relaxation_prefers_base_of_same_family() -> None:
    """70 B on a small GPU: nothing can be trained, so a smaller Llama is named before any other model."""
    relaxed = relaxations_of(model="llama-3.1-70b-instruct", gpu_memory_gib=24, gpu_count=1)
    (smaller,) = (relaxation for relaxation in relaxed if "model" in relaxation["set"])
    assert smaller["set"] == {"model": "llama-3.1-8b-instruct", "model_params_b": 8.03}
    assert smaller["then"] == "qlora"  # 15 GiB of weights crowd a card of 24


def test_relaxation_rents_one_gpu_before_two_cheaper_ones() -> None:
    """A 7 B model is tuned on one GPU of 24 GiB, in 4 bits; it is not shared between two small ones."""
    relaxed = relaxations_of(model_params_b=7, gpu_kind="none", ram_gib=64, cpu_cores=8)
    cards = {
        relaxation["then"]: relaxation["set"] for relaxation in relaxed if "gpu_count" in relaxation["set"]
    }
    assert {cards[name]["gpu_count"] for name in cards} == {1}
    assert cards["qlora"]["gpu_memory_gib"] <= 24
    assert sum("model" in relaxation["set"] for relaxation in relaxed) == 1


def test_relaxations_skip_methods_that_are_not_better() -> None:
    """Full tuning of 8 B does not fit 48 GiB; LoRA does and is better, so no relaxation leads away from it."""
    relaxed = relaxations_of(model_params_b=8, gpu_memory_gib=40, gpu_count=1)
    assert {relaxation["then"] for relaxation in relaxed} <= {"lora"}
    assert (
        rank_methods(Profile.of({**TUNE, "model_params_b": 8, "gpu_memory_gib": 40, "gpu_count": 1})).choice
        == "lora"
    )


def test_relaxation_local_base_fits_usual_gpu() -> None:
    """With unknown hardware no model of 405 billion parameters is proposed, and only one base."""
    relaxed = relaxations_of(model="openai:m@http://127.0.0.1:1/v1")
    assert [relaxation["then"] for relaxation in relaxed] == ["lora"]
    assert relaxed[0]["set"]["model_params_b"] < 14


def test_relaxations_do_not_rent_for_local_data() -> None:
    """Data that must stay local excludes renting, not the smaller base."""
    relaxed = relaxations_of(model_params_b=70, gpu_memory_gib=24, gpu_count=1, data_must_stay_local=True)
    assert relaxed
    assert not any("gpu_count" in relaxation["set"] for relaxation in relaxed)


@pytest.mark.parametrize(
    ("answers", "relax", "then"),
    [
        ({"labelled_examples": 5}, "45 more examples (50 in all)", "lora"),
        ({"model": "openai:m@http://127.0.0.1:1/v1"}, "fine-tune a local model", "lora"),
        (
            {"model": "openai:m@http://127.0.0.1:1/v1", "gpu_memory_gib": 80, "gpu_count": 1},
            "fine-tune a local model: qwen2.5-32b-instruct",
            "lora",
        ),
        ({"model_params_b": 8, "budget_usd": 0}, "raise the budget", "lora"),
        (
            {"unlabelled_tokens": 2 * 10**9, "model_params_b": 3, "gpu_memory_gib": 30, "gpu_count": 1},
            "Adafactor as optimiser",
            "full",
        ),
        ({"task_needs_facts": "new", "behaviour_gap": "none", "corpus_tokens": 0}, "bring documents", "rag"),
    ],
)
def test_each_kind_of_relaxation(answers: dict[str, Any], relax: str, then: str) -> None:
    """Examples, a local base, money, a smaller optimiser, documents: each where it is what is missing."""
    assert any(
        relaxation["relax"].startswith(relax) and relaxation["then"] == then
        for relaxation in relaxations_of(**answers)
    )


def test_relaxation_caps_rows_where_long_rows_overflow() -> None:
    """Rows of 30,000 tokens overflow a GPU of 16 GiB even in 4 bits; shorter ones do not."""
    relaxed = relaxations_of(model_params_b=8, gpu_count=1, gpu_memory_gib=16, prompt_tokens=30_000)
    caps = [relaxation for relaxation in relaxed if "max_tokens" in relaxation["settings"]]
    assert [relaxation["then"] for relaxation in caps] == ["lora", "qlora"]
    assert caps[0]["settings"]["max_tokens"] < caps[1]["settings"]["max_tokens"]
    assert all(
        relaxation["relax"].startswith(f"leave out rows over {relaxation['settings']['max_tokens']} tokens: ")
        for relaxation in caps
    )

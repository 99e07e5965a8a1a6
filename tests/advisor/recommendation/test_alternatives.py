"""The relaxations: what would open a better method, smallest step first, and nothing that would not."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.questionnaire.profile import Profile
from advisor.recommendation.alternatives import relaxations
from advisor.recommendation.ranking import rank_methods

TUNE = {"task_needs_facts": "none", "behaviour_gap": "high", "labelled_examples": 3000}


def rungs(**answers: Any) -> list[dict[str, Any]]:
    """Return the relaxations of a situation in which a hard behaviour is to be taught, with these answers."""
    p = Profile.of({**TUNE, **answers})
    return list(relaxations(p, rank_methods(p)))


def test_what_the_choice_needs_comes_first() -> None:
    """70 B on one card: in 4 bits, with checkpoints; then a rented card for LoRA, and no smaller base for it."""
    found = rungs(model="llama-3.1-70b-instruct", gpu_memory_gib=80, gpu_count=1)
    assert [rung["then"] for rung in found] == ["qlora", "qlora", "lora"]
    four_bits, checkpoints, rented = found
    assert four_bits["settings"] == {"method": "qlora"}
    assert checkpoints["settings"] == {"checkpointing": True}
    assert rented["set"]["gpu_count"] == 1
    assert rented["set"]["gpu_memory_gib"] >= 160
    assert "USD" in rented["cost"]


def test_the_largest_base_that_fits_is_of_the_same_family_where_there_is_one() -> None:
    """70 B on a small card: nothing can be trained, so a smaller Llama is named before any other model."""
    found = rungs(model="llama-3.1-70b-instruct", gpu_memory_gib=24, gpu_count=1)
    (smaller,) = (rung for rung in found if "model" in rung["set"])
    assert smaller["set"] == {"model": "llama-3.1-8b-instruct", "model_params_b": 8.03}
    assert smaller["then"] == "lora"


def test_one_card_is_named_before_two_cheaper_ones() -> None:
    """A 7 B model's LoRA fits one card of 24 GiB: nobody is sent to share it between two small ones."""
    found = rungs(model_params_b=7, gpu_kind="none", ram_gib=64, cpu_cores=8)
    cards = {rung["then"]: rung["set"] for rung in found if "gpu_count" in rung["set"]}
    assert cards["lora"]["gpu_count"] == cards["qlora"]["gpu_count"] == 1
    assert cards["lora"]["gpu_memory_gib"] == 24
    assert sum("model" in rung["set"] for rung in found) == 1


def test_what_is_not_better_is_not_opened() -> None:
    """Full tuning of 8 B does not fit 24 GiB; LoRA does and is better, so no rung leads away from it."""
    found = rungs(model_params_b=8, gpu_memory_gib=24, gpu_count=1)
    assert {rung["then"] for rung in found} == {"lora"}


def test_a_local_base_is_one_that_a_usual_card_holds() -> None:
    """Nothing is known of the hardware: nobody is sent to tune 405 billion parameters, and one base is enough."""
    found = rungs(model="openai:m@http://127.0.0.1:1/v1")
    assert [rung["then"] for rung in found] == ["lora"]
    assert found[0]["set"]["model_params_b"] < 14


def test_data_that_must_stay_local_are_not_sent_to_rented_cards() -> None:
    """Policy forbids the rung, not the smaller base."""
    found = rungs(model_params_b=70, gpu_memory_gib=24, gpu_count=1, data_must_stay_local=True)
    assert found
    assert not any("gpu_count" in rung["set"] for rung in found)


@pytest.mark.parametrize(
    ("answers", "relax", "then"),
    [
        ({"labelled_examples": 5}, "45 more examples (50 in all)", "lora"),
        ({"model": "openai:m@http://127.0.0.1:1/v1"}, "tune a local base", "lora"),
        (
            {"model": "openai:m@http://127.0.0.1:1/v1", "gpu_memory_gib": 80, "gpu_count": 1},
            "tune a local base: qwen2.5-32b-instruct",
            "lora",
        ),
        ({"model_params_b": 8, "budget_usd": 0}, "raise the budget", "lora"),
        (
            {"unlabelled_tokens": 2 * 10**9, "model_params_b": 3, "gpu_memory_gib": 20, "gpu_count": 1},
            "an 8-bit optimiser",
            "full",
        ),
        ({"task_needs_facts": "new", "behaviour_gap": "none", "corpus_tokens": 0}, "bring documents", "rag"),
    ],
)
def test_each_kind_of_rung(answers: dict[str, Any], relax: str, then: str) -> None:
    """Examples, weights, money, an optimiser that keeps less, documents: each where it is what is missing."""
    assert any(rung["relax"].startswith(relax) and rung["then"] == then for rung in rungs(**answers))


def test_shorter_rows_are_named_where_they_are_what_it_takes() -> None:
    """Rows of 30,000 tokens overflow a card of 16 GiB even in 4 bits; shorter ones do not."""
    found = rungs(model_params_b=8, gpu_count=1, gpu_memory_gib=16, prompt_tokens=30_000)
    caps = [rung for rung in found if "max_tokens" in rung["settings"]]
    assert [rung["then"] for rung in caps] == ["lora", "qlora"]
    assert caps[0]["settings"]["max_tokens"] < caps[1]["settings"]["max_tokens"]
    assert all(
        rung["relax"].startswith(f"cap rows at {rung['settings']['max_tokens']} tokens: ") for rung in caps
    )

"""The plan's minutes and the recommendation's hours of training are one estimate, near what runs recorded."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.cost import training_hours
from advisor.profile import Profile
from advisor.timing import LOAD_SECONDS, schedule
from runners.plan import Plan, parse_plan

MACHINES: dict[str, dict[str, Any]] = {
    "2 CPU cores": {"gpu_kind": "none", "cpu_cores": 2},
    "32 CPU cores": {"gpu_kind": "none", "cpu_cores": 32},
    "RTX 4090": {"gpu_kind": "cuda", "gpu_count": 1, "gpu_memory_gib": 24},
    "A100 80GB": {"gpu_kind": "cuda", "gpu_count": 1, "gpu_memory_gib": 80},
    "8 x A100 80GB": {"gpu_kind": "cuda", "gpu_count": 8, "gpu_memory_gib": 80},
    "Apple GPU": {"gpu_kind": "mps", "gpu_count": 1, "gpu_memory_gib": 24},
}
WORK = {"labelled_examples": 2000, "prompt_tokens": 200, "answer_tokens": 100}


def plan_of(answers: dict[str, Any], *, documents: bool = False, seeds: tuple[int, ...] = (0,)) -> Plan:
    """A plan that trains LoRA (with documents also a hybrid) for two epochs, made for the answers' machine."""
    steps: list[dict[str, Any]] = [
        {"kind": "train", "arm": "lora", "epochs": 2, "seeds": list(seeds)},
        {"kind": "evaluate", "arm": "lora", "weights": "lora"},
    ]
    if documents:
        steps = [
            {"kind": "index"}, *steps, {"kind": "train", "arm": "hybrid", "rows": "retrieval", "epochs": 2},
            {"kind": "evaluate", "arm": "hybrid", "weights": "hybrid", "retrieval": True},
        ]  # fmt: skip
    return parse_plan(
        {
            "name": "p",
            "choice": "lora",
            "model": {"name": answers["model"]},
            "data": {"examples": "e", "questions": "q"} | ({"documents": "d"} if documents else {}),
            "steps": steps,
            "weights": {"style": 1},
            "answers": {key: {"value": value, "source": "flag"} for key, value in answers.items()},
        }
    )


@pytest.mark.parametrize("model", ["smollm2-135m-instruct", "llama-3.1-8b-instruct"])
@pytest.mark.parametrize("machine", MACHINES)
def test_the_plan_and_the_recommendation_give_the_same_training_time(machine: str, model: str) -> None:
    answers = {**WORK, **MACHINES[machine], "model": model}
    hours = training_hours(Profile.of(answers), "lora")
    assert hours is not None
    planned = dict(schedule(plan_of(answers), 2000, 0))["train:lora"] - LOAD_SECONDS
    assert planned == pytest.approx(3600 * hours.likely)

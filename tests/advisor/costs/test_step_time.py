"""Estimated step times grow with the work."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.costs.step_time import estimate_step_times
from runners.plan.schema import parse_plan


def times(corpus: int = 3_000, **few: Any) -> dict[str, float]:
    """Return the seconds of each arm, with 60 test questions and 200 examples."""
    steps = [
        {"kind": "index"},
        {"kind": "evaluate", "arm": "few-shot", "shots": 3, **few},
        {"kind": "evaluate", "arm": "rag", "retrieval": True},
        {"kind": "evaluate", "arm": "long-context", "retrieval": True, "passages": "all"},
        {"kind": "evaluate", "arm": "classifier", "classifier": True},
    ]
    body = {
        "name": "p",
        "choice": "rag",
        "model": {"name": "m"},
        "data": {"documents": "d", "examples": "e", "questions": "q"},
        "steps": steps,
        "weights": {"style": 1},
        "answers": {"corpus_tokens": {"value": corpus, "source": "counted"}},
    }
    return {
        name.partition(":")[2]: seconds for name, seconds in estimate_step_times(parse_plan(body), 200, 60)
    }


def test_step_times_grow_with_banks_and_documents() -> None:
    plain, chosen = times(), times(bank="chosen")
    assert chosen["few-shot"] > 1.5 * plain["few-shot"]
    assert times(bank="chosen", budget=0) == plain
    assert plain["long-context"] > plain["rag"]
    assert times(corpus=6_000)["long-context"] > plain["long-context"]
    assert plain["classifier"] < plain["rag"] + 5


def test_step_times_count_every_training_seed() -> None:
    def took(seeds: list[int]) -> dict[str, float]:
        steps = [
            {"kind": "train", "arm": "lora", "seeds": seeds},
            {"kind": "evaluate", "arm": "lora", "weights": "lora"},
        ]
        body = {
            "name": "p",
            "choice": "lora",
            "model": {"name": "m"},
            "data": {"examples": "e", "questions": "q"},
            "steps": steps,
            "weights": {"style": 1},
        }
        return dict(estimate_step_times(parse_plan(body), 2000, 600))

    one, two, three = took([0]), took([0, 1]), took([0, 1, 2])
    assert list(one) == ["train:lora", "evaluate:lora", "forgetting"]
    for step, seconds in one.items():
        assert seconds < two[step]
        assert three[step] - two[step] == pytest.approx(two[step] - seconds)
    assert two["train:lora"] > 1.9 * one["train:lora"]
    assert two["forgetting"] == pytest.approx(1.5 * one["forgetting"])

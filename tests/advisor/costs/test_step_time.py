"""Estimated step times grow with the work."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.costs.step_time import estimate_step_times
from runners.classification.tuned import TUNING_SECONDS
from runners.plan.schema import parse_plan


def times(corpus: int = 3_000, examples: int = 200, **few: Any) -> dict[str, float]:
    """Return the seconds of each arm, with 60 test questions."""
    steps = [
        {"kind": "index"},
        {"kind": "evaluate", "arm": "few-shot", "shots": 3, **few},
        {"kind": "evaluate", "arm": "rag", "retrieval": True},
        {"kind": "evaluate", "arm": "long-context", "retrieval": True, "passages": "all"},
        {"kind": "evaluate", "arm": "agentic-search", "retrieval": True, "passages": "looked_up"},
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
        name.partition(":")[2]: seconds
        for name, seconds in estimate_step_times(parse_plan(body), examples, 60)
    }


def test_step_times_grow_with_banks_and_documents() -> None:
    plain, chosen = times(), times(bank="chosen")
    assert chosen["few-shot"] > 1.5 * plain["few-shot"]
    assert times(bank="chosen", budget=0) == plain
    assert plain["long-context"] > plain["rag"]
    assert plain["agentic-search"] > 4 * plain["rag"], "several requests, each with all that was found before"
    assert times(corpus=6_000)["long-context"] > plain["long-context"]


def test_classifier_takes_seconds_and_minutes_where_an_embedder_is_tuned() -> None:
    few = times(examples=99)
    assert few["classifier"] < few["rag"] + 5
    assert few["classifier"] + 10 < times(examples=100)["classifier"] < times()["classifier"]
    assert TUNING_SECONDS < times(examples=50_000)["classifier"] < 2 * TUNING_SECONDS, "the tuning is bounded"


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

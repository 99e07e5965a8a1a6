"""Planted trials: arms with known right answers, and a plan that has all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from runners.plan.schema import Plan, parse_plan
from runners.trial.trial import ArmScores

ARMS: dict[str, dict[str, Any]] = {
    "prompting": {},
    "few-shot": {"shots": 3},
    "rag": {"retrieval": True},
    "lora": {"weights": "lora"},
    "naive-stack": {"weights": "lora", "retrieval": True},
    "hybrid": {"weights": "hybrid", "retrieval": True},
}


def plan(answers: Mapping[str, Any], choice: str = "hybrid", **changes: Any) -> Plan:
    """Return a plan of all six arms with these answers."""
    arms = ARMS | changes.pop("settings", {})
    tuned = [
        {"kind": "train", "arm": "lora", "method": "lora"},
        {"kind": "train", "arm": "hybrid", "method": "lora", "rows": "retrieval"},
    ]
    evaluated = [{"kind": "evaluate", "arm": name, **settings} for name, settings in arms.items()]
    return parse_plan(
        {
            "name": "shop",
            "choice": choice,
            "model": {"name": "smollm2-135m-instruct"},
            "data": {"documents": "d", "examples": "e", "questions": "q"},
            "steps": [{"kind": "index"}, *tuned, *evaluated],
            "weights": {"style": 1},
            "gate": {
                "must_beat": [name for name in ("prompting", "few-shot", "rag", "lora") if name != choice]
            },
            "answers": {key: {"value": value, "source": "asked"} for key, value in answers.items()},
            **changes,
        }
    )


def arm(
    name: str,
    right: Iterable[bool],
    combined: float | None = None,
    unanswerable: int = 0,
    **scores: Iterable[float],
) -> ArmScores:
    """Return an arm that answers these questions right; the last ``unanswerable`` ones have no answer.

    Right answers score ``combined``, by default 0.9, all others nothing.
    """
    row = [float(value) for value in right]
    count = len(row)
    values: list[dict[str, float]] = [{"right": value} for value in row]
    for position in range(count - unanswerable, count):
        values[position]["correct_refusal"] = row[position]
    for score, of_score in scores.items():
        for value, one in zip(values, of_score, strict=False):
            value[score] = one
    best = 0.9 if combined is None else combined
    tokens = {"prompting": 20, "few-shot": 200}.get(name, 300)
    return ArmScores(
        name,
        tuple(f"q{n}" for n in range(count)),
        tuple(values),
        tuple(best * value for value in row),
        (0.1,) * count,
        (tokens,) * count,
        (10,) * count,
    )


def first(n: int, count: int = 24) -> list[bool]:
    """Return a row in which the first n answers are right."""
    return [position < n for position in range(count)]


def cited(share: float, count: int = 24) -> list[float]:
    """Return the same citation score for every question."""
    return [share] * count

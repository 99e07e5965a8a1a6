"""Section of docs/accuracy.md on trials of several models, from benchmarks/model_grids.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from benchmarks.model_grid import RECORD
from runners.plan.arm_names import arm_name, split_arm
from scripts.pages import table

INTRO = """
## Methods and models together

Trials of several models at once, on two public sets and on a house whose questions are also written as customers
write (70 questions, or some of them, each in three wordings). In a cell: right answers, and what a right one costs
with its 95 % interval: seconds of this machine, or USD of 1,000 at 0.10 an hour, a price set by hand. The times were
taken on two cores beside other work, so only their order says something. *server* is gemma-3-270m in 4 bits behind
llama-server, asked while the others work. No strong model could be had: that a small tuned model is as good as a
large prompted one is not shown by this. `python -m benchmarks.model_grid --record RUN NAME` takes a run into the
table."""


def grids_section() -> list[str]:
    """Return the section: a table of methods by models for each set, and what the verdict said."""
    sets: dict[str, dict[str, Any]] = json.loads(RECORD.read_text("utf-8"))
    lines = [INTRO, ""]
    for name, trial in sets.items():
        arms, models = trial["arms"], trial["models"]
        methods = dict.fromkeys(split_arm(arm)[0] for arm in arms)
        rows = [
            (method, *(_cell(arms.get(arm_name(method, alias))) for alias in models))
            for method in sorted(methods, key=lambda method: -_most(arms, method))
        ]
        titles = [f"{alias}: {model}" for alias, model in models.items()]
        lines += [f"**{name}**, {trial['date']}, {trial['outcome']}: {trial['said']}", ""]
        lines += [*table(("arm", *titles), rows), ""]
    return lines


def _most(arms: Mapping[str, Any], method: str) -> float:
    return max(arm["right"] / arm["of"] for name, arm in arms.items() if split_arm(name)[0] == method)


def _cell(arm: Mapping[str, Any] | None) -> str:
    """Return an arm's right answers and the cost of one; – for an arm that was not measured."""
    if arm is None:
        return "–"
    if arm["cost"] is None:
        return f"{arm['right']} of {arm['of']}"
    times, unit = (1000.0, "USD per 1,000") if arm["in_usd"] else (1.0, "s")
    cost, low, high = (_two_digits(arm[key], times) for key in ("cost", "low", "high"))
    return f"{arm['right']} of {arm['of']}, {cost} {unit} ({low} to {high})"


def _two_digits(value: float | None, times: float) -> str:
    """Return a value, multiplied, to two digits and never as a power of ten; ? for none."""
    if value is None:
        return "?"
    value *= times
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}"

"""--seeds: every tuned arm is trained that many times, and nothing else of the plan changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rag.errors import UsageProblem
from runners.plan.schema import parse_plan, with_seeds
from runners.plan.steps import TrainStep
from runners.run_folder import SCORES
from runners.trial.execute import quick_plan, run_plan

BODY = {
    "name": "p",
    "choice": "hybrid",
    "model": {"name": "m"},
    "data": {"documents": "d", "examples": "e", "questions": "q"},
    "steps": [
        {"kind": "index"},
        {"kind": "train", "arm": "lora", "seeds": [3]},
        {"kind": "train", "arm": "hybrid", "rows": "retrieval"},
        {"kind": "evaluate", "arm": "hybrid", "weights": "hybrid", "retrieval": True},
    ],
    "weights": {"style": 1},
}


def test_seeds_are_consecutive_from_the_first() -> None:
    plan = parse_plan(BODY)
    more = with_seeds(plan, 2)
    assert [step.seeds for step in more.steps if isinstance(step, TrainStep)] == [(3, 4), (0, 1)]
    assert with_seeds(more, 1) == plan
    assert [step.seeds for step in quick_plan(more).steps if isinstance(step, TrainStep)] == [(3,), (0,)]


def test_seeds_are_refused_for_plan_without_training() -> None:
    plan = parse_plan({**BODY, "choice": "prompting", "steps": [{"kind": "evaluate", "arm": "prompting"}]})
    with pytest.raises(UsageProblem, match="trains no arm"):
        with_seeds(plan, 2)


def test_two_seeds_are_trained_evaluated_and_averaged(tiny: Any, tmp_path: Path) -> None:
    for name, rows in (
        ("e.jsonl", [{"prompt": f"How long is rope {n}?", "completion": f"{n} metres."} for n in range(8)]),
        ("q.jsonl", [{"question": f"How long is chain {n}?", "reference": f"{n} metres."} for n in range(3)]),
    ):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    train = {"kind": "train", "arm": "lora", "epochs": 1, "rank": 2, "alpha": 4}
    asked = [{"kind": "evaluate", "arm": "prompting"}, {"kind": "evaluate", "arm": "lora", "weights": "lora"}]
    plan = parse_plan(
        {
            "name": "p",
            "choice": "lora",
            "model": {"name": str(tiny.folder)},
            "weights": {"token_f1": 1},
            "data": {"examples": str(tmp_path / "e.jsonl"), "test_questions": str(tmp_path / "q.jsonl")},
            "steps": [train, *asked],
            "max_new_tokens": 4,
        }
    )
    run = run_plan(with_seeds(plan, 2), tmp_path / "run")
    body = json.loads((run.path / "trial" / SCORES).read_text("utf-8"))
    assert [row["seed"] for row in body["seeds"]["lora"]] == [0, 1]
    assert [row["seed"] for row in body["seeds"]["prompting"]] == [0]
    scored = [row["combined"] for row in body["arms"]["lora"].values()]
    assert sum(scored) / 3 == pytest.approx(sum(row["mean"] for row in body["seeds"]["lora"]) / 2)
    assert all(run.adapter("lora", seed).is_dir() for seed in (0, 1))

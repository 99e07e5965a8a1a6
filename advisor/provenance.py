"""What stands behind a report's numbers: machine and versions, and the digests of everything that was read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rag.durable import sha256_file
from runners.plan import Plan, TrainStep
from runners.rundir import RunFolder
from runners.surroundings import EVENT, surroundings


def environment(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the surroundings that the run wrote down when it last started, and its date (UTC).

    For a run of before they were written down, those of now.
    """
    noted = [event for event in events if event.get("event") == EVENT]
    found = {k: v for k, v in noted[-1].items() if k not in ("event", "time")} if noted else surroundings()
    first = next((event["time"] for event in events if "time" in event), None)
    date = datetime.fromtimestamp(first, UTC).date().isoformat() if first is not None else None
    return {"date": date, **found}


def data_used(run: RunFolder, plan: Plan) -> dict[str, Any]:
    """Return the digests of plan, split, model, index input and data files, and the seeds; None for what is unknown."""
    events = run.events()
    start = _last(events, event="run.start")
    index = _last(events, event="step.done", step="index")
    seeds = sorted({seed for step in plan.steps if isinstance(step, TrainStep) for seed in step.seeds})
    return {
        "plan": plan.digest(), "split": start.get("split"), "base": start.get("base"),
        "model": plan.model.name, "index_input": index.get("inputs"), "seed": plan.seed, "training_seeds": seeds,
        "longest_answer_tokens": plan.max_new_tokens, "files": _files(plan),
    }  # fmt: skip


def _last(events: Sequence[dict[str, Any]], **wanted: str) -> dict[str, Any]:
    return next((e for e in reversed(events) if all(e.get(k) == v for k, v in wanted.items())), {})


def _files(plan: Plan) -> dict[str, dict[str, str]]:
    named: dict[str, Path | None] = {
        name: getattr(plan.data, name) for name in ("questions", "test_questions", "examples", "replay")
    }
    return {
        name: {"name": path.name, "sha256": sha256_file(path)}
        for name, path in named.items()
        if path is not None and path.is_file()
    }

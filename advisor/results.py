"""From a finished run folder to the numbers of its report: `report.json`, and what `report --json` prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from advisor.facts import prices
from advisor.verdict import judge
from rag.errors import BadInput
from rag.stats import interval
from runners.bench import REFUSAL
from runners.endpoint import is_private
from runners.models import parse_remote
from runners.plan import Plan, TrainStep
from runners.rundir import PLAN, REPORT, TRIAL, RunFolder
from runners.trial import SCORES, ArmScores


def read_scores(run: Path) -> list[ArmScores]:
    """Read the scores of every arm; BadInput when the run has not been scored yet."""
    path = run / TRIAL / SCORES
    if not path.is_file():
        raise BadInput(f"{run} has no scores yet", f"finish it with: tunewise run {run} --resume")
    try:
        arms = json.loads(path.read_text("utf-8"))["arms"]
        return [_arm(name, rows) for name, rows in arms.items()]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{path} is damaged: {error!r}", "score it again with: tunewise run --resume"
        ) from None


def read_report(run: Path) -> dict[str, Any]:
    """Read a run's finished report; BadInput when there is none yet."""
    path = run / REPORT
    if not path.is_file():
        what = "has no report yet" if (run / PLAN).is_file() else "is not a run folder"
        raise BadInput(f"{run} {what}", f"finish it with: tunewise run {run} --resume")
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except ValueError as error:
        raise BadInput(
            f"{path} is damaged: {error}", f"write it again with: tunewise run {run} --resume"
        ) from None


def report_json(run: RunFolder, plan: Plan) -> dict[str, Any]:
    """The whole report as data: verdict, arms with intervals, paired differences, prediction and measurement."""
    arms = read_scores(run.path)
    verdict, pairs = judge(plan, arms, plan.model.name)
    return {
        "schema": 1,
        "name": plan.name,
        "verdict": verdict.to_json(),
        "arms": [_arm_json(arm, plan) for arm in sorted(arms, key=lambda a: -sum(a.combined))],
        "paired": [
            {"a": p.a, "b": p.b, "difference": p.difference, "low": p.low, "high": p.high, "p": p.p}
            for p in pairs
        ],
        "weights": {str(k): v for k, v in plan.weights.items()},
        "predicted": plan.predicted,
        "measured": measured(run, plan),
        "guards": {"leakage": _leakage(run), "forgetting": None, "staleness": None, "refusal": _refusal(run)},
    }


def measured(run: RunFolder, plan: Plan) -> dict[str, Any]:
    """What the run really took: seconds per step, and how each training run went."""
    events = run.events()
    started: dict[str, float] = {}
    seconds: dict[str, float] = {}
    for event in events:
        if event.get("event") == "step.start":
            started[event["step"]] = event["time"]
        elif event.get("event") == "step.done" and event["step"] in started:
            seconds[event["step"]] = round(event["time"] - started[event["step"]], 1)
    trained = {
        s.arm: next(
            (e["result"].get("trained") for e in reversed(events) if _is_done(e, f"train:{s.arm}")), None
        )
        for s in plan.steps
        if isinstance(s, TrainStep)
    }
    return {"seconds": seconds, "training": trained}


def _is_done(event: dict[str, Any], step: str) -> bool:
    return event.get("event") == "step.done" and event.get("step") == step


def _leakage(run: RunFolder) -> dict[str, Any]:
    start = next((e for e in run.events() if e.get("event") == "run.start"), {})
    return {"overlapping_questions": start.get("overlap"), "split": start.get("split")}


def _refusal(run: RunFolder) -> dict[str, Any] | None:
    """The threshold of refusing with its curve; None for a run without an index."""
    path = run.path / REFUSAL
    return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else None


def _arm(name: str, rows: dict[str, dict[str, float]]) -> ArmScores:
    extra = ("combined", "seconds", "prompt_tokens", "completion_tokens")
    return ArmScores(
        name,
        tuple(rows),
        tuple({k: v for k, v in row.items() if k not in extra} for row in rows.values()),
        tuple(row["combined"] for row in rows.values()),
        tuple(row["seconds"] for row in rows.values()),
        tuple(int(row["prompt_tokens"]) for row in rows.values()),
        tuple(int(row["completion_tokens"]) for row in rows.values()),
    )


def _arm_json(arm: ArmScores, plan: Plan) -> dict[str, Any]:
    names = sorted({name for scores in arm.scores for name in scores})
    return {
        "arm": arm.arm,
        "score": _interval(list(arm.combined)),
        "scores": {name: {**_interval(arm.of(name)), "n": len(arm.of(name))} for name in names},
        "n": len(arm.combined),
        "seconds_per_answer": _mean(arm.seconds),
        "prompt_tokens": _mean(arm.prompt_tokens),
        "completion_tokens": _mean(arm.completion_tokens),
        "usd_per_1000": usd_per_1000(arm, plan),
    }


def usd_per_1000(arm: ArmScores, plan: Plan) -> float | None:
    """USD for a thousand answers of a hosted model with a listed price; None for one here, or with no known price."""
    step = next((step for step in plan.arms if step.arm == arm.arm), None)
    if step is not None and step.classifier:
        return None
    own = step.model if step is not None and step.model else plan.model
    remote = parse_remote(own.name)
    price = prices.find(remote.name) if remote and not is_private(remote.url) else None
    if price is None:
        return None
    each = _mean(arm.prompt_tokens) * price.input + _mean(arm.completion_tokens) * price.output
    return round(each / 1000, 4)


def _interval(values: list[float]) -> dict[str, float]:
    found = interval(values)
    return {"mean": found.mean, "low": found.low, "high": found.high}


def _mean(values: tuple[float, ...] | tuple[int, ...]) -> float:
    return round(sum(values) / len(values), 4) if values else 0.0

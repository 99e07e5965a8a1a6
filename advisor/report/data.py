"""From a finished run folder to the numbers of its report: `report.json`, and what `report --json` prints.

What stands behind a report's numbers: machine and versions, and the digests of everything that was read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from advisor.costs.arm_costs import cost_per_1000, rounded_mean, upkeep_costs
from advisor.output import command_line
from advisor.verdict.guards import guard_warnings, run_guards
from advisor.verdict.predictions import compare_prediction
from advisor.verdict.verdict import judge_trial
from rag.errors import BadInput
from rag.evaluation.statistics import PairedDifference, bootstrap_interval, cluster_by_document
from rag.files import check_schema, sha256_file
from runners import run_folder
from runners.data.questions import Question
from runners.plan.schema import Plan
from runners.plan.steps import TrainStep
from runners.resources.environment import ENVIRONMENT_EVENT, describe_environment
from runners.run_folder import SCORES, TRIAL, RunFolder, open_run_folder, read_journal
from runners.trial.judge import JUDGE_JOURNAL, summary
from runners.trial.trial import ArmScores


def read_scores(run: Path) -> list[ArmScores]:
    """Read the scores of every arm; BadInput when the run has not been scored yet."""
    path = run / TRIAL / SCORES
    if not path.is_file():
        raise BadInput(f"{run} has no scores yet", f"finish it with: {command_line('run', run, '--resume')}")
    try:
        body = check_schema(json.loads(path.read_text("utf-8")), "scores", path)
        documents, seeds = body.get("documents", {}), body.get("seeds", {})  # older runs kept neither
        return [
            _arm(name, rows, documents, tuple((row["seed"], row["mean"]) for row in seeds.get(name, ())))
            for name, rows in body["arms"].items()
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"{path} is damaged: {error!r}", f"score it again with: tunewise run {run} --resume"
        ) from None


def read_report(run: Path) -> dict[str, Any]:
    """Read a run's finished report; BadInput when there is none yet."""
    open_run_folder(run)
    found = run_folder.read_report(run)
    if not found:
        raise BadInput(f"{run} has no report yet", f"finish it with: {command_line('run', run, '--resume')}")
    return found


def report_json(
    run: RunFolder, plan: Plan, questions: Sequence[Question] = (), staleness: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The whole report as data: verdict, arms with intervals, paired differences, prediction and measurement.

    `questions` and `staleness` are as in :func:`advisor.report.report.write_report`; ``cost_order`` names the arms from
    cheap to costly, as the verdict took them.
    """
    arms = read_scores(run.path)
    guarded = run_guards(run, plan, questions, staleness)
    verdict, pairs = judge_trial(plan, arms, plan.model.name)
    gpu = next((str(e["gpu"] or "") for e in reversed(run.events()) if "gpu" in e), "")
    cost = upkeep_costs(plan.steps, {arm.arm: arm.tokens for arm in arms})
    took = measured_facts(run, plan)
    took |= compare_prediction(
        plan, took, run.events(), max(len(arm.combined) for arm in arms), verdict.strength == "proxy"
    )
    return {
        "schema": 1,
        "name": plan.name,
        "verdict": verdict.to_json(),
        "warnings": guard_warnings(guarded),
        "arms": [arm_json(arm, plan, gpu) for arm in sorted(arms, key=lambda a: -sum(a.combined))],
        "paired": [pair_json(pair) for pair in pairs],
        "cost_order": sorted(cost, key=lambda name: cost[name]),
        "weights": {str(k): v for k, v in plan.weights.items()},
        "weight_reasons": dict(plan.weight_reasons),
        "judge": _judged(run, plan, arms),
        "predicted": plan.predicted,
        "measured": took,
        "guards": guarded,
    }


def measured_facts(run: RunFolder, plan: Plan) -> dict[str, Any]:
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


def _judged(run: RunFolder, plan: Plan, arms: list[ArmScores]) -> dict[str, Any] | None:
    """What the judge said; None for a plan without one."""
    if plan.judge is None:
        return None
    return summary(plan.judge.name, plan.choice, arms, read_journal(run.path / TRIAL / JUDGE_JOURNAL))


def _arm(
    name: str,
    rows: dict[str, dict[str, float]],
    documents: dict[str, str],
    seeds: tuple[tuple[int, float], ...],
) -> ArmScores:
    extra = ("combined", "seconds", "prompt_tokens", "completion_tokens")
    return ArmScores(
        name,
        tuple(rows),
        tuple({k: v for k, v in row.items() if k not in extra} for row in rows.values()),
        tuple(row["combined"] for row in rows.values()),
        tuple(row["seconds"] for row in rows.values()),
        tuple(int(row["prompt_tokens"]) for row in rows.values()),
        tuple(int(row["completion_tokens"]) for row in rows.values()),
        tuple(documents.get(question) for question in rows),
        seeds,
    )


def arm_json(arm: ArmScores, plan: Plan, gpu: str) -> dict[str, Any]:
    """An arm as the report has it: every score with its 95 % interval, seeds, time, tokens, and dollars on a GPU."""
    usd = cost_per_1000(arm, plan, gpu)
    names = sorted({name for scores in arm.scores for name in scores})
    return {
        "arm": arm.arm,
        "score": _interval(list(arm.combined), arm.sources()),
        "scores": {
            name: {**_interval(arm.of(name), arm.sources(name)), "n": len(arm.of(name))} for name in names
        },
        "n": len(arm.combined),
        "documents": cluster_by_document(arm.sources()).documents,
        "seeds": [{"seed": seed, "mean": score} for seed, score in arm.seeds],
        "seconds_per_answer": rounded_mean(arm.seconds),
        "prompt_tokens": rounded_mean(arm.prompt_tokens),
        "completion_tokens": rounded_mean(arm.completion_tokens),
        "usd_per_1000": usd.usd,
        "usd_basis": usd.basis,
    }


def pair_json(pair: PairedDifference) -> dict[str, Any]:
    """A comparison as the report has it."""
    kept = ("a", "b", "difference", "low", "high", "p", "p_holm", "units")
    return {key: getattr(pair, key) for key in kept} | {"n": pair.questions}


def _interval(values: list[float], documents: list[str | None]) -> dict[str, float]:
    found = bootstrap_interval(values, documents=documents)
    return {"mean": found.mean, "low": found.low, "high": found.high}


def recorded_environment(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the surroundings that the run wrote down when it last started, and its date (UTC).

    For a run of before they were written down, those of now.
    """
    noted = [event for event in events if event.get("event") == ENVIRONMENT_EVENT]
    found = (
        {k: v for k, v in noted[-1].items() if k not in ("event", "time")}
        if noted
        else describe_environment()
    )
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
        "plan": plan.digest(),
        "split": start.get("split"),
        "base": start.get("base"),
        "model": plan.model.name,
        "index_input": index.get("inputs"),
        "seed": plan.seed,
        "training_seeds": seeds,
        "longest_answer_tokens": plan.max_new_tokens,
        "files": _files(plan),
    }


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

"""The record of a public trial: counts and scores, nothing of the data; and the table of them that ships with the program.

benchmarks/accuracy.json holds one record for each set, in the order of the cast. A record is made from a finished run
folder; one of an earlier version gets what can be derived from it (:func:`completed`), without running again.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Any

from advisor.evidence.trials import TABLE, situation_features
from advisor.questionnaire.answers import format_answer
from advisor.report.data import read_scores
from advisor.report.report import Report
from advisor.verdict.comparison import compare_arms
from benchmarks.cast import CAST, Part
from runners.arms.answer_constraint import constraint_report
from runners.plan.schema import Plan
from runners.run_folder import read_run_plan

RECORD = Path(__file__).parent / "accuracy.json"
SECOND_MODEL_RECORD = Path(__file__).parent / "accuracy_gemma.json"
SHIPPED = Path(__file__).parent.parent / "advisor" / "evidence" / TABLE
Records = dict[str, dict[str, Any]]
FILES = ("documents", "examples", "questions")
VERDICT_KEYS = (
    "outcome",
    "strength",
    "recommended",
    "winner",
    "use",
    "use_reason",
    "text",
    "taught",
    "margin",
    "more_questions_needed",
    "excluded",
)
POWER = 0.8
DIGITS = 4


def recorded(
    part: Part,
    left_out: int,
    plan: Plan,
    report: Mapping[str, Any],
    run: Path | None = None,
    frozen: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what is written down of a finished trial.

    Args:
        part: the set.
        left_out: questions that nearly repeat a row.
        plan: the plan that was run.
        report: its report.
        run: the run folder, from whose scores all pairs of arms are compared; without it those of the report.
        frozen: the advice as it was given before the trial, with its commit.
    """
    answers = {
        key: answer.value
        for key, answer in plan.answers.items()
        if answer.source in ("flag", "file") and key not in (*FILES, "prompt", "model")
    }
    weighted = ["right", *(name for name, weight in report["weights"].items() if weight)]
    seconds = report["measured"].get("seconds") or {}
    verdict = {key: report["verdict"].get(key) for key in VERDICT_KEYS}
    record = {
        "task": part.task,
        "wanted": part.wanted,
        "said": [f"{key}={format_answer(value)}" for key, value in answers.items()],
        "model": report["verdict"]["model"],
        "advised": report["predicted"]["choice"],
        "confidence": report["predicted"]["confidence"],
        "order": [row["method"] for row in report["predicted"]["ranked"] if row["feasible"]],
        "examples": plan.answers["labelled_examples"].value if "labelled_examples" in plan.answers else 0,
        "left_out": left_out,
        "date": time.strftime("%Y-%m-%d"),
        "held": constraint_report(plan),
        "verdict": verdict,
        "arms": [_arm(arm, weighted) for arm in report["arms"]],
        "paired": report["paired"],
        "weights": report["weights"],
        "minutes": {step: round(value / 60, 2) for step, value in seconds.items()},
        "features": situation_features(plan.answers),
    }
    if run is not None:
        record["pairs"] = all_pairs(run, plan.seed)
    advice = (frozen or {}).get("advice") or {}
    if frozen:
        record |= {"commit": frozen["commit"], "date": frozen["date"]}
    if "probability" in advice:
        record["probability"] = advice["probability"]
    return completed(part, record)


def _arm(arm: Mapping[str, Any], weighted: list[str]) -> dict[str, Any]:
    return {
        "arm": arm["arm"],
        "score": arm["score"],
        "n": arm["n"],
        "documents": arm.get("documents"),
        "judged": arm["scores"]["right"]["n"] if "right" in arm["scores"] else 0,
        "scores": {name: arm["scores"][name]["mean"] for name in weighted if name in arm["scores"]},
    }


def all_pairs(run: Path, seed: int) -> list[dict[str, Any]]:
    """Return the paired difference of every two arms of a run, with its 95 % interval, clustered by document."""
    arms = [arm for arm in read_scores(run) if arm.combined]
    pairs = (compare_arms(a, b, seed) for a, b in itertools.combinations(arms, 2))
    return [
        {
            "a": pair.a,
            "b": pair.b,
            **{key: round(getattr(pair, key), DIGITS) for key in ("difference", "low", "high")},
        }
        for pair in pairs
    ]


def remeasured_arms(run: Path) -> dict[str, Any]:
    """Return the arms of a later run of the same questions, for a record whose untrained arms were measured before answers
    were held to a form: its scores take the place of the older ones in the shipped table."""
    plan, report = read_run_plan(run), Report.read(run).data
    return {"arms": [_arm(arm, ["right"]) for arm in report["arms"]], "pairs": all_pairs(run, plan.seed)}


def added_arms(record: Mapping[str, Any], run: Path) -> dict[str, Any]:
    """Return the arms of a later run of the same questions that a record lacks, with their differences to its other arms.

    An arm that came after a trial is measured beside the arm it is a variant of, and the rest of the trial stays as it was.
    """
    later = remeasured_arms(run)
    known = {arm["arm"] for arm in record["arms"]}
    new = [arm for arm in later["arms"] if arm["arm"] not in known]
    names = {arm["arm"] for arm in new}
    return {"arms": new, "pairs": [pair for pair in later["pairs"] if names & {pair["a"], pair["b"]}]}


def old_weighted_sum(record: Mapping[str, Any]) -> bool:
    """Return whether a record holds the weighted sums of old, in which style earned points for wrong answers."""
    return not record.get("before") and not record.get("held")


def completed(part: Part, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with what is derived from it: kind, held back or not, regret, and what it could have shown."""
    return {
        **record,
        "kind": part.kind,
        "held_back": part.held_back,
        "regret": regret(record),
        "could_show": could_show(record),
    }


def regret(record: Mapping[str, Any]) -> float:
    """Return how far the advised arm's mean lies below that of the best arm that can be used; 0 at least.

    An arm that missed a requirement of the verdict (``excluded``) cannot be used; earlier records do not name them.
    """
    excluded = record["verdict"].get("excluded") or {}
    means = {arm["arm"]: arm["score"]["mean"] for arm in record["arms"]}
    advised = means[record["verdict"]["recommended"]]
    return round(
        max(0.0, max((means[arm] for arm in means if arm not in excluded), default=0) - advised), DIGITS
    )


def could_show(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return how large a difference between the advised arm and its strongest rival must be to be sure of it.

    ``seen`` is half the width of the paired interval: a measured difference above it excludes zero. ``true`` is the
    true difference that a trial of this size shows with a probability of 80 %: (1.96 + 0.84) / 1.96 times as much.
    None where only one arm was measured.
    """
    recommended = record["verdict"]["recommended"]
    means = {arm["arm"]: arm["score"]["mean"] for arm in record["arms"]}
    pairs = {
        pair["b"] if pair["a"] == recommended else pair["a"]: pair
        for pair in record.get("pairs") or record["paired"]
        if recommended in (pair["a"], pair["b"])
    }
    rivals = [arm for arm in means if arm in pairs]
    if not rivals:
        return None
    rival = max(rivals, key=lambda arm: means[arm])
    half = (pairs[rival]["high"] - pairs[rival]["low"]) / 2
    normal = NormalDist()
    sure = normal.inv_cdf(0.975)
    return {
        "against": rival,
        "seen": round(half, DIGITS),
        "true": round(half * (sure + normal.inv_cdf(POWER)) / sure, DIGITS),
        "questions": max(arm["n"] for arm in record["arms"]),
    }


def shipped_table(*records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the table that ships with the program, of one record file for each model.

    Trials that were scored by the weighted sum of old are left out (:func:`old_weighted_sum`), docs/accuracy.md says which.

    Args:
        records: the trials of a record file, by set.
    """
    rows = [
        _row(name, record)
        for trials in records
        for name, record in trials.items()
        if not old_weighted_sum(record)
    ]
    return {"schema": 1, "trials": rows}


def _row(name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    nothing: dict[str, Any] = {"arms": [], "pairs": []}
    later, added = record.get("remeasured") or nothing, record.get("added") or nothing
    newer = {arm["arm"] for arm in later["arms"]}
    arms = [arm for arm in record["arms"] if arm["arm"] not in newer] + later["arms"] + added["arms"]
    older = record.get("pairs") or record["paired"]
    pairs = [pair for pair in older if not newer & {pair["a"], pair["b"]}] + later["pairs"] + added["pairs"]
    minutes = record.get("minutes") or {}
    return {
        "set": name,
        "kind": record["kind"],
        "task": record["task"],
        "model": record["model"],
        "params_b": record["features"].get("model_params_b"),
        "date": record["date"],
        "commit": record.get("commit"),
        "held_back": record["held_back"],
        "questions": max(arm["n"] for arm in record["arms"]),
        "advised": record["advised"],
        "confidence": record["confidence"],
        "probability": record.get("probability"),
        "outcome": record["verdict"]["outcome"],
        "regret": record["regret"],
        "could_show": record["could_show"],
        "features": record["features"],
        "arms": [
            {
                "arm": arm["arm"],
                **{key: round(arm["score"][key], DIGITS) for key in ("mean", "low", "high")},
                "n": arm["n"],
                "right": round(arm["scores"]["right"] * arm["judged"]) if "right" in arm["scores"] else None,
                "minutes": _minutes(arm["arm"], minutes),
            }
            for arm in arms
        ],
        "differences": [
            {"a": pair["a"], "b": pair["b"]}
            | {key: round(pair[key], DIGITS) for key in ("difference", "low", "high")}
            for pair in pairs
        ],
    }


def _minutes(arm: str, minutes: Mapping[str, float]) -> float | None:
    """Return the minutes that an arm was trained and asked; None where its steps were not timed."""
    of_arm = [value for step, value in minutes.items() if step.partition(":")[2] == arm]
    return round(sum(of_arm), 2) if of_arm else None


def write_records(records: Records, path: Path) -> None:
    """Write a record file, in the order of the cast."""
    ordered = {part.name: records[part.name] for part in CAST if part.name in records}
    path.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", "utf-8")


def write_shipped_table() -> int:
    """Write the table that ships with the program from both record files; return its number of trials."""
    files = [path for path in (RECORD, SECOND_MODEL_RECORD) if path.is_file()]
    table = shipped_table(*(json.loads(path.read_text("utf-8")) for path in files))
    SHIPPED.write_text(shipped_text(table), "utf-8")
    return len(table["trials"])


def shipped_text(table: Mapping[str, Any]) -> str:
    """Return the table as JSON with one line for each trial."""
    rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in table["trials"])
    return f'{{"schema": {table["schema"]}, "trials": [\n{rows}\n]}}\n'

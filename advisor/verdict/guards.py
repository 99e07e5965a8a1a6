"""The guards beside a verdict: leakage, forgetting, refusal drift, staleness, and the warnings they give."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from advisor.output import command_line
from advisor.verdict.run_records import RunRecords
from rag.files import check_schema
from rag.text.words import count_noun
from runners.arms.row_account import MIN_TRAINED_SHARE, recorded_accounts
from runners.plan.schema import Plan
from runners.report import refusal_drift
from runners.report.records import IncompleteArm, TrainingRows
from runners.report.trial_report import Guards
from runners.runs.retrieval import REFUSAL_FILE
from runners.trial.forgetting import STEP

SMALL_RISE = 0.02
"""Share of the loss on neutral text below which a rise is noted and not warned of, where instructions are followed as
before: for a loss of 3.8 nats a token it is a perplexity 8 % higher, which no answer shows."""
LESS_FORGETTING = (
    "to lose less, mix general examples into the training (data.replay in the plan), or train fewer epochs"
)


def run_guards(records: RunRecords) -> Guards:
    """Return every guard's result."""
    start = records.last("run.start")
    drift = refusal_drift.refusal_drift(records.plan, records.questions, records.answers)
    return Guards(
        leakage={
            **(start.get("leakage") or {}),
            "overlapping_questions": start.get("overlap"),
            "split": start.get("split"),
        },
        forgetting=records.result(STEP) or None,
        refusal_drift=(tuple(drift) or None) if records.questions else None,
        staleness=records.staleness,
        refusal=_refusal(records.path),
        training_rows=trained_rows(records.plan, records.events) or None,
    )


def guard_warnings(guards: Guards) -> list[str]:
    """Return what a reader of the verdict must know, one sentence each, from the guards' results."""
    warnings = []
    if guards.leakage.get("withheld"):
        warnings.append(
            "questions of this trial occur in the training rows or instructions: its scores prove nothing"
        )
    if left_out := guards.leakage.get("left_out"):
        warnings.append(
            f"{count_noun(left_out, 'question')} that nearly repeat{'s' * (left_out == 1)} training rows "
            f"{'was' if left_out == 1 else 'were'} not asked, as the plan says"
        )
    for rows in guards.training_rows or ():
        if not rows.planned:
            warnings.append(
                f"{rows.arm} was not trained as planned and does not count for the verdict: {rows.text}"
            )
        elif rows.with_passage is not None and rows.with_passage < MIN_TRAINED_SHARE * rows.of:
            warnings.append(f"under two thirds of the rows of {rows.arm} have their passage: {rows.text}")
    warnings += [
        f"{arm['text']}; {LESS_FORGETTING}"
        for arm in (guards.forgetting or {}).get("arms", ())
        if arm["warned"] and not is_small_rise(arm)
    ]
    return warnings + [arm["text"] for arm in guards.refusal_drift or () if arm["warned"]]


def incomplete_text(arms: Sequence[IncompleteArm]) -> str:
    """Return the arms that did not answer all questions, each with the reason; "" for none."""
    return "; ".join(f"{arm.arm}: {arm.text}" for arm in arms)


def incomplete_warnings(run: Path, arms: Sequence[IncompleteArm]) -> list[str]:
    """Return what a reader must know of arms that did not answer all questions, and how to finish them; [] for none."""
    named = run.name if run.is_absolute() else run  # reports are handed on
    finish = f"finish with: {command_line('run', named, '--resume')}"
    return [f"incomplete, not scored and not compared: {incomplete_text(arms)}; {finish}"] if arms else []


def is_small_rise(arm: Mapping[str, Any]) -> bool:
    """Return whether all that an arm has forgotten is a rise of its loss below :data:`SMALL_RISE`; no cause to act."""
    followed, rise = arm.get("followed_interval") or {}, arm.get("loss_interval") or {}
    if followed.get("high", 0.0) < 0 or not rise.get("difference") or not arm.get("loss_before"):
        return False
    return bool(rise["difference"] < SMALL_RISE * arm["loss_before"])


def trained_rows(plan: Plan, events: Sequence[Mapping[str, Any]]) -> tuple[TrainingRows, ...]:
    """Return the rows that each tuned arm of a run was trained on, by the arm that answers."""
    accounts = recorded_accounts(plan, events)
    return tuple(replace(account, arm=name).summary for name, account in accounts.items())


def lost_arms(trained: Iterable[TrainingRows]) -> dict[str, str]:
    """Return the arms that were not trained as planned, each with the count of its rows in words."""
    return {rows.arm: rows.text for rows in trained if not rows.planned}


def _refusal(run: Path) -> dict[str, Any] | None:
    """Return the refusal threshold with its curve; None for a run without an index."""
    path = run / REFUSAL_FILE
    if not path.is_file():
        return None
    return check_schema(json.loads(path.read_text("utf-8")), "refusal", path)

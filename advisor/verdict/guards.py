"""The guards beside a verdict: leakage, forgetting, refusal drift, staleness, and the warnings they give."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rag.files import check_schema
from rag.text.words import count_noun
from runners.arms.row_account import MIN_TRAINED_SHARE, RowAccount, recorded_accounts
from runners.data.questions import Question
from runners.plan.schema import Plan
from runners.run_folder import TRIAL, RunFolder, read_journal
from runners.runs.retrieval import REFUSAL_FILE
from runners.trial import refusal_drift, staleness
from runners.trial.forgetting import STEP
from runners.trial.trial import ANSWERS

SMALL_RISE = 0.02
"""Share of the loss on neutral text below which a rise is noted and not warned of, where instructions are followed as
before: for a loss of 3.8 nats a token it is a perplexity 8 % higher, which no answer shows."""
LESS_FORGETTING = (
    "to lose less, mix general examples into the training (data.replay in the plan), or train fewer epochs"
)


def run_guards(
    run: RunFolder, plan: Plan, questions: Sequence[Question] = (), stale: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return every guard's result as JSON values, None where nothing was measured.

    Args:
        run: the run folder.
        plan: its plan.
        questions: the test questions.
        stale: what was measured after an update of the index; by default what the run folder holds of it.
    """
    rows = read_journal(run.path / TRIAL / ANSWERS)
    return {
        "leakage": _leakage(run),
        "forgetting": _forgetting(run),
        "refusal_drift": (refusal_drift.refusal_drift(plan, questions, rows) or None) if questions else None,
        "staleness": dict(stale) if stale else staleness.read_staleness(run.path),
        "refusal": _refusal(run.path),
        "training_rows": [account.to_json() for account in trained_rows(run, plan).values()] or None,
    }


def guard_warnings(guards: Mapping[str, Any]) -> list[str]:
    """Return what a reader of the verdict must know, one sentence each, from the guards' results."""
    warnings = []
    leakage = guards.get("leakage") or {}
    if leakage.get("withheld"):
        warnings.append(
            "questions of this trial occur in the training rows or instructions: its scores prove nothing"
        )
    if left_out := leakage.get("left_out"):
        warnings.append(
            f"{count_noun(left_out, 'question')} that nearly repeat{'s' * (left_out == 1)} training rows "
            f"{'was' if left_out == 1 else 'were'} not asked, as the plan says"
        )
    warnings += [
        f"{row['arm']} was not trained as planned and does not count for the verdict: {row['text']}"
        if not row["planned"]
        else f"under two thirds of the rows of {row['arm']} have their passage: {row['text']}"
        for row in guards.get("training_rows") or ()
        if not row["planned"] or _without_passages(row)
    ]
    warnings += [
        f"{arm['text']}; {LESS_FORGETTING}"
        for arm in (guards.get("forgetting") or {}).get("arms") or ()
        if arm["warned"] and not is_small_rise(arm)
    ]
    warnings += [arm["text"] for arm in guards.get("refusal_drift") or () if arm["warned"]]
    warnings += (guards.get("staleness") or {}).get("warnings") or ()
    return warnings


def is_small_rise(arm: Mapping[str, Any]) -> bool:
    """Return whether all that an arm has forgotten is a rise of its loss below :data:`SMALL_RISE`; no cause to act."""
    followed, rise = arm.get("followed_interval") or {}, arm.get("loss_interval") or {}
    if followed.get("high", 0.0) < 0 or not rise.get("difference") or not arm.get("loss_before"):
        return False
    return bool(rise["difference"] < SMALL_RISE * arm["loss_before"])


def trained_rows(run: RunFolder, plan: Plan) -> dict[str, RowAccount]:
    """Return the rows that each tuned arm of a run was trained on, by the arm that answers."""
    return {
        name: replace(account, arm=name) for name, account in recorded_accounts(plan, run.events()).items()
    }


def _without_passages(row: Mapping[str, Any]) -> bool:
    """Return whether too few rows of a hybrid have their passage."""
    return row["with_passage"] is not None and row["with_passage"] < MIN_TRAINED_SHARE * row["of"]


def _leakage(run: RunFolder) -> dict[str, Any]:
    """Return the leakage counts and the split that the run recorded at its start."""
    start: dict[str, Any] = next((e for e in reversed(run.events()) if e.get("event") == "run.start"), {})
    counted = start.get("leakage") or {}
    return {**counted, "overlapping_questions": start.get("overlap"), "split": start.get("split")}


def _forgetting(run: RunFolder) -> dict[str, Any] | None:
    """Return the result of the last forgetting step, None without one."""
    done = [e for e in run.events() if e.get("event") == "step.done" and e.get("step") == STEP]
    return dict(done[-1]["result"]) if done else None


def _refusal(run: Path) -> dict[str, Any] | None:
    """Return the refusal threshold with its curve; None for a run without an index."""
    path = run / REFUSAL_FILE
    if not path.is_file():
        return None
    return check_schema(json.loads(path.read_text("utf-8")), "refusal", path)

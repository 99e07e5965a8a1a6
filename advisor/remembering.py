"""Keep a finished run in the user's history, and say what earlier runs here make of an estimate."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from advisor import history
from advisor.accounting import predicted_pairs, quick
from advisor.history import Correction, Kind, Past, Timed
from rag.durable import canonical_json, sha256_text
from rag.errors import CannotRun
from runners.machine import Machine, detect
from runners.plan import Plan
from runners.rundir import RunFolder

if TYPE_CHECKING:
    from advisor.engine import Recommendation
    from advisor.gather import Situation

Label = Literal["run", "demo"]


def remember(run: RunFolder, plan: Plan, data: dict[str, Any], label: Label = "run") -> str:
    """Add a finished run with its report to the history; return why it was not kept, "" when it was."""
    if history.place() is None:
        return ""
    return history.append(past(run, plan, data, label, detect(run.path)))


def past(run: RunFolder, plan: Plan, data: dict[str, Any], label: Label, machine: Machine) -> Past:
    """Return what is remembered of a run: prediction, measurement, verdict, machine; no text of the user's."""
    verdict = data["verdict"]
    hours, memory = predicted_pairs(plan, data["measured"], verdict["strength"] == "proxy")
    started = next((e["time"] for e in run.events() if e.get("event") == "run.start" and "time" in e), None)
    return Past(
        id=sha256_text(canonical_json([plan.digest(), started]))[:16], day=date.today().isoformat(), label=label,
        quick=quick(plan), machine=history.mark(machine), model=named(plan.model.name), choice=plan.choice,
        plan=plan.digest(), outcome=verdict["outcome"], strength=verdict["strength"], winner=verdict["winner"],
        questions=max((arm["n"] for arm in data["arms"]), default=None), hours=hours, memory_gib=memory,
        memory_of="training",
        steps=tuple(Timed.model_validate(step) for step in data["measured"]["steps"]),
    )  # fmt: skip


def hours_line(rec: Recommendation, situation: Situation) -> str:
    """Say what earlier runs here make of the estimated hours of the choice; "" without any, or for another machine.

    The advice and its own figures stay as they are: only this line is corrected.
    """
    hours = rec.estimates[rec.choice].hours
    kind = situation.answers.get("gpu_kind")
    if not hours or not hours.likely or (kind is not None and kind.source != "detected"):
        return ""
    model = situation.profile.model or ""
    found = corrections(model)["hours"]
    if not found.runs:
        return ""
    return (
        f"Training {rec.choice}: about {_hours(hours.likely)} by the estimate, about "
        f"{_hours(hours.likely * found.factor)} {found.text} (tunewise history)"
    )


def _hours(hours: float) -> str:
    return f"{hours * 60:.0f} min" if hours < 1 else f"{hours:.1f} h"


def named(model: str) -> str:
    """Return a model's name without what lies around it: the last part of a path, the name of an endpoint's model."""
    if model.startswith("openai:"):
        return model.partition("@")[0]
    return Path(model).name or model


def corrections(model: str, machine: Machine | None = None) -> dict[Kind, Correction]:
    """Return, for every kind of time estimate, what earlier runs here make of it; all 1 without any.

    A history that cannot be read corrects nothing; `tunewise history` says why.
    """
    kinds: tuple[Kind, ...] = ("index", "train", "evaluate", "hours")
    try:
        runs = history.read().runs
    except CannotRun:
        runs = ()
    if not runs:
        return dict.fromkeys(kinds, history.NONE)
    here = history.mark(machine or detect(Path("runs")))
    return {kind: history.correction(runs, here, kind, named(model)) for kind in kinds}

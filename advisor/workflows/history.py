"""What the history says: how often the advice was right here, and how far estimates were off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from advisor.history import History, Kind, PastRun
from rag.evaluation.statistics import WilsonShare

ESTIMATE_KINDS: tuple[Kind, ...] = ("index", "train", "evaluate")


def history_summary(found: History) -> dict[str, Any]:
    """Return what ``history --json`` prints: advice, estimates and every run, the oldest first."""
    return {
        "schema": 1,
        "path": str(found.path) if found.path else None,
        "broken_lines": found.broken,
        "advice": advice_counts(found.runs),
        "estimates": {
            "hours": ratio_spread([past.hours.ratio for past in found.runs if past.hours]),
            "memory": ratio_spread([ratio for past in found.runs if (ratio := past.memory_ratio)]),
            **{f"{kind}_seconds": ratio_spread(_steps(found.runs, kind)) for kind in ESTIMATE_KINDS},
        },
        "memory_left_out": sum(past.memory_gib is not None and not past.memory_ratio for past in found.runs),
        "runs": [_row(past) for past in found.runs],
    }


def advice_counts(runs: Sequence[PastRun]) -> dict[str, Any]:
    """Count how often trials bore the advice out: each plan once, its latest trial; demo and proxies told apart.

    An undecided trial says nothing either way, so the share is over decided ones.
    """
    judged = [past for past in runs if past.outcome]
    latest = {past.plan: past for past in judged if past.label == "run" and past.strength != "proxy"}
    outcomes = [past.outcome for past in latest.values()]
    counts = {name: outcomes.count(name) for name in ("confirmed", "overturned", "undecided")}  # type: ignore[arg-type]
    right = WilsonShare.of(counts["confirmed"], counts["confirmed"] + counts["overturned"])
    return {
        "trials": len(latest),
        **counts,
        "leaning": sum(past.strength == "leaning" for past in latest.values()),
        "proxy": sum(past.strength == "proxy" for past in judged if past.label == "run"),
        "demo": sum(past.label == "demo" for past in judged),
        "right": right.to_json(),
        "text": _said(len(latest), counts["undecided"], right),
    }


def ratio_spread(ratios: Sequence[float]) -> dict[str, float | int] | None:
    """Return how far estimates were off: geometric mean and range of measured over estimated; None without any."""
    if not ratios:
        return None
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    return {
        "n": len(ratios),
        "ratio": round(mean, 3),
        "least": round(min(ratios), 3),
        "most": round(max(ratios), 3),
    }


def _said(trials: int, undecided: int, right: WilsonShare) -> str:
    if not trials:
        return "no trial of your own is finished yet, so nothing can be said of the advice here"
    open_ones = f", {undecided} undecided" if undecided else ""
    if not right.n:
        return f"{trials} trial{'s' * (trials != 1)}{open_ones}: none decided, so nothing can be said yet"
    return (
        f"the advice was right in {right.text()} decided trial{'s' * (right.n != 1)}{open_ones}; "
        "each plan counts once"
    )


def _steps(runs: Sequence[PastRun], kind: Kind) -> list[float]:
    return [step.ratio for past in runs for step in past.steps if step.kind == kind]


def _row(past: PastRun) -> dict[str, Any]:
    ratios = {
        "time": round(past.hours.ratio, 3) if past.hours else None,
        "memory": round(past.memory_ratio, 3) if past.memory_ratio else None,
    }
    return {**past.model_dump(mode="json", exclude={"schema_version"}), "ratios": ratios}


def show_history(found: dict[str, Any]) -> None:
    """Print the history for people."""
    from advisor.display import console

    screen = console.console()
    if found["path"] is None:
        screen.print("no history is kept: TUNEWISE_HISTORY is empty")
        return
    if found["runs"]:
        rows = [
            (
                row["day"],
                row["label"] + (" (quick)" if row["quick"] else ""),
                row["choice"],
                ", ".join(filter(None, (row["outcome"], row["strength"]))) or "–",
                row["winner"] or "–",
                _times(row["ratios"]["time"]),
                _times(row["ratios"]["memory"]),
                console.escape(row["model"]),
            )
            for row in found["runs"]
        ]
        columns = ("day", "what", "advised", "outcome", "winner", "time", "memory", "model")
        screen.print(console.table(columns, rows, right=(5, 6)))
    screen.print(found["advice"]["text"], soft_wrap=True)
    for name, told in (("demo", "of the demo"), ("proxy", "on another model than the plan's")):
        if count := found["advice"][name]:
            screen.print(f"not counted: {count} trial{'s' * (count != 1)} {told}", soft_wrap=True)
    for name, off in found["estimates"].items():
        if off:
            screen.print(
                f"{name.replace('_', ' ')}: {off['ratio']:.2g} times the estimate "
                f"({off['least']:.2g} to {off['most']:.2g}, {off['n']} measured)"
            )
    if count := found["memory_left_out"]:
        screen.print(
            f"memory of {count} earlier run{'s' * (count != 1)} is not counted: the whole process was measured "
            "then, and the estimate is for training alone",
            soft_wrap=True,
        )
    if found["broken_lines"]:
        screen.print(f"{found['broken_lines']} lines could not be read and are not counted")
    screen.print(
        f"kept in {found['path']}, and nowhere else; remove it with: tunewise history --clear",
        soft_wrap=True,
        markup=False,
    )


def _times(ratio: float | None) -> str:
    return "–" if ratio is None else f"× {ratio:.2g}"

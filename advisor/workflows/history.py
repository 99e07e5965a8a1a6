"""The summary of the history: how often the advice was right on this machine, and how far estimates were off."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from advisor.display import console
from advisor.history import History, Kind, OwnTrials, PastRun, judging_trials
from advisor.output import print_plain
from advisor.recommendation.probability import AdviceRate
from rag.evaluation.statistics import WilsonShare
from rag.text.words import count_noun

CONFIDENCE_LEVELS = ("high", "medium", "low")
BY_SCORE = (
    "* of a run up to 0.2.0: the cheapest arm within noise of the best, however few of its answers were right"
)
"""Shown where the history has runs that were judged otherwise."""
ESTIMATE_KINDS: tuple[Kind, ...] = ("index", "train", "evaluate")


def history_summary(history: History) -> dict[str, Any]:
    """Return what ``history --json`` prints: advice, estimates and every run, the oldest first."""
    return {
        "schema": 1,
        "path": str(history.path) if history.path else None,
        "broken_lines": history.broken,
        "advice": advice_counts(history.runs),
        "estimates": {
            "hours": ratio_spread([run.hours.ratio for run in history.runs if run.hours]),
            "memory": ratio_spread([ratio for run in history.runs if (ratio := run.memory_ratio)]),
            **{f"{kind}_seconds": ratio_spread(_step_ratios(history.runs, kind)) for kind in ESTIMATE_KINDS},
        },
        "memory_left_out": sum(run.memory_gib is not None and not run.memory_ratio for run in history.runs),
        "runs": [_row(run) for run in history.runs],
    }


def advice_counts(runs: Sequence[PastRun]) -> dict[str, Any]:
    """Count how often trials confirmed the advice.

    Each plan counts once, with its latest trial; trials of the demo and on a proxy model are counted separately. The share
    is over decided trials, because an undecided one shows nothing either way.
    """
    judged = [run for run in runs if run.outcome]
    latest = judging_trials(runs)
    outcomes = [run.outcome for run in latest]
    counts = {name: outcomes.count(name) for name in ("confirmed", "overturned", "undecided")}  # type: ignore[arg-type]
    right = WilsonShare.of(counts["confirmed"], counts["confirmed"] + counts["overturned"])
    return {
        "trials": len(latest),
        **counts,
        "leaning": sum(run.strength == "leaning" for run in latest),
        "proxy": sum(run.strength == "proxy" for run in judged if run.label == "run"),
        "demo": sum(run.label == "demo" for run in judged),
        "right": right.to_json(),
        "rate": AdviceRate(OwnTrials(right.hits, right.n)).text,
        **confidence_scores(latest),
        "text": _advice_text(len(latest), counts["undecided"], right),
    }


def confidence_scores(runs: Sequence[PastRun]) -> dict[str, Any]:
    """Score how sure the advice was, over decided trials whose plan recorded it.

    Returns:
        ``levels``: decided and confirmed trials by confidence; ``brier``: the mean squared difference of probability and
        outcome (1 confirmed, 0 overturned), ``brier_expected``: what it would be if every probability were true, the mean
        of p(1 - p), and ``brier_n`` trials; both None without any (Brier 1950).
    """
    decided = [run for run in runs if run.outcome in ("confirmed", "overturned")]
    levels = {}
    for level in CONFIDENCE_LEVELS:
        outcomes = [run.outcome == "confirmed" for run in decided if run.confidence == level]
        if outcomes:
            levels[level] = WilsonShare.of(sum(outcomes), len(outcomes)).to_json()
    scored = [(run.probability, run.outcome == "confirmed") for run in decided if run.probability is not None]
    brier = sum((p - right) ** 2 for p, right in scored) / len(scored) if scored else None
    expected = sum(p * (1 - p) for p, _ in scored) / len(scored) if scored else None
    return {
        "levels": levels,
        "brier": None if brier is None else round(brier, 4),
        "brier_expected": None if expected is None else round(expected, 4),
        "brier_n": len(scored),
    }


def ratio_spread(ratios: Sequence[float]) -> dict[str, float | int] | None:
    """Return geometric mean and range of measured over estimated values; None without any."""
    if not ratios:
        return None
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    return {
        "n": len(ratios),
        "ratio": round(mean, 3),
        "least": round(min(ratios), 3),
        "most": round(max(ratios), 3),
    }


def show_history(summary: dict[str, Any]) -> None:
    """Print the summary for people."""
    screen = console.console()
    if summary["path"] is None:
        screen.print("no history is stored: TUNEWISE_HISTORY is empty")
        return
    if summary["runs"]:
        rows = [
            (
                row["day"],
                row["label"] + (" (quick)" if row["quick"] else ""),
                row["choice"],
                ", ".join(filter(None, (row["outcome"], row["strength"]))) or "–",
                _arm_to_use(row),
                _ratio_text(row["ratios"]["time"]),
                _ratio_text(row["ratios"]["memory"]),
                console.escape(row["model"]),
            )
            for row in summary["runs"]
        ]
        columns = ("day", "what", "advised", "outcome", "to use", "time", "memory", "model")
        screen.print(console.table(columns, rows, right=(5, 6)))
    if any(row["winner"] and row["decided_by"] == "score" for row in summary["runs"]):
        print_plain(screen, BY_SCORE)
    print_plain(screen, summary["advice"]["text"])
    if summary["advice"]["right"]["n"]:
        print_plain(screen, summary["advice"]["rate"])
    for name, label in (("demo", "of the demo"), ("proxy", "on another model than the plan's")):
        if count := summary["advice"][name]:
            print_plain(screen, f"not counted: {count} trial{'s' * (count != 1)} {label}")
    for name, spread in summary["estimates"].items():
        if spread:
            screen.print(
                f"{name.replace('_', ' ')}: {spread['ratio']:.2g} times the estimate "
                f"({spread['least']:.2g} to {spread['most']:.2g}, {spread['n']} measured)"
            )
    if count := summary["memory_left_out"]:
        print_plain(
            screen,
            f"memory of {count} earlier run{'s' * (count != 1)} is not counted: the whole process was measured "
            "then, and the estimate is for training alone",
        )
    if summary["broken_lines"]:
        screen.print(f"{summary['broken_lines']} lines could not be read and are not counted")
    screen.print(
        f"stored in {summary['path']}, and nowhere else; remove it with: tunewise history --clear",
        soft_wrap=True,
        markup=False,
    )


def _advice_text(trials: int, undecided: int, right: WilsonShare) -> str:
    if not trials:
        return "no trial of your own is finished yet, so how often the advice is right here is not known yet"
    open_ones = f", {undecided} undecided" if undecided else ""
    if not right.n:
        return f"{count_noun(trials, 'trial')}{open_ones}: how often the advice is right is not known yet"
    return (
        f"the advice was right in {right.text()} decided trial{'s' * (right.n != 1)}{open_ones}; "
        "each plan counts once"
    )


def _arm_to_use(row: Mapping[str, Any]) -> str:
    """Return the arm to use of a run; of a run up to 0.2.0 the best by its score, marked."""
    if row["winner"]:
        return f"{row['winner']} *" if row["decided_by"] == "score" else str(row["winner"])
    return "none yet" if row["outcome"] and row["decided_by"] == "use" else "–"


def _step_ratios(runs: Sequence[PastRun], kind: Kind) -> list[float]:
    return [step.ratio for run in runs for step in run.steps if step.kind == kind]


def _row(run: PastRun) -> dict[str, Any]:
    ratios = {
        "time": round(run.hours.ratio, 3) if run.hours else None,
        "memory": round(run.memory_ratio, 3) if run.memory_ratio else None,
    }
    return {**run.model_dump(mode="json", exclude={"schema_version"}), "ratios": ratios}


def _ratio_text(ratio: float | None) -> str:
    return "–" if ratio is None else f"× {ratio:.2g}"

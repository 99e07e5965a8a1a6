"""What `tunewise eval` says: a finished run's arms on other questions, beside what the trial found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from advisor.display import trial_table
from advisor.display.trial_table import OUTCOME_COLOURS, arms_tables, paired_table, weights_line
from advisor.output import print_plain
from advisor.report.data import arm_json, pair_json, read_scores
from advisor.verdict.verdict import judge_trial
from rag.errors import BadInput
from rag.files import write_json
from runners.plan.schema import Plan
from runners.trial.evaluate import Evaluation

EVAL_FILE = "eval.json"


def evaluation_json(run: Path, plan: Plan, file: Path, found: Evaluation) -> dict[str, Any]:
    """Return the evaluation as ``tunewise eval --json`` prints it, and keep it beside the answers.

    Arms, pairs and verdict are as in the report; the verdict is None where the recommended arm was not asked.
    ``trial`` holds each arm's mean combined score in the run's own trial.
    """
    asked = [arm for arm in found.arms if arm.combined]
    verdict, pairs = (
        judge_trial(plan, asked, plan.model.name) if plan.choice in {a.arm for a in asked} else (None, ())
    )
    data = {
        "schema": 1,
        "run": str(run),
        "name": plan.name,
        "questions": {"file": str(file), **found.asked.to_json()},
        "generation": found.generation,
        "verdict": verdict.to_json() if verdict else None,
        "warnings": _warnings(found, plan),
        "arms": [arm_json(arm, plan, "") for arm in sorted(asked, key=lambda a: -sum(a.combined))],
        "paired": [pair_json(pair) for pair in pairs],
        "weights": {str(k): v for k, v in plan.weights.items()},
        "trial": _trial(run),
        "folder": str(found.folder),
    }
    write_json(found.folder / EVAL_FILE, data)
    return data


def show_evaluation(data: dict[str, Any], console: Console | None = None) -> None:
    """Print the table of arms, what the trial had found, and the verdict on these questions."""
    console = console or Console()
    console.print(*arms_tables(data, console.width))
    console.print(trial_table.score_chart(data, console.width))
    if data["paired"]:
        console.print("", paired_table(data))
    before = [
        f"{arm['arm']} {data['trial'][arm['arm']]:.2f}" for arm in data["arms"] if arm["arm"] in data["trial"]
    ]
    if before:
        print_plain(console, f"in the run's own trial: {', '.join(before)}", "dim")
    print_plain(console, weights_line(data), "dim")
    if verdict := data["verdict"]:
        console.print(
            verdict["outcome"].upper(), style=f"{OUTCOME_COLOURS[verdict['outcome']]} bold", end=" "
        )
        print_plain(console, f"({verdict['strength']})  {verdict['text']}")
    for warning in data["warnings"]:
        print_plain(console, f"  warning: {warning}", "yellow")
    print_plain(console, f"answers and scores: {data['folder']}")


def _warnings(found: Evaluation, plan: Plan) -> list[str]:
    asked = found.asked
    lines = [asked.unchecked] if asked.unchecked else []
    if plan.weights.get("house_style"):
        lines.append(plan.ignored)
    if asked.near:
        lines.append(f"{asked.near} questions were left out because they nearly repeat training rows")
    if asked.dev:
        lines.append(
            f"{asked.dev} of {len(asked.questions)} are dev questions, by which the run made its choices"
        )
    if asked.trial:
        lines.append(f"{asked.trial} of {len(asked.questions)} are questions of the trial itself")
    return lines


def _trial(run: Path) -> dict[str, float]:
    try:
        return {arm.arm: sum(arm.combined) / len(arm.combined) for arm in read_scores(run) if arm.combined}
    except BadInput:
        return {}

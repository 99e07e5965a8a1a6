"""The result of ``tunewise eval``: a finished run's arms on other questions, beside the scores of its trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from advisor.display import trial_table
from advisor.display.trial_table import arms_tables, paired_table, weights_line
from advisor.output import print_plain
from advisor.report.data import applied_weights, arm_json, left_out_notes, pair_json, read_scores
from advisor.verdict.conclusion import conclude
from advisor.verdict.made_questions import (
    judge_on_real_questions,
    made_column,
    origin_counts,
    origin_notes,
    split_by_origin,
)
from rag.errors import BadInput
from rag.files import write_json
from rag.text.words import count_noun
from runners.plan.schema import Plan
from runners.run_folder import read_journal
from runners.trial.evaluate import Evaluation
from runners.trial.trial import ANSWERS

EVAL_FILE = "eval.json"


def evaluation_json(run: Path, plan: Plan, file: Path, evaluation: Evaluation) -> dict[str, Any]:
    """Return the evaluation as ``tunewise eval --json`` prints it, and store it beside the answers as eval.json.

    Arms, pairs and verdict are as in the report; the verdict is None where the recommended arm was not asked. ``trial`` has
    each arm's mean combined score in the run's own trial.
    """
    arms = [arm for arm in evaluation.arms if arm.combined]
    origins = origin_counts(arms)
    counted, beside = split_by_origin(arms)
    judged = (
        judge_on_real_questions(plan, arms, plan.model.name)
        if plan.choice in {arm.arm for arm in counted if arm.combined}
        else None
    )
    verdict, pairs = (judged.verdict, judged.pairs) if judged else (None, ())
    columns = {arm.arm: made_column(arm) for arm in beside}
    rows = read_journal(evaluation.folder / ANSWERS)
    data: dict[str, Any] = {
        "schema": 1,
        "run": str(run),
        "name": plan.name,
        "questions": {"file": str(file), **evaluation.asked.to_json()},
        "generation": evaluation.generation,
        "verdict": verdict.to_json() if verdict else None,
        "warnings": [*origin_notes(origins), *_warnings(evaluation, plan)],
        "arms": [
            arm_json(arm, plan, "", rows) | ({"made": columns[arm.arm]} if arm.arm in columns else {})
            for arm in sorted(counted, key=lambda arm: -arm.mean_score)
            if arm.combined
        ],
        "paired": [pair_json(pair) for pair in pairs],
        "weights": applied_weights(plan),
        "trial": _trial_scores(run),
        "drift": evaluation.drift.to_json() if evaluation.drift else None,
        "folder": str(evaluation.folder),
    }
    if origins:
        data["made_questions"] = origins
    if verdict:
        data["verdict"]["conclusion"] = conclude(data, bool(plan.prompts.system))
    write_json(evaluation.folder / EVAL_FILE, data)
    return data


def show_evaluation(data: dict[str, Any], console: Console | None = None) -> None:
    """Print the table of arms, their scores in the trial, and the verdict on these questions."""
    console = console or Console()
    trial_table.show_conclusion(data, console)
    console.print(*arms_tables(data, console.width))
    console.print(trial_table.score_chart(data, console.width))
    trial_table.show_wordings(data, console)
    if data["paired"]:
        console.print("", paired_table(data))
    trial_scores = [
        f"{arm['arm']} {data['trial'][arm['arm']]:.2f}" for arm in data["arms"] if arm["arm"] in data["trial"]
    ]
    if trial_scores:
        print_plain(console, f"in the run's own trial: {', '.join(trial_scores)}", "dim")
    print_plain(console, weights_line(data), "dim")
    if verdict := data["verdict"]:
        trial_table.show_verdict(verdict, console)
    for warning in data["warnings"]:
        print_plain(console, f"  warning: {warning}", "yellow")
    print_plain(console, f"answers and scores: {data['folder']}")


def _warnings(evaluation: Evaluation, plan: Plan) -> list[str]:
    asked = evaluation.asked
    lines = [*asked.notes, *([asked.unchecked] if asked.unchecked else [])]
    lines += left_out_notes(plan)
    if asked.near:
        were = (
            "was skipped because it nearly repeats"
            if asked.near == 1
            else "were skipped because they nearly repeat"
        )
        lines.append(f"{count_noun(asked.near, 'question')} {were} training rows")
    if asked.dev:
        lines.append(
            f"{asked.dev} of {len(asked.questions)} are dev questions, by which the run made its choices"
        )
    if asked.other_form:
        marked = sum(question.made for question in asked.questions)
        lines.append(
            f"{asked.other_form} of {marked} made questions have an answer not of the form that the plan's checks ask "
            "for: no reply of that form is right on them, so they cannot rank the arms"
        )
    if evaluation.drift and evaluation.drift.sure:
        lines.append(evaluation.drift.text)
    if asked.trial:
        lines.append(f"{asked.trial} of {len(asked.questions)} are questions of the trial itself")
    return lines


def _trial_scores(run: Path) -> dict[str, float]:
    """Return each arm's mean combined score in the run's trial; {} if the run was not scored."""
    try:
        return {arm.arm: arm.mean_score for arm in read_scores(run) if arm.combined}
    except BadInput:
        return {}

"""The result of ``tunewise eval``: a finished run's arms on other questions, beside the scores of its trial."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from advisor.display.trial_table import paired_table, show_arms, show_verdict, weights_line
from advisor.output import open_console, print_plain
from advisor.report.data import applied_weights, arm_report, left_out_notes, pair_report, read_scores
from advisor.verdict.made_questions import (
    judge_on_real_questions,
    made_column,
    made_questions,
    origin_note,
    split_by_origin,
)
from advisor.verdict.sentences import Conclusion
from advisor.verdict.verdict import today_arm
from rag.errors import BadInput
from rag.files import write_json
from rag.text.words import count_noun
from runners.plan.schema import Plan
from runners.report.report_file import report_json
from runners.report.trial_report import EvaluationReport
from runners.run_folder import read_journal
from runners.trial.evaluate import Evaluation
from runners.trial.trial import ANSWERS

EVAL_FILE = "eval.json"


def report_evaluation(run: Path, plan: Plan, file: Path, evaluation: Evaluation) -> EvaluationReport:
    """Return the evaluation as ``tunewise eval`` shows it, and store it beside the answers as eval.json.

    Arms, pairs and verdict are as in the report; the verdict is None where the recommended arm was not asked.
    """
    arms = [arm for arm in evaluation.arms if arm.combined]
    origins = made_questions(arms)
    counted, beside = split_by_origin(arms)
    judged = (
        judge_on_real_questions(plan, arms, plan.model.name)
        if plan.choice in {arm.arm for arm in counted if arm.combined}
        else None
    )
    columns = {arm.arm: made_column(arm) for arm in beside}
    answers = read_journal(evaluation.folder / ANSWERS)
    rows = tuple(
        arm_report(arm, plan, answers, on_made=columns.get(arm.arm))
        for arm in sorted(counted, key=lambda arm: -arm.mean_score)
        if arm.combined
    )
    report = EvaluationReport(
        run=str(run),
        name=plan.name,
        questions={"file": str(file), **evaluation.asked.to_json()},
        generation=evaluation.generation,
        verdict=judged.verdict if judged else None,
        warnings=tuple(filter(None, [origin_note(origins), *_warnings(evaluation, plan)])),
        arms=rows,
        paired=tuple(map(pair_report, judged.pairs if judged else ())),
        weights=applied_weights(plan),
        trial=_trial_scores(run),
        drift=evaluation.drift.to_json() if evaluation.drift else None,
        folder=str(evaluation.folder),
        made_questions=origins,
    )
    if judged:
        in_use = bool(plan.prompts.system)
        today = today_arm(plan, [arm.arm for arm in rows])
        conclusion = Conclusion(report=report, verdict=judged.verdict, prompt_in_use=in_use, today=today)
        report = replace(report, verdict=replace(judged.verdict, conclusion=conclusion.sentences))
    write_json(evaluation.folder / EVAL_FILE, report_json(report))
    return report


def show_evaluation(report: EvaluationReport, console: Console | None = None) -> None:
    """Print the table of arms, their scores in the trial, and the verdict on these questions."""
    console = console or open_console()
    show_arms(report, console)
    if report.verdict and report.paired:
        console.print("", paired_table(report, report.verdict.recommended))
    trial_scores = [
        f"{arm.arm} {report.trial[arm.arm]:.2f}" for arm in report.arms if arm.arm in report.trial
    ]
    if trial_scores:
        print_plain(console, f"in the run's own trial: {', '.join(trial_scores)}", "dim")
    print_plain(console, weights_line(report), "dim")
    if report.verdict:
        show_verdict(report.verdict, console)
    for warning in report.warnings:
        print_plain(console, f"  warning: {warning}", "yellow")
    print_plain(console, f"answers and scores: {report.folder}")


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

"""How much of a plan's teacher the arms reach, and at which price.

The arms are the one to use and every tuned one, compared with the teacher's arm that has most right answers. The ratio of
right answers is paired on the same questions (:func:`advisor.verdict.right_costs.right_ratio`); that the teacher's arm was
picked by its result makes it smaller, never larger. Costs are those of a right answer, as the table of costs has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from advisor.verdict.right_answers import RIGHT
from advisor.verdict.right_costs import right_cost_text, right_ratio
from advisor.verdict.run_records import RunRecords
from rag.text.words import count_noun
from runners.data.teachers import LICENSE_QUESTION, RowTeacher, recorded_teachers, teacher_name
from runners.models.endpoint import endpoint_host
from runners.models.resolve import parse_remote
from runners.plan.named_models import reference_arms, teacher_arms
from runners.plan.schema import Plan
from runners.report.records import ArmReport
from runners.report.trial_report import StudentReport, TeacherReport, TrialReport, arm_named
from runners.run_folder import RunFolder
from runners.trial.trial import ArmScores


def teacher_report(
    records: RunRecords, report: TrialReport, arms: Sequence[ArmScores]
) -> TeacherReport | None:
    """Return what a trial says of the plan's teacher; None without one, and where none of its arms was judged.

    Args:
        records: of the run.
        report: with the costs of right answers.
        arms: the scores that were judged.
    """
    plan, use = records.plan, report.verdict.use
    own = teacher_arms(plan)
    scores = {arm.arm: arm for arm in arms if arm.of(RIGHT)}
    measured = [name for name in own if name in scores]
    if not measured:
        return None
    best = max(measured, key=lambda name: fmean(scores[name].of(RIGHT)))
    compared = dict.fromkeys([use or "", *(arm.arm for arm in report.arms if arm.weights)])
    names = [name for name in compared if name in scores and name not in own]
    name, host = _name_and_host(plan, best)
    written = {arm: _rows_by(name, records.path, plan, arm) for arm in names}
    students = tuple(
        StudentReport(
            arm=arm, ratio=right_ratio(scores[arm], scores[best]), rows=sum(one.rows for one in teachers)
        )
        for arm, teachers in written.items()
    )
    answers = {one.license: one.answer for teachers in written.values() for one in teachers}
    title = f"{name} ({host})" if host else name
    price = f"{_right(report.arms, best)}, {_cost(report.arms, best)}"
    parts = [f"Teacher {title}, {best}: {price}."]
    parts += [
        f"{student.arm}{_rows_text(student)}: {_right(report.arms, student.arm)}, {_share_text(student)}; "
        f"{_cost(report.arms, student.arm)}."
        for student in students
    ]
    parts += answers.values() or [f"{LICENSE_QUESTION} Not asked: no row that was trained on names it."]
    return TeacherReport(
        model=title,
        arm=best,
        arms=tuple(measured),
        reference=best in reference_arms(plan),
        license=" and ".join(answers) or None,
        students=students,
        line=_line(report.arms, title, best, students),
        text=" ".join(parts),
    )


def _line(arms: Sequence[ArmReport], title: str, best: str, students: Sequence[StudentReport]) -> str:
    """Return how much of the teacher the first student reaches and what a right answer of both costs."""
    if not students:
        return f"Teacher {title}, {best}: {_right(arms, best)}, {_cost(arms, best)}."
    student = students[0]
    reached = f"{student.arm}{_rows_text(student)}: {_share_text(student)}"
    return f"Teacher {title}: {reached}; {_cost(arms, student.arm)}; of {best} {_price(arms, best)}."


def _rows_text(student: StudentReport) -> str:
    return f" (tuned on {count_noun(student.rows, 'row')} by the teacher)" if student.rows else ""


def _share_text(student: StudentReport) -> str:
    ratio = student.ratio
    if ratio is None:
        return "no share of the teacher's right answers, for it has none"
    return f"{100 * ratio.mean:.0f} % ({100 * ratio.low:.0f} to {100 * ratio.high:.0f} %) of the teacher's right answers"


def _right(arms: Sequence[ArmReport], name: str) -> str:
    arm = arm_named(arms, name)
    return f"{arm.right_text} right" if arm else ""


def _cost(arms: Sequence[ArmReport], name: str) -> str:
    """Return what a right answer of an arm costs, as a clause."""
    return f"a right answer costs {_price(arms, name)}"


def _price(arms: Sequence[ArmReport], name: str) -> str:
    arm = arm_named(arms, name)
    return right_cost_text(arm.cost_per_right) if arm and arm.cost_per_right else "an unknown amount"


def _name_and_host(plan: Plan, arm: str) -> tuple[str, str]:
    """Return the name of the model of an arm, and the host of an endpoint, else ""."""
    model = plan.model_of(next(step for step in plan.arms if step.arm == arm)).name
    remote = parse_remote(model)
    return (remote.name, endpoint_host(remote.url)) if remote else (teacher_name(model), "")


def _rows_by(name: str, run: Path, plan: Plan, arm: str) -> tuple[RowTeacher, ...]:
    """Return a teacher with the rows by it that an arm's weights were trained on; () for an arm without weights."""
    step = next(step for step in plan.arms if step.arm == arm)
    if not step.weights:
        return ()
    folder = RunFolder(run).adapter(step.weights, plan.train_step(step.weights).seeds[0])
    return tuple(teacher for teacher in recorded_teachers(folder) if teacher.name == name)

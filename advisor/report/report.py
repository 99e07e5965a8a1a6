"""Writes the report of a run: ``report.json`` for programs, ``report.html`` for people, ``report.md`` for a pull request.

:func:`judge` and :class:`Report` are the report in the Python API.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.report.data import read_report, report_of_run
from advisor.report.html import render_page
from advisor.report.markdown import RIGHT_COST_SVG, report_markdown
from advisor.report.plots.right_cost import right_cost_file
from advisor.report.statements import strength_texts
from advisor.verdict.run_records import RunRecords
from rag.files import write_json, write_text
from runners import notebook
from runners.data.questions import Question
from runners.plan.schema import Plan
from runners.report.report_file import report_json
from runners.report.trial_report import TrialReport
from runners.run_folder import REPORT, RunFolder
from runners.runs.plan_models import named_models

if TYPE_CHECKING:
    from runners.runs.run import Run


HTML, MARKDOWN = "report.html", "report.md"


def write_report(run: RunFolder, plan: Plan, questions: Sequence[Question] = ()) -> TrialReport:
    """Write the three files and the picture beside report.md, seal the manifest of the run folder, and return the report.

    Args:
        run: the run folder.
        plan: its plan.
        questions: the test questions, whose gold is shown beside the answers.
    """
    records = RunRecords.read(run, plan, questions)
    report = report_of_run(records)
    run.unseal()
    write_json(run.path / REPORT, report_json(report))
    write_text(run.path / HTML, render_page(report, records))
    write_text(run.path / MARKDOWN, report_markdown(report))
    if picture := right_cost_file(report):
        write_text(run.path / RIGHT_COST_SVG, picture)
    else:
        (run.path / RIGHT_COST_SVG).unlink(missing_ok=True)
    run.seal(
        {
            "plan": plan.digest(),
            "split": report.data.split,
            "outcome": report.verdict.outcome,
            "models": named_models(plan),
        }
    )
    return report


@dataclass(frozen=True, slots=True)
class Report:
    """The verdict on a run with everything behind it."""

    path: Path
    """The run folder, with report.html, report.md and report.json."""
    content: TrialReport
    """The same as a record."""

    @classmethod
    def read(cls, path: Path | str) -> Report:
        """Read the report of a run folder; BadInput when it has none yet."""
        return cls(Path(path), read_report(Path(path)))

    @property
    def data(self) -> dict[str, Any]:
        """What ``tunewise report --json`` prints."""
        return report_json(self.content)

    @property
    def outcome(self) -> str:
        """Return confirmed, overturned or undecided."""
        return self.content.verdict.outcome.value

    @property
    def winner(self) -> str | None:
        """The same as :attr:`use`."""
        return self.content.verdict.use

    @property
    def use(self) -> str | None:
        """The arm to use; None where none can be used yet."""
        return self.content.verdict.use

    def __repr__(self) -> str:
        """Return the verdict in a line."""
        return f"Report({str(self.path)!r}, {self.outcome}: {self.content.verdict.text})"

    def _repr_markdown_(self) -> str:
        """Return the content of report.md."""
        return report_markdown(self.content)

    def _repr_html_(self) -> str:
        """Return the HTML that a notebook shows: conclusion, verdict, warnings, and the arms with their right answers."""
        report, verdict = self.content, self.content.verdict
        head = notebook.html_paragraph(" ".join(verdict.conclusion))
        strength, _ = strength_texts(verdict)
        verdict_html = notebook.html_paragraph(f"{verdict.outcome.upper()} ({strength}). {verdict.text}")
        warnings = [notebook.html_list(report.warnings)] if report.warnings else []
        rows = [
            (
                arm.arm,
                arm.right_text,
                *(f"{value:.2f}" for value in (arm.score.mean, arm.score.low, arm.score.high)),
                arm.question_count,
            )
            for arm in report.arms
        ]
        table = notebook.html_table(("arm", "right", "combined", "95 % from", "to", "questions"), rows)
        return f"<div>{head}{verdict_html}{''.join(warnings)}{table}</div>"


def judge(run: Run | Path | str) -> Report:
    """Judge a run whose arms are all measured, write its report (HTML, Markdown, JSON) and return it.

    Raises BadInput when an arm is not scored yet, or the questions of the plan cannot be read.
    """
    from runners.runs.run import load

    run = load(run) if isinstance(run, str | Path) else run
    return Report(run.path, write_report(run.folder, run.plan, run.questions))

"""Writes the report of a run: ``report.json`` for programs, ``report.html`` for people, ``report.md`` for a pull request.

:func:`judge` and :class:`Report` are the report in the Python API.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.report import statements
from advisor.report.data import data_used, read_report, recorded_environment, report_json
from advisor.report.html import render_page
from advisor.report.markdown import report_markdown
from rag.files import write_json, write_text
from runners import notebook
from runners.data.questions import Question
from runners.plan.schema import Plan
from runners.run_folder import REPORT, RunFolder
from runners.runs.plan_models import named_models

if TYPE_CHECKING:
    from runners.runs.run import Run


HTML, MARKDOWN = "report.html", "report.md"


def write_report(
    run: RunFolder, plan: Plan, questions: Sequence[Question] = (), staleness: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Write the three files, seal the manifest of the run folder, and return the content of report.json.

    Args:
        run: the run folder.
        plan: its plan.
        questions: the test questions, whose gold is shown beside the answers.
        staleness: measurement after an update of the documents, None if there was none.
    """
    data = report_json(run, plan, questions, staleness)
    data |= {
        "task": statements.task_asked(plan),
        "environment": recorded_environment(run.events()),
        "data": data_used(run, plan),
    }
    run.unseal()
    write_json(run.path / REPORT, data)
    write_text(run.path / HTML, render_page(data, run, questions))
    write_text(run.path / MARKDOWN, report_markdown(data))
    run.seal(
        {
            "plan": plan.digest(),
            "split": data["guards"]["leakage"]["split"],
            "outcome": data["verdict"]["outcome"],
            "models": named_models(plan),
        }
    )
    return data


@dataclass(frozen=True, slots=True)
class Report:
    """The verdict on a run with everything behind it."""

    path: Path
    """The run folder, with report.html, report.md and report.json."""
    data: Mapping[str, Any]
    """What ``tunewise report --json`` prints."""

    @classmethod
    def read(cls, path: Path | str) -> Report:
        """Read the report of a run folder; BadInput when it has none yet."""
        return cls(Path(path), read_report(Path(path)))

    @property
    def outcome(self) -> str:
        """Return confirmed, overturned or undecided."""
        return str(self.data["verdict"]["outcome"])

    @property
    def winner(self) -> str:
        """The cheapest arm within noise of the best by the combined score, whatever was said."""
        return str(self.data["verdict"]["winner"])

    @property
    def use(self) -> str | None:
        """The arm to use; None where no arm can meet what was said. In reports of earlier versions the winner."""
        verdict = self.data["verdict"]
        name = verdict["use"] if "use" in verdict else verdict["winner"]
        return None if name is None else str(name)

    def __repr__(self) -> str:
        """Return the verdict in a line."""
        return f"Report({str(self.path)!r}, {self.outcome}: {self.data['verdict']['text']})"

    def _repr_markdown_(self) -> str:
        """Return the content of report.md."""
        return report_markdown(self.data)

    def _repr_html_(self) -> str:
        """Return the HTML that a notebook shows: conclusion, verdict, warnings, and the arms with their right answers."""
        verdict = self.data["verdict"]
        sentences = statements.conclusion(self.data)
        head = notebook.html_paragraph(" ".join(sentences)) if sentences else ""
        verdict_html = notebook.html_paragraph(
            f"{verdict['outcome'].upper()} ({statements.STRENGTHS[verdict['strength']]}). {verdict['text']}"
        )
        warnings = [notebook.html_list(self.data["warnings"])] if self.data.get("warnings") else []
        rows = [
            (
                arm["arm"],
                statements.right_count(arm.get("right")),
                *(f"{arm['score'][key]:.2f}" for key in ("mean", "low", "high")),
                arm.get("questions", arm["n"]),
            )
            for arm in self.data["arms"]
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

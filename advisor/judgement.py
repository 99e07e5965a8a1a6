"""A run's report from Python: judge a run, or read the report it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.markdown import markdown
from advisor.results import read_report
from runners import notebook

if TYPE_CHECKING:
    from runners.opened import Run


@dataclass(frozen=True, slots=True)
class Report:
    """The verdict on a run with everything behind it."""

    path: Path
    """The run's folder; report.html, report.md and report.json lie in it."""
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
        """The arm to use."""
        return str(self.data["verdict"]["winner"])

    def __repr__(self) -> str:
        """Return the verdict in a line."""
        return f"Report({str(self.path)!r}, {self.outcome}: {self.data['verdict']['text']})"

    def _repr_markdown_(self) -> str:
        """The report as in report.md."""
        return markdown(self.data)

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdict, the warnings and the arms."""
        verdict = self.data["verdict"]
        head = notebook.paragraph(f"{verdict['outcome'].upper()} ({verdict['strength']}). {verdict['text']}")
        warned = [notebook.bullets(self.data["warnings"])] if self.data.get("warnings") else []
        rows = [
            (arm["arm"], *(f"{arm['score'][key]:.2f}" for key in ("mean", "low", "high")), arm["n"])
            for arm in self.data["arms"]
        ]
        table = notebook.table(("arm", "combined", "95 % from", "to", "questions"), rows)
        return f"<div>{head}{''.join(warned)}{table}</div>"


def judge(run: Run | Path | str) -> Report:
    """Judge a run whose arms are all measured, write its report (HTML, Markdown, JSON) and return it.

    Raises BadInput when an arm is not scored yet, or the questions of the plan cannot be read.
    """
    from advisor.report import write_report
    from runners.dataset import read_data
    from runners.opened import load

    run = load(run) if isinstance(run, str | Path) else run
    return Report(run.path, write_report(run.folder, run.plan, read_data(run.plan)[1].test))

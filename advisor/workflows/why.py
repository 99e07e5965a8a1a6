"""The work of ``tunewise why``: the causes of an arm's wrong answers, shown and written into the run's report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from advisor.display.progress import watch_progress
from advisor.output import command_line, open_console, print_plain
from advisor.report.failure_causes import CAUSE_COLUMNS, cause_rows, causes_sentence
from advisor.report.report import HTML, write_report
from advisor.terminal import resume_hint
from runners.failures.failures import find_causes
from runners.run_folder import RunFolder, read_run_plan
from runners.runs.dataset import read_data

if TYPE_CHECKING:
    from runners.failures.causes import Failures

SHOWN_QUESTIONS = 3
"""Answers of each cause that the terminal shows; ``--json`` and the report have all."""


def explain_failures(run: Path, arm: str | None, as_json: bool) -> Failures:
    """Find the causes of an arm's wrong answers, and write the run's report again with them.

    Raises:
        BadInput, UsageProblem: as :func:`runners.failures.failures.find_causes`.
    """
    line = command_line("why", run, *(("--arm", arm) if arm else ()))
    with resume_hint(line, "answers"), watch_progress(as_json) as watcher:
        failures = find_causes(run, arm, watcher)
    folder = RunFolder(run)
    with folder.writing():
        plan = read_run_plan(run)
        write_report(folder, plan, read_data(plan).split.test)
    return failures


def show_failures(failures: Failures, run: Path, to: Console | None = None) -> None:
    """Print the causes with their shares, what mends each, and some answers with what was seen of them."""
    to = to or open_console()
    data = failures.to_json()
    print_plain(to, causes_sentence(data))
    for note in failures.notes:
        print_plain(to, f"  note: {note}")
    rows = cause_rows(data)
    if rows:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for name in CAUSE_COLUMNS:
            table.add_column(name, justify="right" if name in CAUSE_COLUMNS[1:-1] else "left")
        for row in rows:
            table.add_row(*row.cells)
        to.print(table)
    for row in rows:
        print_plain(to, f"{row.title}:")
        for answer in row.questions[:SHOWN_QUESTIONS]:
            print_plain(to, f"  {answer['id']}: {answer['question']}")
            print_plain(to, f"    {answer['evidence']}", "dim")
        if (more := len(row.questions) - SHOWN_QUESTIONS) > 0:
            print_plain(to, f"  and {more} more")
    print_plain(to, f"all of them: {run / HTML}")

"""`tunewise demo`: the whole line on the shipped example, non-interactively."""

from __future__ import annotations

import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

import typer


def command(
    out: Path = typer.Option(Path("runs/harbor-desk"), help="The run folder."),
    quick: bool = typer.Option(False, "--quick", help="Fewer questions and rows: at most five minutes."),
    resume: bool = typer.Option(False, "--resume", help="Continue after the last finished step."),
    overwrite: bool = typer.Option(
        False, "--overwrite", help="Remove the run folder that is there, and start again."
    ),
    copy: Path | None = typer.Option(
        None, help="Only copy the example's files into this folder, to work with them step by step."
    ),
    as_json: bool = typer.Option(
        False, "--json", help="Print the report as JSON, and everything else to stderr."
    ),
) -> None:
    """See everything once, on an example that comes with it.

    It recommends, trains, measures every method and answers questions for a small help desk: about ten minutes on two
    CPU cores. Then the documents change, and the questions are asked again.
    """
    from advisor.output import emit_result
    from advisor.workflows.demo import copy_example, run_demo
    from advisor.workflows.run import check_gate
    from runners.report.report_file import report_json

    with redirect_stdout(sys.stderr) if as_json else nullcontext():
        report = run_demo(out, quick, resume, overwrite) if copy is None else None
        data = report_json(report) if report else copy_example(copy or Path())
    if as_json:
        emit_result(data)
    if report:
        check_gate(report)

"""`tunewise report`: the verdict and the report of a run."""

from __future__ import annotations

from pathlib import Path

import typer

from advisor import completion
from advisor.flags import options


def command(
    run: options.Run,
    as_json: bool = typer.Option(False, "--json", help="Print the report as JSON."),
    open_page: bool = typer.Option(
        False, "--open", help="Open report.html in the browser, with --compare the page of both runs."
    ),
    compare: Path | None = typer.Option(
        None,
        autocompletion=completion.complete_runs,
        help="Another run to compare with, arm by arm, on the questions that both asked.",
    ),
) -> None:
    """Print the verdict and the scores of a finished run."""
    from advisor.display.trial_table import show_comparison, show_report
    from advisor.output import emit_result
    from advisor.report.compare_runs import compare_runs
    from advisor.report.plots.comparison_page import write_comparison
    from advisor.report.report import Report

    report = Report.read(run)
    compared = compare_runs(run, compare) if compare else None
    other = Report.read(compare) if compare else None
    page = write_comparison(run, compared, report.content, other.content) if compared and other else None
    if as_json:
        emit_result({**report.data, "compared": compared} if compared else report.data)
    else:
        show_report(report.content)
        if compared:
            show_comparison(compared)
    if page and not as_json:
        print(f"both runs in one picture and one table: {page}")
    if open_page:
        import webbrowser

        webbrowser.open((page or run / "report.html").resolve().as_uri())

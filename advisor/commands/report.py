"""`tunewise report`: the verdict and the report of a run."""

from __future__ import annotations

from pathlib import Path

import typer

from advisor import completing


def command(
    run: Path = typer.Argument(help="The run folder.", autocompletion=completing.runs),
    as_json: bool = typer.Option(False, "--json", help="Print the report as JSON."),
    open_page: bool = typer.Option(False, "--open", help="Open report.html in the browser."),
    compare: Path | None = typer.Option(
        None,
        autocompletion=completing.runs,
        help="Another run: what this one scores above it, arm by arm, on the questions that both asked.",
    ),
) -> None:
    """Print the verdict and the table of arms of a finished run."""
    from advisor.contrast import contrast
    from advisor.judgement import Report
    from advisor.margins import show_contrast
    from advisor.output import emit
    from advisor.show import show_report

    data = dict(Report.read(run).data)
    compared = contrast(run, compare) if compare else None
    if as_json:
        emit({**data, "compared": compared} if compared else data)
    else:
        show_report(data)
        if compared:
            show_contrast(compared)
    if open_page:
        import webbrowser

        webbrowser.open((run / "report.html").resolve().as_uri())

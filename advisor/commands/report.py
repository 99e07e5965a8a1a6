"""`tunewise report`: the verdict and the report of a run."""

from __future__ import annotations

from pathlib import Path

import typer


def command(
    run: Path = typer.Argument(help="The run folder."),
    as_json: bool = typer.Option(False, "--json", help="Print the report as JSON."),
    open_page: bool = typer.Option(False, "--open", help="Open report.html in the browser."),
    compare: Path | None = typer.Option(None, help="Another run, shown beside this one."),
) -> None:
    """Print the verdict and the table of arms of a finished run."""
    import json

    from advisor.results import read_report
    from advisor.show import show_comparison, show_report

    data = read_report(run)
    if as_json:
        print(json.dumps(data, ensure_ascii=False))
    else:
        show_report(data)
        if compare:
            show_comparison(data, read_report(compare))
    if open_page:
        import webbrowser

        webbrowser.open((run / "report.html").resolve().as_uri())

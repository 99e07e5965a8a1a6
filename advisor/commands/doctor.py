"""`tunewise doctor`: what this machine can do, and why not."""

from __future__ import annotations

import typer

from advisor import completing


def command(
    model: str | None = typer.Option(
        None, help="The base model to judge the methods for.", autocompletion=completing.models
    ),
    calibrate: bool = typer.Option(
        False,
        "--calibrate",
        help="Measure the matrix speed here for two seconds; estimated hours then use it.",
    ),
    as_json: bool = typer.Option(False, "--json", help="Print it as JSON."),
) -> None:
    """Show machine, packages, settings in force, models at hand, and what each method can do here."""
    from advisor.examination import examine, show

    found = examine(model, calibrate=calibrate)
    if as_json:
        from advisor.output import emit

        emit(found)
    else:
        show(found)

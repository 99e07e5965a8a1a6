"""`tunewise doctor`: what this machine can do, and why not."""

from __future__ import annotations

from pathlib import Path

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
    bundle: Path | None = typer.Option(
        None, help="Write one zip for a bug report, without secrets, paths and names, and stop."
    ),
    run: Path | None = typer.Option(
        None,
        autocompletion=completing.runs,
        help="With --bundle, the run it is about: its shape and numbers go in.",
    ),
    as_json: bool = typer.Option(False, "--json", help="Print it as JSON."),
) -> None:
    """Show machine, packages, settings in force, models at hand, and what each method can do here."""
    from advisor.examination import examine, show
    from rag.errors import UsageProblem

    if run is not None and bundle is None:
        raise UsageProblem("--run says what a bundle is about", "give --bundle FILE.zip with it")

    found = examine(model, calibrate=calibrate)
    if bundle is not None:
        from advisor.bundle import write

        count = write(bundle, run, found)
        if as_json:
            from advisor.output import emit

            emit({"schema": 1, "bundle": str(bundle), "replaced": count})
        else:
            print(
                f"wrote {bundle}; {count} private things were replaced in it. Look it through before you send it."
            )
    elif as_json:
        from advisor.output import emit

        emit(found)
    else:
        show(found)

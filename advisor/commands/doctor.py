"""`tunewise doctor`: what this machine can do, and why not."""

from __future__ import annotations

from pathlib import Path

import typer

from advisor import completion
from advisor.flags import options


def command(
    model: str | None = typer.Option(
        None, help="The base model to judge the methods for.", autocompletion=completion.complete_models
    ),
    calibrate: bool = typer.Option(
        False,
        "--calibrate",
        help="Measure this machine's speed for two seconds; estimates of hours then use it.",
    ),
    bundle: Path | None = typer.Option(
        None, help="Write one zip for a bug report, without secrets, paths and names, and stop."
    ),
    run: Path | None = typer.Option(
        None,
        autocompletion=completion.complete_runs,
        help="With --bundle, the run it is about: its shape and numbers go in.",
    ),
    as_json: options.ResultJson = False,
) -> None:
    """Show what this machine can do, and what is missing.

    Machine, packages, settings, models on this machine, and whether each method can run here.
    """
    from advisor.workflows.doctor import examine_machine, show_examination
    from rag.errors import UsageProblem

    if run is not None and bundle is None:
        raise UsageProblem("--run says what a bundle is about", "give --bundle FILE.zip with it")

    examined = examine_machine(model, calibrate=calibrate)
    if bundle is not None:
        from advisor.workflows.bug_report import write_bug_report

        replaced = write_bug_report(bundle, run, examined)
        if as_json:
            from advisor.output import emit_result

            emit_result({"schema": 1, "bundle": str(bundle), "replaced": replaced})
        else:
            print(
                f"wrote {bundle}; {replaced} private values replaced in it. Look it through before you send it."
            )
    elif as_json:
        from advisor.output import emit_result

        emit_result(examined)
    else:
        show_examination(examined)

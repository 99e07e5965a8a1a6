"""`tunewise demo`: the whole line on the shipped example, non-interactively."""

from __future__ import annotations

import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

import typer

from advisor.flags import options


def command(
    named: list[str] | None = typer.Argument(
        None,
        metavar="ALIAS=NAME",
        help="With --models: models beside the two, such as big=openai:NAME@URL, or in place of smollm or gemma.",
    ),
    models: bool = typer.Option(
        False,
        "--models",
        help="Compare models: smollm2-135m-instruct with gemma-3-270m, and those that are named, by three methods each.",
    ),
    out: Path | None = typer.Option(
        None, help="The run folder; by default runs/harbor-desk, of --models runs/harbor-desk-models."
    ),
    quick: bool = typer.Option(False, "--quick", help="Fewer questions and rows: at most five minutes."),
    resume: bool = typer.Option(False, "--resume", help="Continue after the last finished step."),
    overwrite: bool = typer.Option(
        False, "--overwrite", help="Remove the run folder that is there, and start again."
    ),
    accept_license: options.AcceptLicense = None,
    copy: Path | None = typer.Option(
        None, help="Only copy the example's files into this folder, to work with them step by step."
    ),
    as_json: bool = typer.Option(
        False, "--json", help="Print the report as JSON, and everything else to stderr."
    ),
) -> None:
    """See everything once, on an example that comes with it.

    It recommends, trains, measures every method and answers questions for a small help desk: about ten minutes on two
    CPU cores. Then the documents change, and the questions are asked again. With --models it measures fewer methods of
    several models, and the documents stay.
    """
    from advisor.output import emit_result
    from advisor.workflows.demo import copy_example, run_demo
    from advisor.workflows.demo_models import ModelsDemo, run_models_demo
    from advisor.workflows.run import check_gate
    from rag.errors import UsageProblem
    from runners.models.licenses import accept_licenses
    from runners.report.report_file import report_json

    if models and copy is not None:
        raise UsageProblem("--copy only copies the example, and --models runs it", "remove one of them")
    if named and not models:
        raise UsageProblem(f"{named[0]} names a model, which only --models compares", "add --models")
    accept_licenses(accept_license or ())
    with redirect_stdout(sys.stderr) if as_json else nullcontext():
        report = None
        if models:
            folder = out or Path("runs/harbor-desk-models")
            report = run_models_demo(
                ModelsDemo(
                    models=tuple(named or ()),
                    out=folder,
                    quick=quick,
                    resume=resume,
                    overwrite=overwrite,
                    accept_license=tuple(accept_license or ()),
                )
            )
        elif copy is None:
            report = run_demo(out or Path("runs/harbor-desk"), quick, resume, overwrite)
        data = report_json(report) if report else copy_example(copy or Path())
    if as_json:
        emit_result(data)
    if report:
        check_gate(report)

"""`tunewise demo`: the whole line on the shipped example, non-interactively."""

from __future__ import annotations

import sys
from contextlib import nullcontext, redirect_stdout

from advisor.flags.demo import DemoFlags
from advisor.flags.records import takes_flags


@takes_flags
def command(flags: DemoFlags) -> None:
    """See everything once, on an example that comes with it.

    It recommends, trains, measures every method and answers questions for a small help desk: about ten minutes on two
    CPU cores. Then the documents change, and the questions are asked again. With --models it measures fewer methods of
    several models, and the documents stay.
    """
    from advisor.output import emit_result
    from advisor.workflows.demo import copy_example, run_demo
    from advisor.workflows.demo_models import run_models_demo
    from advisor.workflows.run import check_gate
    from rag.errors import UsageProblem
    from runners.models.licenses import accept_licenses
    from runners.report.report_file import report_json

    if flags.models and flags.copy is not None:
        raise UsageProblem("--copy only copies the example, and --models runs it", "remove one of them")
    if flags.named and not flags.models:
        raise UsageProblem(f"{flags.named[0]} names a model, which only --models compares", "add --models")
    accept_licenses(flags.accept_license or ())
    with redirect_stdout(sys.stderr) if flags.as_json else nullcontext():
        report = None
        if flags.models:
            report = run_models_demo(flags)
        elif flags.copy is None:
            report = run_demo(flags.folder, flags.quick, flags.resume, flags.overwrite)
        data = report_json(report) if report else copy_example(flags.copy or flags.folder)
    if flags.as_json:
        emit_result(data)
    if report:
        check_gate(report)

"""`tunewise eval`: a finished run on other questions."""

from __future__ import annotations

from pathlib import Path

import typer

from advisor import completion
from advisor.flags import options


def command(
    run: options.Run,
    questions: Path = typer.Option(help="The questions to ask: rows as for `plan --questions`."),
    arm: list[str] = typer.Option(
        [],
        help="An arm to ask; may be repeated. All of the run's by default.",
        autocompletion=completion.complete_arms,
        show_default=False,
    ),
    out: Path | None = typer.Option(None, help="Folder for answers and scores; one in RUN/evals by default."),
    backend: options.Backend = None,
    as_json: bool = typer.Option(False, "--json", help="Print the scores as JSON."),
) -> None:
    """Score a finished run on other questions.

    For instance on next month's, or another team's. Settings are those of the trial, which is not changed. What was
    answered before is not asked again, unless the index has changed.
    """
    from advisor import output
    from advisor.display.progress import watch_progress
    from advisor.terminal import resume_hint
    from advisor.workflows.eval import report_evaluation, show_evaluation
    from runners.report.report_file import report_json
    from runners.run_folder import read_run_plan
    from runners.trial.evaluate import evaluate

    flags = [part for name in arm for part in ("--arm", name)] + (["--out", str(out)] if out else [])
    flags += [part for entry in backend or () for part in ("--backend", entry)]
    line = output.command_line("eval", run, "--questions", questions, *flags)
    with resume_hint(line, "answers"), watch_progress(as_json) as watcher:
        evaluation = evaluate(run, questions, arm, out, watcher, backend)
        plan = read_run_plan(run).model_copy(update={"backend": evaluation.backend})
        report = report_evaluation(run, plan, questions, evaluation)
    if as_json:
        output.emit_result(report_json(report))
    else:
        show_evaluation(report)

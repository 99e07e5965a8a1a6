"""`tunewise eval`: a finished run on other questions."""

from __future__ import annotations

from pathlib import Path

import typer

from advisor import completing


def command(
    run: Path = typer.Argument(help="The run folder.", autocompletion=completing.runs),
    questions: Path = typer.Option(help="The questions to ask: rows as for `plan --questions`."),
    arm: list[str] = typer.Option(
        [],
        help="An arm to ask; may be repeated. All of the run's by default.",
        autocompletion=completing.arms,
        show_default=False,
    ),
    out: Path | None = typer.Option(
        None, help="Where answers and scores are kept; a folder in RUN/evals by default."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the scores as JSON."),
) -> None:
    """Score a finished run on other questions: next month's, or another team's.

    Everything is as in the trial, which stays as it is. What was answered before is not asked again, unless the index
    has changed.
    """
    from advisor import output
    from advisor.ending import resumable
    from advisor.evaluated import evaluation_json, show_evaluation
    from advisor.progress import watching
    from runners.evaluation import evaluate
    from runners.rundir import read_run_plan

    flags = [part for name in arm for part in ("--arm", name)] + (["--out", str(out)] if out else [])
    line = output.command("eval", run, "--questions", questions, *flags)
    with resumable(line, "answers"), watching(as_json) as watcher:
        found = evaluate(run, questions, arm, out, watcher)
        data = evaluation_json(run, read_run_plan(run), questions, found)
    if as_json:
        output.emit(data)
    else:
        show_evaluation(data)

"""`tunewise ask`: one answer from a finished run."""

from __future__ import annotations

from pathlib import Path

import typer

from advisor import completing


def command(
    run: Path = typer.Argument(help="The run folder.", autocompletion=completing.runs),
    question: str = typer.Argument(help="The question."),
    arm: str | None = typer.Option(
        None, help="Another arm than the one the verdict chose.", autocompletion=completing.arms
    ),
    model: Path | None = typer.Option(
        None, help="The folder of the run's base, where it lies elsewhere now; other weights are refused."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the answer as JSON."),
) -> None:
    """Answer a question with citations that name file and line; says so when the documents do not hold the answer."""
    from advisor.live import show_as_made
    from advisor.output import emit
    from advisor.telling import tell
    from runners.opened import load

    opened = load(run, tell, model)
    if as_json:
        answer = opened.ask(question, arm)
        emit(answer.reply_json(answer.arm), ascii=True)
    else:
        show_as_made(opened.stream(question, arm), opened.arm(arm).arm)

"""`tunewise ask`: one answer from a finished run."""

from __future__ import annotations

from pathlib import Path

import typer

from advisor import completion
from advisor.commands import backend_option


def command(
    run: Path = typer.Argument(help="The run folder.", autocompletion=completion.complete_runs),
    question: str = typer.Argument(help="The question."),
    arm: str | None = typer.Option(
        None,
        help="Another arm than the one the verdict says to use.",
        autocompletion=completion.complete_arms,
    ),
    model: Path | None = typer.Option(
        None, help="The folder of the run's base, where it lies elsewhere now; other weights are refused."
    ),
    backend: backend_option.BackendOption = None,
    as_json: bool = typer.Option(False, "--json", help="Print the answer as JSON."),
) -> None:
    """Answer a question with citations that name file and line; says so when the documents do not hold the answer."""
    from advisor.display.answer_view import show_streaming
    from advisor.display.events import print_event
    from advisor.output import emit_result
    from runners.runs.run import load

    loaded = load(run, print_event, model, backend_option.backend_entries(backend))
    if as_json:
        answer = loaded.ask(question, arm)
        emit_result(answer.reply_json(answer.arm), ascii=True)
    else:
        show_streaming(loaded.stream(question, arm), loaded.arm(arm).arm)

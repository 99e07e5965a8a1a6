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
        help="Answer with this arm (method) in place of the one the verdict chose.",
        autocompletion=completion.complete_arms,
    ),
    model: Path | None = typer.Option(
        None, help="Folder of the run's base model, if it has moved; other weights are refused."
    ),
    backend: backend_option.BackendOption = None,
    as_json: bool = typer.Option(False, "--json", help="Print the answer as JSON."),
) -> None:
    """Answer a question from a finished run, with its sources.

    Citations name file and line. Where the documents do not have the answer, it says so.
    """
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

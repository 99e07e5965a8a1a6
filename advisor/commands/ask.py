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
    server: bool = typer.Option(
        True,
        "--server/--no-server",
        help="Ask a server of this machine that has the run loaded (tunewise serve), where there is one.",
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the answer as JSON."),
) -> None:
    """Answer a question from a finished run, with its sources.

    Citations name file and line. Where the documents do not have the answer, it says so.

    Where `tunewise serve` has the same run loaded on this machine, that server is asked, which takes no time for loading.
    """
    from advisor.workflows.ask import answer_question

    answer_question(run, question, arm, as_json, model, backend_option.backend_entries(backend), server)

"""`tunewise chat`: a conversation with a finished run."""

from __future__ import annotations

from pathlib import Path

import typer

from advisor import completion
from advisor.commands import backend_option


def command(
    run: Path = typer.Argument(help="The run folder.", autocompletion=completion.complete_runs),
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
    as_json: bool = typer.Option(False, "--json", help="Print each answer as a line of JSON."),
) -> None:
    """Ask a finished run one question after another.

    A follow-up question is completed from the one before it. Questions are read from the terminal, or one per line
    from standard input. An empty line or /quit ends it.
    """
    from advisor.workflows.chat import converse

    converse(run, arm, as_json, model, backend_option.backend_entries(backend), server)

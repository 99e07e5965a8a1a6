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
        help="Another arm than the one the verdict says to use.",
        autocompletion=completion.complete_arms,
    ),
    model: Path | None = typer.Option(
        None, help="The folder of the run's base, where it lies elsewhere now; other weights are refused."
    ),
    backend: backend_option.BackendOption = None,
    server: bool = typer.Option(
        True,
        "--server/--no-server",
        help="Ask a server of this machine that has the run loaded (tunewise serve), where there is one.",
    ),
    as_json: bool = typer.Option(False, "--json", help="Print each answer as a line of JSON."),
) -> None:
    """Ask one question after another; follow-ups are turned into questions that stand alone.

    Reads questions from the terminal, or one per line from standard input. An empty line or /quit ends it.
    """
    from advisor.workflows.chat import converse

    converse(run, arm, as_json, model, backend_option.backend_entries(backend), server)

"""`tunewise chat`: a conversation with a finished run."""

from __future__ import annotations

import typer

from advisor.flags import options


def command(
    run: options.Run,
    arm: options.Arm = None,
    model: options.MovedModel = None,
    backend: options.Backend = None,
    server: options.Server = True,
    check: options.Check = None,
    as_json: bool = typer.Option(False, "--json", help="Print each answer as a line of JSON."),
) -> None:
    """Ask a finished run one question after another.

    A follow-up question is completed from the one before it. Questions are read from the terminal, or one per line
    from standard input. An empty line or /quit ends it.
    """
    from advisor.workflows.ask import AskOptions
    from advisor.workflows.chat import converse

    asked = AskOptions(arm=arm, as_json=as_json, model=model, backend=backend, server=server, check=check)
    converse(run, asked)

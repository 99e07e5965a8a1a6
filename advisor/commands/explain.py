"""`tunewise explain [RULE | PLAN | METHOD]`: why, with the evidence and what would flip it."""

from __future__ import annotations

import typer

from advisor import completion


def command(
    what: str | None = typer.Argument(
        None,
        autocompletion=completion.complete_explained,
        help="A rule (KN002), a method (hybrid) or a plan file; none lists all.",
    ),
    as_json: bool = typer.Option(False, "--json", help="Print it as JSON."),
) -> None:
    """Explain a rule, a method or a plan; without an argument, list everything that can be explained."""
    from advisor.workflows.explain import explain_topic

    explain_topic(what, as_json)

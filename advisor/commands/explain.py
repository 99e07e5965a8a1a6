"""`tunewise explain [WORD | RULE | PLAN | METHOD]`: what it means, why, with the evidence and what would flip it."""

from __future__ import annotations

import typer

from advisor import completion
from advisor.flags import options


def command(
    what: str | None = typer.Argument(
        None,
        autocompletion=completion.complete_explained,
        help="A word (RAG), a rule (KN002), a method (hybrid), a question (must_cite) or a plan; without it, a list of all.",
    ),
    as_json: options.ResultJson = False,
) -> None:
    """Explain a word, a rule, a method, a question or a plan."""
    from advisor.workflows.explain import explain_topic

    explain_topic(what, as_json)

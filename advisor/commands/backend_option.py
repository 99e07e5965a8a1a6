"""The option ``--backend`` of the verbs that generate answers; imported at start, so nothing heavy."""

from __future__ import annotations

from typing import Annotated

import typer

BackendOption = Annotated[
    list[str] | None,
    typer.Option(
        "--backend",
        help="Server that generates the answers: openai:NAME@URL[,URL...], or ARM=openai:NAME@URL for one arm; repeatable. "
        "local: this process. Default: what the run was measured with.",
    ),
]


def backend_entries(backend: list[str] | None) -> tuple[str, ...] | None:
    """Return the values of the option; None where it was not given."""
    return tuple(backend) if backend else None

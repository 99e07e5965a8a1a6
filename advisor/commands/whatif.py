"""`tunewise whatif PLAN --set key=value`: the recommendation after a change, as a diff."""

from __future__ import annotations

from pathlib import Path

import typer

from advisor import completing


def command(
    plan: Path = typer.Argument(help="A plan, or an answers file.", autocompletion=completing.plans),
    set: list[str] = typer.Option(
        ..., help="The change: key=value; repeatable.", autocompletion=completing.answers
    ),
    as_json: bool = typer.Option(False, "--json", help="Print both recommendations as JSON."),
) -> None:
    """Show what the recommendation would be after a change; nothing is written."""
    from advisor.answers import Answers
    from advisor.gather import with_file
    from advisor.output import emit
    from advisor.planning import rethink

    before, after = rethink(with_file(Answers(), plan), tuple(set))
    if as_json:
        emit({"schema": 1, "changed": list(set), "before": before.to_json(), "after": after.to_json()})
        return
    from advisor import render

    render.console().print(render.difference(before, after, ", ".join(set)))

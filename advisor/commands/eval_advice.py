"""`tunewise eval-advice CASES`: score the advice on published cases."""

from __future__ import annotations

from pathlib import Path

import typer


def command(
    cases: Path = typer.Argument(..., help="A file of cases: situations with the method that won in each."),
    as_json: bool = typer.Option(False, "--json", help="Print it as JSON."),
) -> None:
    """Score the advice on a file of published cases: accepted, exact, who was mistaken for whom, each miss."""
    from advisor.cases import read_cases, score, to_json

    found = to_json(score(read_cases(cases)))
    if as_json:
        from advisor.output import emit

        emit(found)
        return
    from advisor import render

    render.console().print(render.case_scores(found))

"""`tunewise eval-advice CASES`: score the advice on published cases."""

from __future__ import annotations

from pathlib import Path

import typer

from advisor.flags import options


def command(
    cases: Path = typer.Argument(..., help="A file of cases: situations with the method that won in each."),
    as_json: options.ResultJson = False,
) -> None:
    """Score the advice itself on a file of published cases.

    It prints how often the advice was accepted or exact, beside a rule of thumb, the best constant method and the best
    ranked of the methods that the sources compared; which methods were mistaken for which, and each miss.
    """
    from benchmarks.scorers.advice_cases import cases_json, read_cases, render_case_scores, score_cases

    scores = cases_json(score_cases(read_cases(cases)))
    if as_json:
        from advisor.output import emit_result

        emit_result(scores)
        return
    from advisor.display import console

    console.console().print(render_case_scores(scores))

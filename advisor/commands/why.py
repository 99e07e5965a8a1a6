"""`tunewise why`: the cause of each wrong answer."""

from __future__ import annotations

import typer

from advisor import completion
from advisor.flags import options


def command(
    run: options.Run,
    arm: str | None = typer.Option(
        None,
        help="The arm whose wrong answers are looked at; by default the one to use.",
        autocompletion=completion.complete_arms,
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the causes as JSON."),
) -> None:
    """Find the cause of each wrong answer of an arm.

    Wrong answers are asked again with the passage that holds the gold answer, at most once each. The causes are kept in the
    run and shown in its report.
    """
    from advisor.output import emit_result
    from advisor.workflows.why import explain_failures, show_failures

    failures = explain_failures(run, arm, as_json)
    emit_result(failures.to_json()) if as_json else show_failures(failures, run)

"""`tunewise whatif PLAN --set key=value`: the recommendation after a change, as a diff."""

from __future__ import annotations

from pathlib import Path

import typer

from advisor import completion


def command(
    plan: Path = typer.Argument(help="A plan, or an answers file.", autocompletion=completion.complete_plans),
    set: list[str] = typer.Option(
        ..., help="The change: key=value; repeatable.", autocompletion=completion.complete_answers
    ),
    as_json: bool = typer.Option(False, "--json", help="Print both recommendations as JSON."),
) -> None:
    """Show how a changed answer would change the advice.

    Nothing is written.
    """
    from advisor.output import emit_result
    from advisor.questionnaire.answers import Answers
    from advisor.questionnaire.gather import with_answers_of
    from advisor.workflows.whatif import recommend_after_change, show_change

    before, after = recommend_after_change(with_answers_of(Answers(), plan), tuple(set))
    if as_json:
        emit_result({"schema": 1, "changed": list(set), "before": before.to_json(), "after": after.to_json()})
        return
    show_change(before, after, ", ".join(set))

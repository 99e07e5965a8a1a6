"""`tunewise ask`: one answer from a finished run."""

from __future__ import annotations

import typer

from advisor.flags import options


def command(
    run: options.Run,
    question: str = typer.Argument(help="The question."),
    arm: options.Arm = None,
    model: options.MovedModel = None,
    backend: options.Backend = None,
    server: options.Server = True,
    check: options.Check = None,
    as_json: bool = typer.Option(False, "--json", help="Print the answer as JSON."),
) -> None:
    """Answer a question from a finished run, with its sources.

    Citations name file and line. Where the documents do not have the answer, it says so.

    Where `tunewise serve` has the same run loaded on this machine, that server is asked, which takes no time for loading.
    """
    from advisor.workflows.ask import AskOptions, answer_question

    asked = AskOptions(arm=arm, as_json=as_json, model=model, backend=backend, server=server, check=check)
    answer_question(run, question, asked)

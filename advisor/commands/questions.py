"""`tunewise questions`: test questions from logs of what people asked."""

from __future__ import annotations

from pathlib import Path

import typer

from advisor.flags import options
from advisor.flags.questions import ImportFlags
from advisor.flags.records import takes_flags

group = typer.Typer(help="Take test questions from a log of what people asked.")


@group.command("import")
@takes_flags
def import_questions(flags: ImportFlags) -> None:
    """Take questions from a log as often as they are asked, and write them without answers.

    Personal data is masked, repeats are joined with their counts, greetings are left out, and follow-ups keep the
    turns they need. Questions are clustered by meaning, and drawn by how often they are asked, with one of every
    cluster at least. Each row's `weight` says how many questions of the log it stands for; verdict, report and eval
    weigh by it. What is masked is shown before anything is written.
    """
    from advisor.workflows.questions import import_log

    import_log(flags)


@group.command("forget")
def forget(
    file: Path = typer.Argument(
        help="A log of tunewise serve, or any file of JSON lines; rotated files go with it."
    ),
    text: str = typer.Argument(
        help="Text of the rows to remove, such as a name; upper and lower case are the same."
    ),
    as_json: options.Json = False,
) -> None:
    """Remove every row that contains a text from a log and its rotated files.

    Each file is replaced whole or not at all, also while a server writes into it.
    """
    from advisor.workflows.questions import forget_text

    forget_text(file, text, as_json)

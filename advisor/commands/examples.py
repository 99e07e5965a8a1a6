"""`tunewise examples`: rows for tuning and questions for testing, made from documents."""

from __future__ import annotations

import typer

from advisor.flags.examples import MakeFlags
from advisor.flags.records import takes_flags

group = typer.Typer(help="Make examples and test questions from your documents.")


@group.command("make")
@takes_flags
def make(flags: MakeFlags) -> None:
    """Make examples or questions from documents, and keep only those that pass every check.

    A row is kept if its passage supports its reply, retrieval finds that passage for its question, it repeats no other row
    and no held-out question, and it is one question in the right language. Each row names its document, its teacher and
    what was checked, and is marked made: a verdict never rests on made questions alone.
    """
    from advisor.workflows.examples_make import make_rows

    make_rows(flags)

"""`tunewise label`: people grade the answers of a run and write gold into its questions."""

from __future__ import annotations

from advisor.flags.label import LabelFlags
from advisor.flags.records import takes_flags


@takes_flags
def command(flags: LabelFlags) -> None:
    """Grade the answers of a run, and write gold for its questions.

    A page opens on this machine (--terminal: the same here, by keys). Which question comes next is a random draw in
    which those that decide most come early, so that few labels are enough; from 20 labels on it is said how many more
    decide two methods, and at the end which is better. Every label is on the disk at once, and can be undone. Gold that
    you write goes into QUESTIONS at the end, after you agreed.
    """
    from advisor.workflows.label import label_answers

    label_answers(flags)

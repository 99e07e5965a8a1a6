"""Rows made from documents: how many of the user's own are, and the command that makes some where there are none."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from advisor.questionnaire.profile import Profile
from rag.text.words import count_noun
from runners.data.examples import Example
from runners.data.questions import Question

EXAMPLES_OUT, QUESTIONS_OUT = "made-examples.jsonl", "made-questions.jsonl"
"""Files that the commands name."""


def making_offer(profile: Profile, key: str) -> str:
    """Return the offer to make examples or questions from the documents, "" where they are there or cannot be made.

    Args:
        profile: the situation.
        key: "examples" or "questions".
    """
    if not profile.documents or getattr(profile, key) or Path(profile.documents).suffix in (".yaml", ".yml"):
        return ""
    documents = shlex.quote(str(profile.documents))
    if key == "examples":
        held_out = f" --questions {shlex.quote(str(profile.questions))}" if profile.questions else ""
        return (
            "examples can be made from the documents by a teacher, each one checked: tunewise examples make "
            f"--documents {documents} --teacher openai:NAME@URL{held_out} --out {EXAMPLES_OUT}"
        )
    return (
        "questions for a first trial can be made from the documents, marked as made: tunewise examples make "
        f"--documents {documents} --as questions --out {QUESTIONS_OUT}"
    )


def made_warnings(examples: Sequence[Example], questions: Sequence[Question]) -> list[str]:
    """Return a sentence for each file with rows that were made from documents."""
    rows, asked = sum(row.is_made for row in examples), sum(question.made for question in questions)
    lines = []
    if rows:
        lines.append(
            f"{rows} of {count_noun(len(examples), 'example')} were made from documents: read some of them"
        )
    if asked:
        counted = count_noun(len(questions), "question")
        lines.append(
            f"all {counted} were made from documents: no person asked them, so a verdict on them confirms nothing"
            if asked == len(questions)
            else f"{asked} of {counted} were made from documents: the verdict is by the others"
        )
    return lines

"""What is known of a situation and from where, and what is not."""

from __future__ import annotations

from advisor.answers import Answers
from advisor.branching import worth_asking
from advisor.questions import QUESTIONS
from advisor.values import say

SOURCES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("you said", ("asked", "flag", "file")),
    ("your settings", ("config",)),
    ("measured", ("probed", "counted")),
    ("this machine", ("detected",)),
    ("by default", ("default",)),
)
"""The words for where answers come from, in the order they are shown."""


def known(answers: Answers) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return for each kind of source its answers as "id value"; sources without any are left out."""
    rows = []
    for title, sources in SOURCES:
        mine = [key for key in answers if answers[key].source in sources and _tells(answers, key)]
        if mine:
            rows.append((title, tuple(f"{key} {say(answers[key].value, 24)}" for key in mine)))
    return tuple(rows)


def unknown(answers: Answers) -> tuple[str, ...]:
    """Return the ids that could still matter and have no answer, in the questionnaire's order."""
    values = answers.values_known
    return tuple(
        question.id for question in QUESTIONS
        if values.get(question.id) is None and worth_asking(question, values, True)
        and question.id not in ("goal", "prompt", "questions")
    )  # fmt: skip


def _tells(answers: Answers, key: str) -> bool:
    """Leave out unknowns, and the numbers of a GPU that is not there."""
    no_gpu = "gpu_kind" in answers and answers["gpu_kind"].value == "none"
    return answers[key].value is not None and not (no_gpu and key in ("gpu_count", "gpu_memory_gib"))

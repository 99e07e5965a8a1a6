"""Refuses held-out questions that training rows or instructions give away (found by :mod:`runners.leaks`).

The same question, in the same or other spelling, the same fact of the same document, and a question in the
instructions stop the run before anything is spent. Near repeats do too, unless the plan leaves them out of the
trial. Another fact of a document that rows are about is no leak: it is counted and reported.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from runners import leaks
from runners.data import Question
from runners.example import Example
from runners.leaks import EXACT, IN_PROMPT, NEAR, NORMALISED, SAME_DOCUMENT, SAME_FACT, Leak
from runners.plan import Plan

SHOWN = 3


@dataclass(frozen=True, slots=True)
class Guarded:
    """The questions of a file that may be asked, and the near repeats among them that may not."""

    questions: tuple[Question, ...]
    left_out: tuple[Leak, ...] = ()

    def event(self, place: Path) -> dict[str, Any]:
        """Return the event that reports the questions that are left out."""
        rows = [f"{leak.held_out} = {leak.row}" for leak in self.left_out[:SHOWN]]
        return {"event": "questions.left_out", "file": str(place), "near": len(self.left_out), "rows": rows}


def guard(plan: Plan, rows: Sequence[Example], asked: Sequence[Question], place: Path) -> Guarded:
    """Return the questions of a plan's file that may be asked.

    Raises BadInput, naming rows, as :func:`part` does, and for near repeats when the plan does not leave them out.
    """
    guarded = part(rows, asked, plan.prompts.system, place)
    if plan.data.near_repeats == "refuse":
        _refuse(
            [f"question line {leak.held_out} = example line {leak.row}" for leak in guarded.left_out],
            f"{place}: {{count}} held-out questions nearly repeat examples ({{rows}})",
            "take them out of one of the two files, or leave them out of the trial: near_repeats: leave_out under data",
        )
    return guarded


def part(
    rows: Sequence[Example], asked: Sequence[Question], prompt: str, place: Path, examples: Path | None = None
) -> Guarded:
    """Part the questions into those that may be asked and those that nearly repeat a training row.

    Raises BadInput, naming rows of ``place``, when questions occur in the rows, share a row's fact of the same
    document, or occur in the instructions (``prompt`` and the rows' system turns). With the file of the
    ``examples``, rows are named as FILE:LINE.
    """

    def named(leak: Leak) -> str:
        if examples is None:
            return f"question line {leak.held_out} = example line {leak.row}"
        row = examples / leak.row if isinstance(leak.row, str) else f"{examples}:{leak.row}"
        return f"{place}:{leak.held_out} = {row}"

    every = leaks.find_all(rows, asked, prompt)
    _refuse(
        [named(leak) for leak in _first(every, EXACT, NORMALISED, SAME_FACT)],
        f"{place}: {{count}} held-out questions also occur in the examples ({{rows}})",
        "take them out of one of the two files: measured on training rows, every tuned arm looks good",
    )
    shown = _first(every, IN_PROMPT)
    _refuse(
        [f"question line {leak.held_out}" for leak in shown if leak.row == leaks.PROMPT],
        f"{place}: {{count}} held-out questions stand in the instructions, prompts.system ({{rows}})",
        "take them out of one of the two: every arm would be shown them",
    )
    _refuse(
        [named(leak) for leak in shown],
        f"{place}: {{count}} held-out questions occur in the system turns of examples ({{rows}})",
        "take them out of one of the two: a tuned arm would have been shown them",
    )
    near = _first(every, NEAR)
    lines = {leak.held_out for leak in near}
    return Guarded(tuple(q for q in asked if q.line not in lines), tuple(near))


def count(plan: Plan, rows: Sequence[Example], asked: Sequence[Question], left_out: int) -> dict[str, Any]:
    """Return how many questions are tied to the rows and how, each counted once, by its gravest tie.

    ``left_out`` questions were withheld from the trial as near repeats; ``withheld`` says whether scores are.
    """
    found = Counter(leak.kind for leak in leaks.find(rows, asked, plan.prompts.system))
    counted = {
        "exact": found[EXACT],
        "normalised": found[NORMALISED],
        "near": found[NEAR],
        "same_fact": found[SAME_FACT],
        "in_prompt": found[IN_PROMPT],
    }
    return {
        **counted,
        "same_document": found[SAME_DOCUMENT],
        "left_out": left_out,
        "withheld": any(counted.values()),
        "questions": len(asked),
        "rows": len(rows),
    }


def _first(every: Sequence[Sequence[Leak]], *kinds: str) -> list[Leak]:
    """Return the gravest leak of these kinds of each question that has one."""
    of_kinds = ([leak for leak in one if leak.kind in kinds] for one in every)
    return [one[0] for one in of_kinds if one]


def _refuse(rows: Sequence[str], what: str, todo: str) -> None:
    if rows:
        more = f"; and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
        raise BadInput(what.format(count=len(rows), rows="; ".join(rows[:SHOWN]) + more), todo)

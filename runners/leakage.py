"""No question is measured that training rows, shown examples or the instructions give away.

The same question, in the same or other spelling, and the same fact of the same document stop the run before anything
is spent. Near repeats do too, unless the plan leaves them out of the trial. Another fact of a document that rows are
about is no leak: it is counted and said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from runners import leaks
from runners.data import Question, normalised, overlap
from runners.example import Example
from runners.plan import Plan

LEAST_WORDS = 4
"""Words from which on a question that stands in the instructions is no coincidence."""
SHOWN = 3
EXACT, NORMALISED, NEAR, FACT, DOCUMENT = leaks.KINDS


@dataclass(frozen=True, slots=True)
class Guarded:
    """The questions of a file that may be asked, and the near repeats among them that may not."""

    questions: tuple[Question, ...]
    left_out: tuple[leaks.Leak, ...] = ()

    def event(self, place: Path) -> dict[str, Any]:
        """Return what is told of the questions that are left out."""
        rows = [f"{leak.held_out} = {leak.row}" for leak in self.left_out[:SHOWN]]
        return {"event": "questions.left_out", "file": str(place), "near": len(self.left_out), "rows": rows}


def guard(plan: Plan, rows: Sequence[Example], asked: Sequence[Question], place: Path) -> Guarded:
    """Return the questions that nothing gives away; BadInput, naming rows, when the plan does not let others go."""
    _refuse(
        [f"question line {o.question_line} = example line {o.example_line}" for o in overlap(rows, asked)],
        f"{place}: {{count}} held-out questions also occur in the examples ({{rows}})",
        "take them out of one of the two files: measured on training rows, every tuned arm looks good",
    )
    _refuse(
        [f"question line {q.line}" for q in in_instructions(plan, asked)],
        f"{place}: {{count}} held-out questions stand in the instructions, prompts.system ({{rows}})",
        "take them out of one of the two: every arm would be shown them",
    )
    near = [leak for leak in leaks.find(rows, asked) if leak.kind in (NORMALISED, EXACT, NEAR)]
    if plan.data.near_repeats == "refuse":
        _refuse(
            [f"question line {leak.held_out} = example line {leak.row}" for leak in near],
            f"{place}: {{count}} held-out questions nearly repeat examples ({{rows}})",
            "take them out of one of the two files, or leave them out of the trial: near_repeats: leave_out under data",
        )
    lines = {leak.held_out for leak in near}
    return Guarded(tuple(q for q in asked if q.line not in lines), tuple(near))


def in_instructions(plan: Plan, asked: Sequence[Question]) -> list[Question]:
    """Return the questions that the plan's instructions hold word for word, whatever the case and punctuation."""
    said = f" {normalised(plan.prompts.system)} "
    wanted = ((q, normalised(q.question)) for q in asked)
    return [q for q, words in wanted if len(words.split()) >= LEAST_WORDS and f" {words} " in said]


def count(plan: Plan, rows: Sequence[Example], asked: Sequence[Question], left_out: int) -> dict[str, Any]:
    """Return how the questions that are measured stand to the rows, each counted once, by its gravest tie.

    ``left_out`` questions were withheld from the trial as near repeats; ``withheld`` says whether scores are.
    """
    found = Counter(leak.kind for leak in leaks.find(rows, asked))
    counted = {
        "exact": found[EXACT], "normalised": found[NORMALISED], "near": found[NEAR], "same_fact": found[FACT],
        "in_prompt": len(in_instructions(plan, asked)),
    }  # fmt: skip
    return {
        **counted,
        "same_document": found[DOCUMENT],
        "left_out": left_out,
        "withheld": any(counted.values()),
        "questions": len(asked),
        "rows": len(rows),
    }


def _refuse(rows: Sequence[str], what: str, todo: str) -> None:
    if rows:
        more = f"; and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
        raise BadInput(what.format(count=len(rows), rows="; ".join(rows[:SHOWN]) + more), todo)

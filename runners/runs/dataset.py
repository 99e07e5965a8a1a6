"""The data of a plan: its examples, and its questions split into dev and test, checked against each other.

Refuses held-out questions that training rows or instructions give away (found by :mod:`runners.data.leakage`).

The same question, in the same or other spelling, the same fact of the same document, and a question in the
instructions stop the run before anything is spent. Near repeats do too, unless the plan leaves them out of the
trial. Another fact of a document that rows are about is no leak: it is counted and reported.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from rag.types import OnEvent
from runners.data import leakage
from runners.data.examples import Example, ExampleSet, load_examples
from runners.data.leakage import (
    EXACT_MATCH,
    IN_PROMPT,
    NEAR_REPEAT,
    NORMALISED_MATCH,
    SAME_DOCUMENT,
    SAME_FACT,
    Leak,
)
from runners.data.questions import Question, load_questions
from runners.data.sampling import QuestionSplit, split_questions
from runners.plan.schema import Plan
from runners.runs import requirements

MAX_LEAKS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class GuardedQuestions:
    """The questions of a file that may be asked, and the near repeats among them that may not."""

    questions: tuple[Question, ...]
    left_out: tuple[Leak, ...] = ()

    def event(self, place: Path) -> dict[str, Any]:
        """Return the event that reports the questions that are left out."""
        rows = [f"{leak.held_out} = {leak.row}" for leak in self.left_out[:MAX_LEAKS_SHOWN]]
        return {"event": "questions.left_out", "file": str(place), "near": len(self.left_out), "rows": rows}


def guard_questions(
    plan: Plan, rows: Sequence[Example], asked: Sequence[Question], place: Path
) -> GuardedQuestions:
    """Return the questions of a plan's file that may be asked.

    Raises BadInput, naming rows, as :func:`part` does, and for near repeats when the plan does not leave them out.
    """
    guarded = partition_questions(rows, asked, plan.prompts.system, place)
    if plan.data.near_repeats == "refuse":
        _refuse(
            [f"question line {leak.held_out} = example line {leak.row}" for leak in guarded.left_out],
            f"{place}: {{count}} held-out questions nearly repeat examples ({{rows}})",
            "take them out of one of the two files, or leave them out of the trial: near_repeats: leave_out under data",
        )
    return guarded


def partition_questions(
    rows: Sequence[Example], asked: Sequence[Question], prompt: str, place: Path, examples: Path | None = None
) -> GuardedQuestions:
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

    every = leakage.find_all_leaks(rows, asked, prompt)
    _refuse(
        [named(leak) for leak in _first(every, EXACT_MATCH, NORMALISED_MATCH, SAME_FACT)],
        f"{place}: {{count}} held-out questions also occur in the examples ({{rows}})",
        "take them out of one of the two files: measured on training rows, every tuned arm looks good",
    )
    shown = _first(every, IN_PROMPT)
    _refuse(
        [f"question line {leak.held_out}" for leak in shown if leak.row == leakage.PROMPT_PLACE],
        f"{place}: {{count}} held-out questions stand in the instructions, prompts.system ({{rows}})",
        "take them out of one of the two: every arm would be shown them",
    )
    _refuse(
        [named(leak) for leak in shown],
        f"{place}: {{count}} held-out questions occur in the system turns of examples ({{rows}})",
        "take them out of one of the two: a tuned arm would have been shown them",
    )
    near = _first(every, NEAR_REPEAT)
    lines = {leak.held_out for leak in near}
    return GuardedQuestions(tuple(q for q in asked if q.line not in lines), tuple(near))


def count_leaks(
    plan: Plan, rows: Sequence[Example], asked: Sequence[Question], left_out: int
) -> dict[str, Any]:
    """Return how many questions are tied to the rows and how, each counted once, by its gravest tie.

    ``left_out`` questions were withheld from the trial as near repeats; ``withheld`` says whether scores are.
    """
    found = Counter(leak.kind for leak in leakage.find_leaks(rows, asked, plan.prompts.system))
    counted = {
        "exact": found[EXACT_MATCH],
        "normalised": found[NORMALISED_MATCH],
        "near": found[NEAR_REPEAT],
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
        more = f"; and {len(rows) - MAX_LEAKS_SHOWN} more" if len(rows) > MAX_LEAKS_SHOWN else ""
        raise BadInput(what.format(count=len(rows), rows="; ".join(rows[:MAX_LEAKS_SHOWN]) + more), todo)


def read_data(plan: Plan, on_event: OnEvent | None = None) -> tuple[tuple[Example, ...], QuestionSplit]:
    """Read and check all data of a plan; rows and questions that are left out are told.

    Raises BadInput when a file is missing or broken, or when test questions are among the training rows.
    """
    return read_guarded(plan, on_event)[:2]


def read_examples(plan: Plan, on_event: OnEvent | None = None) -> tuple[Example, ...]:
    """Read a plan's examples, as many as it takes; () for a plan without, BadInput for a missing or broken file."""
    if not plan.data.examples:
        return ()
    loaded: ExampleSet = load_examples(plan.data.examples, plan.data.columns)
    if on_event:
        _tell_read(loaded, plan.data.examples, on_event)
    return _draw_examples(loaded.rows, plan.data.max_examples, plan.seed)


def read_guarded(
    plan: Plan, on_event: OnEvent | None = None
) -> tuple[tuple[Example, ...], QuestionSplit, int]:
    """Do as :func:`read_data`, and count the questions that are not asked because they nearly repeat rows."""
    requirements.require_plan_documents(plan)
    examples = read_examples(plan, on_event)
    questions: tuple[Question, ...] = ()
    if plan.data.questions:
        questions = load_questions(plan.data.questions)
    own_test = load_questions(plan.data.test_questions) if plan.data.test_questions else ()
    questions, first = _guarded(plan, examples, questions, plan.data.questions, on_event)
    own_test, second = _guarded(plan, examples, own_test, plan.data.test_questions, on_event)
    split = split_questions(
        questions, plan.data.dev_share, plan.seed, own_test, plan.data.max_dev, plan.data.max_test
    )
    if plan.arms and not split.test:
        raise BadInput(
            "the plan measures arms, but there are no test questions", "give questions to the plan"
        )
    return examples, split, first + second


def _guarded(
    plan: Plan,
    examples: tuple[Example, ...],
    asked: tuple[Question, ...],
    place: Path | None,
    on_event: OnEvent | None,
) -> tuple[tuple[Question, ...], int]:
    """Return the questions that may be asked, and how many may not."""
    if place is None:
        return asked, 0
    found = guard_questions(plan, examples, asked, place)
    if on_event and found.left_out:
        on_event(found.event(place))
    return found.questions, len(found.left_out)


def _tell_read(loaded: ExampleSet, path: Path, on_event: Callable[[dict[str, Any]], None]) -> None:
    """Tell how the examples were understood, and everything of them that is left out."""
    understood = {"rows": len(loaded.rows), "format": loaded.format, "columns": dict(loaded.columns)}
    on_event({"event": "examples.read", "file": str(path), **understood, "notes": list(loaded.notes)})
    for skipped in loaded.skipped:
        on_event({"event": "file.skipped", "file": skipped.file, "reason": skipped.reason})
    for row in loaded.rejected:
        place = path / row.file if path.is_dir() else path
        on_event({"event": "row.rejected", "file": str(place), "line": row.line, "reason": row.reason})


def _draw_examples(rows: tuple[Example, ...], most: int | None, seed: int) -> tuple[Example, ...]:
    if most is None or most >= len(rows):
        return rows
    kept = sorted(random.Random(seed).sample(range(len(rows)), most))
    return tuple(rows[i] for i in kept)

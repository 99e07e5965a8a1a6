"""The data of a plan: its examples, and its questions split into dev and test, checked against each other."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from rag.types import OnEvent
from runners import leakage, require
from runners.data import Example, ExampleSet, Question, load_examples, load_questions
from runners.plan import Plan
from runners.split import Split, split_questions


def read_data(plan: Plan, on_event: OnEvent | None = None) -> tuple[tuple[Example, ...], Split]:
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


def read_guarded(plan: Plan, on_event: OnEvent | None = None) -> tuple[tuple[Example, ...], Split, int]:
    """Do as :func:`read_data`, and count the questions that are not asked because they nearly repeat rows."""
    require.documents(plan)
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
    found = leakage.guard(plan, examples, asked, place)
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

"""The data of a plan: examples, and questions split into dev and test, checked against each other.

:func:`read_data` reads everything. A run is refused before anything is spent when a held-out question occurs
in the training rows (exactly or in other spelling), asks for the same fact of the same document, or occurs in
the instructions (:mod:`runners.data.leakage` finds these). Near repeats are refused too, unless the plan
leaves them out of the trial. Another fact of a document that training rows are about is no leak: it is
counted and reported.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from rag.evaluation.gold_documents import match_documents, require_match
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
from runners.data.questions import (
    Question,
    count_questions,
    load_questions,
    read_question_file,
    with_document_ids,
)
from runners.data.sampling import QuestionSplit, split_questions
from runners.made_from import data_files
from runners.plan.schema import Plan
from runners.runs import requirements

MAX_LEAKS_SHOWN = 3
MIN_TEST_QUESTIONS = 2
"""Fewest test questions of a trial: with one, arms cannot be compared, as an interval needs two."""
MIN_QUESTIONS = 3
"""Fewest questions of a file that is divided into dev and test by the default shares to leave so many."""


@dataclass(frozen=True, slots=True)
class GuardedQuestions:
    """The questions of a file that may be asked, and the near repeats that may not."""

    questions: tuple[Question, ...]
    left_out: tuple[Leak, ...] = ()

    def event(self, path: Path) -> dict[str, Any]:
        """Return the event that reports the questions that are left out."""
        rows = [f"{leak.held_out} = {leak.row}" for leak in self.left_out[:MAX_LEAKS_SHOWN]]
        return {"event": "questions.left_out", "file": str(path), "near": len(self.left_out), "rows": rows}


@dataclass(frozen=True, slots=True, kw_only=True)
class DataNote:
    """One thing that is wrong with the files, or worth knowing before a model is trained on them."""

    kind: str
    """references, missing_documents, skipped_documents, personal_data, teacher or language."""
    text: str
    """A sentence with the count and the first places."""
    count: int
    """Rows or questions that it is about."""

    def to_json(self) -> dict[str, Any]:
        """Return the note as JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunData:
    """The checked data of a plan, read once for all that a command does with it."""

    examples: tuple[Example, ...] = ()
    split: QuestionSplit = field(default_factory=lambda: QuestionSplit((), ()))
    left_out: int = 0
    """Questions that are withheld from the trial as near repeats of rows."""
    events: tuple[dict[str, Any], ...] = ()
    """What was reported when it was read: how files were understood, and what of them is left out."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Digests of the files that were read, by their key in the plan."""
    notes: tuple[DataNote, ...] | None = None
    """What :func:`runners.runs.data_notes.check_data` noticed; None where it was not asked."""


def read_examples(plan: Plan, on_event: OnEvent | None = None) -> tuple[Example, ...]:
    """Read a plan's examples, at most as many as it takes; () for a plan without, BadInput for a missing or broken file."""
    if not plan.data.examples:
        return ()
    loaded: ExampleSet = load_examples(plan.data.examples, plan.data.columns)
    if on_event:
        _report_examples(loaded, plan.data.examples, on_event)
    return _draw_examples(loaded.rows, plan.data.max_examples, plan.seed)


def read_data(plan: Plan, on_event: OnEvent | None = None) -> RunData:
    """Read and check all data of a plan; rows and questions that are left out are reported as events.

    Raises:
        BadInput: a file is missing or broken, or test questions are among the training rows.
    """
    events: list[dict[str, Any]] = []

    def report(event: dict[str, Any]) -> None:
        events.append(event)
        if on_event:
            on_event(event)

    requirements.require_plan_documents(plan)
    files = data_files(plan)
    examples = read_examples(plan, report)
    questions = _read_questions(plan, plan.data.questions, report)
    own_test = _read_questions(plan, plan.data.test_questions, report)
    examples, questions, own_test = _with_document_ids(plan, examples, questions, own_test, report)
    questions, first = _guarded(plan, examples, questions, plan.data.questions, report)
    own_test, second = _guarded(plan, examples, own_test, plan.data.test_questions, report)
    split = split_questions(
        questions, plan.data.dev_share, plan.seed, own_test, plan.data.max_dev, plan.data.max_test
    )
    count = count_questions(split.test)
    if plan.arms and count < MIN_TEST_QUESTIONS:
        raise BadInput(
            f"the plan measures arms, but there {'are no test questions' if not count else 'is one test question'}",
            f"give a file of questions to the plan (data.questions): at least {MIN_QUESTIONS}, of which a third is dev; "
            "30 test questions or more decide something",
        )
    return RunData(examples=examples, split=split, left_out=first + second, events=tuple(events), files=files)


def _read_questions(plan: Plan, path: Path | None, on_event: OnEvent) -> tuple[Question, ...]:
    """Return the questions of a plan's file, () without one; what was noticed of their wordings is reported as events."""
    if path is None:
        return ()
    file = read_question_file(path, plan.data.columns)
    for reason in file.notes(path):
        on_event({"event": "plan.note", "reason": reason})
    return file.questions


def require_gold_documents(plan: Plan) -> None:
    """Raise BadInput when a plan's questions name gold documents and none of them is among the plan's documents.

    Called before a run's first step; reading a finished run again does not need its documents.
    """
    path = plan.data.documents
    if path is None or plan.index is None:
        return
    from rag.loading.reader import list_document_ids

    requirements.require_plan_documents(plan)
    ids = list_document_ids(path)
    for file in filter(None, (plan.data.questions, plan.data.test_questions)):
        named = [question.doc_id for question in load_questions(file, plan.data.columns) if question.doc_id]
        require_match(match_documents(named, ids), file, path)


def guard_questions(
    plan: Plan, rows: Sequence[Example], asked: Sequence[Question], path: Path
) -> GuardedQuestions:
    """Return the questions of a plan's file that may be asked.

    Raises:
        BadInput: as in :func:`partition_questions`, and for near repeats when the plan does not leave them
            out.
    """
    guarded = partition_questions(rows, asked, plan.prompts.system, path)
    if plan.data.near_repeats == "refuse":
        _refuse(
            [f"question line {leak.held_out} = example line {leak.row}" for leak in guarded.left_out],
            f"{path}: {{count}} held-out questions nearly repeat examples ({{rows}})",
            "remove them from one of the two files, or from the trial: near_repeats: leave_out under data",
        )
    return guarded


def partition_questions(
    rows: Sequence[Example], asked: Sequence[Question], prompt: str, path: Path, examples: Path | None = None
) -> GuardedQuestions:
    """Divide questions into those that may be asked and those that nearly repeat a training row.

    Args:
        rows: the training rows.
        asked: the held-out questions.
        prompt: the plan's instructions.
        path: the file of the questions, named in messages.
        examples: the file or folder of the rows; with it messages name rows as FILE:LINE.

    Raises:
        BadInput: questions occur in the rows, share a row's fact of the same document, or occur in the
            instructions (``prompt`` and the rows' system turns). The message names the rows.
    """

    def describe(leak: Leak) -> str:
        if examples is None:
            return f"question line {leak.held_out} = example line {leak.row}"
        row = examples / leak.row if isinstance(leak.row, str) else f"{examples}:{leak.row}"
        return f"{path}:{leak.held_out} = {row}"

    leaks = leakage.find_all_leaks(rows, asked, prompt)
    _refuse(
        [describe(leak) for leak in _first(leaks, EXACT_MATCH, NORMALISED_MATCH, SAME_FACT)],
        f"{path}: {{count}} held-out questions also occur in the examples ({{rows}})",
        "take them out of one of the two files: measured on training rows, every tuned arm looks good",
    )
    in_instructions = _first(leaks, IN_PROMPT)
    _refuse(
        [f"question line {leak.held_out}" for leak in in_instructions if leak.row == leakage.PROMPT_PLACE],
        f"{path}: {{count}} held-out questions are in the instructions, prompts.system ({{rows}})",
        "take them out of one of the two: every arm would be shown them",
    )
    _refuse(
        [describe(leak) for leak in in_instructions],
        f"{path}: {{count}} held-out questions occur in the system turns of examples ({{rows}})",
        "take them out of one of the two: a tuned arm would have been shown them",
    )
    near = _first(leaks, NEAR_REPEAT)
    lines = {leak.held_out for leak in near}
    return GuardedQuestions(tuple(question for question in asked if question.line not in lines), tuple(near))


def count_leaks(
    plan: Plan, rows: Sequence[Example], asked: Sequence[Question], left_out: int
) -> dict[str, Any]:
    """Return how many questions are related to training rows and how, each counted once, by its most serious relation.

    A question and its wordings, which follow it, are one.

    Args:
        plan: the run's plan.
        rows: the training rows.
        asked: the questions.
        left_out: questions withheld from the trial as near repeats.

    Returns:
        The counts; ``withheld`` is True when scores must not be shown because of them.
    """
    gravest: dict[int, str] = {}
    number = -1
    for question, leaks in zip(asked, leakage.find_all_leaks(rows, asked, plan.prompts.system), strict=True):
        number += question.wording_of is None
        kinds = [leak.kind for leak in leaks] + ([gravest[number]] if number in gravest else [])
        if kinds:
            gravest[number] = min(kinds, key=leakage.LEAK_KINDS.index)
    by_kind = Counter(gravest.values())
    counts = {
        "exact": by_kind[EXACT_MATCH],
        "normalised": by_kind[NORMALISED_MATCH],
        "near": by_kind[NEAR_REPEAT],
        "same_fact": by_kind[SAME_FACT],
        "in_prompt": by_kind[IN_PROMPT],
    }
    return {
        **counts,
        "same_document": by_kind[SAME_DOCUMENT],
        "left_out": left_out,
        "withheld": any(counts.values()),
        "questions": count_questions(asked),
        "rows": len(rows),
    }


def _with_document_ids(
    plan: Plan,
    examples: tuple[Example, ...],
    questions: tuple[Question, ...],
    own_test: tuple[Question, ...],
    on_event: OnEvent,
) -> tuple[tuple[Example, ...], tuple[Question, ...], tuple[Question, ...]]:
    """Return rows and questions whose ``doc_id`` is the id of a document, where it names one in another form.

    What was changed, and what is no document, is reported for the questions as an event.
    """
    path = plan.data.documents
    if path is None or plan.index is None or not path.exists():
        return examples, questions, own_test
    row_names = [name for row in examples if (name := _named_document(row))]
    asked = (*questions, *own_test)
    names = [question.doc_id for question in asked if question.doc_id]
    drawn_by = [question.drawn_by[0] for question in asked if question.drawn_by[0]]
    if not (names or row_names or drawn_by):
        return examples, questions, own_test
    from rag.loading.reader import list_document_ids

    ids = list_document_ids(path)
    match = match_documents(names, ids)
    if lines := match.lines(plan.data.questions or plan.data.test_questions or path):
        on_event({"event": "doc_ids.matched", "lines": lines, "unmatched": len(match.unmatched)})
    renamed = match_documents(row_names, ids).renamed
    rows = tuple(
        replace(row, meta={**row.meta, "doc_id": renamed[name]})
        if (name := _named_document(row)) in renamed
        else row
        for row in examples
    )
    # of documents that only divide questions, unknown ones are no gold to warn of
    by_name = {**match_documents(drawn_by, ids).ids, **match.ids}
    return rows, with_document_ids(questions, by_name), with_document_ids(own_test, by_name)


def _named_document(row: Example) -> str:
    """Return the one document that a row's meta names, "" for none or a list."""
    name = row.meta.get("doc_id")
    return name if isinstance(name, str) else ""


def _guarded(
    plan: Plan,
    examples: tuple[Example, ...],
    asked: tuple[Question, ...],
    path: Path | None,
    on_event: OnEvent,
) -> tuple[tuple[Question, ...], int]:
    """Return the questions that may be asked, and how many may not."""
    if path is None:
        return asked, 0
    guarded = guard_questions(plan, examples, asked, path)
    if guarded.left_out:
        on_event(guarded.event(path))
    return guarded.questions, len(guarded.left_out)


def _report_examples(loaded: ExampleSet, path: Path, on_event: Callable[[dict[str, Any]], None]) -> None:
    """Report how the examples were understood, and everything that is left out."""
    summary = {"rows": len(loaded.rows), "format": loaded.format, "columns": dict(loaded.columns)}
    on_event({"event": "examples.read", "file": str(path), **summary, "notes": list(loaded.notes)})
    for skipped in loaded.skipped:
        on_event({"event": "file.skipped", "file": skipped.file, "reason": skipped.reason})
    for row in loaded.rejected:
        file = path / row.file if path.is_dir() else path
        on_event({"event": "row.rejected", "file": str(file), "line": row.line, "reason": row.reason})


def _draw_examples(rows: tuple[Example, ...], most: int | None, seed: int) -> tuple[Example, ...]:
    """Return at most ``most`` rows, sampled by the seed, in their order."""
    if most is None or most >= len(rows):
        return rows
    drawn = sorted(random.Random(seed).sample(range(len(rows)), most))
    return tuple(rows[i] for i in drawn)


def _first(leaks_by_question: Sequence[Sequence[Leak]], *kinds: str) -> list[Leak]:
    """Return the most serious leak of these kinds of each question that has one."""
    matching = ([leak for leak in leaks if leak.kind in kinds] for leaks in leaks_by_question)
    return [leaks[0] for leaks in matching if leaks]


def _refuse(rows: Sequence[str], message: str, hint: str) -> None:
    """Raise BadInput, with the count and the first rows, when there are any rows."""
    if rows:
        more = f"; and {len(rows) - MAX_LEAKS_SHOWN} more" if len(rows) > MAX_LEAKS_SHOWN else ""
        raise BadInput(message.format(count=len(rows), rows="; ".join(rows[:MAX_LEAKS_SHOWN]) + more), hint)

"""What the files of a plan say against using them as they are: one short list, before anything is spent.

:func:`check_data` looks for documents that questions and examples name and the index will not have, for personal data in
the rows, for references that the rule of right answers refuses, for rows that a teacher wrote, and for questions in another
language. Nothing here stops a run; what must stop it is refused when the data is read (:mod:`runners.runs.dataset`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rag.evaluation.gold_documents import match_documents
from rag.text.words import count_noun
from runners.data.examples import Example, RowPlace
from runners.data.personal_data import PERSONAL_DATA_KINDS, find_personal_data
from runners.data.questions import Question, sure_language
from runners.data.teachers import teachers_of_rows
from runners.plan.schema import Plan
from runners.runs.dataset import DataNote, RunData
from runners.scoring.gold_check import GoldCheck, check_gold

DATA_NOTES = "data.notes"
"""The kind of event with the notes."""
TEACHER_NOTE = "teacher"
"""The kind of note that names a model that wrote examples, and whether its licence allows training on them."""
MAX_ROWS_READ = 2_000
"""Rows that are searched for personal data, and questions whose references are judged; a note says where there are more."""
PLACES_SHOWN = 3
MAX_READ_BYTES, MAX_READ_PDFS = 20_000_000, 3
"""Largest documents that are read to see which of them cannot be; in larger ones only empty files are found."""
MIN_AGREEING = 0.6
"""Share of the clear texts that must be in one language for the others to be in another one."""


def with_notes(plan: Plan, data: RunData, gold: GoldCheck | None = None) -> RunData:
    """Return a plan's data with its notes, which are looked for where that was not done yet."""
    return replace(data, notes=check_data(plan, data, gold)) if data.notes is None else data


def check_data(plan: Plan, data: RunData, gold: GoldCheck | None = None) -> tuple[DataNote, ...]:
    """Return what is noticed in a plan's data, the gravest first; () for nothing.

    Args:
        plan: the plan.
        data: its data as :func:`runners.runs.dataset.read_data` has read it.
        gold: the check of its references; None makes it.
    """
    gold = gold or check_gold(plan, data.split)
    questions = [q for q in (*data.split.dev, *data.split.test) if q.wording_of is None]
    questions.sort(key=lambda question: question.line)
    notes = [*_reference_notes(gold), *_document_notes(plan, data.examples, questions)]
    notes += [*_personal_data_notes(plan, data.examples), *_teacher_notes(plan, data.examples)]
    return (*notes, *_language_notes(plan, data.examples, questions))


def notes_event(notes: Sequence[DataNote]) -> dict[str, Any]:
    """Return the event that records the notes of a run."""
    return {
        "event": DATA_NOTES,
        "lines": [note.text for note in notes],
        "notes": [n.to_json() for n in notes],
    }


def noted_lines(event: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the sentences of such an event, () for a run that has none."""
    return tuple(map(str, event.get("lines", ())))


def teacher_lines(event: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the sentences of such an event on the teachers of the examples."""
    return tuple(str(note["text"]) for note in event.get("notes", ()) if note.get("kind") == TEACHER_NOTE)


def _reference_notes(gold: GoldCheck) -> Iterable[DataNote]:
    if gold.failing:
        yield DataNote(
            kind="references", count=len(gold.failing), text=f"{gold.headline}: {'; '.join(gold.rows)}"
        )


def _document_notes(
    plan: Plan, examples: Sequence[Example], questions: Sequence[Question]
) -> Iterable[DataNote]:
    path = plan.data.documents
    named = {question.line: question.doc_id for question in questions if question.doc_id}
    rows = {row.line: str(row.meta["doc_id"]) for row in examples if isinstance(row.meta.get("doc_id"), str)}
    if path is None or plan.index is None or not path.exists() or not (named or rows):
        return
    from rag.loading.reader import list_document_ids

    ids = list_document_ids(path)
    missing = match_documents(named.values(), ids)
    for line in missing.lines(plan.data.questions or path)[-1:] if missing.unmatched else ():
        lost = sum(id in set(missing.unmatched) for id in named.values())
        yield DataNote(kind="missing_documents", text=line, count=lost)
    absent = set(match_documents(rows.values(), ids).unmatched)
    if lines := [line for line, id in rows.items() if id in absent]:
        yield DataNote(
            kind="missing_documents",
            count=len(lines),
            text=f"{_file(plan.data.examples)}{count_noun(len(lines), 'example')} of documents that are not there "
            f"({_places(lines)}; such as {next(iter(sorted(absent)))}): an arm with passages trains on them without theirs",
        )
    reasons = unread_documents(path)
    if lines := [line for line, id in named.items() if id in reasons]:
        first = named[lines[0]]
        yield DataNote(
            kind="skipped_documents",
            count=len(lines),
            text=f"{_file(plan.data.questions)}{count_noun(len(lines), 'question')} of documents that cannot be read "
            f"({_places(lines)}): {first}: {reasons[first]}; no search finds the answer, so every arm gets "
            f"{'it' if len(lines) == 1 else 'them'} wrong",
        )


def unread_documents(path: Path) -> dict[str, str]:
    """Return the documents of a folder that cannot be read, with the reason; of a large folder only the empty ones."""
    if not path.is_dir():
        return {}
    from rag.loading.reader import load_documents

    files = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    sizes = {name: file.stat().st_size for name, file in files.items()}
    pdfs = sum(name.lower().endswith(".pdf") for name in sizes)
    if sum(sizes.values()) > MAX_READ_BYTES or pdfs > MAX_READ_PDFS:
        return {name: "the file is empty" for name, size in sizes.items() if size == 0}
    return {skipped.path: skipped.reason for skipped in load_documents(path).skipped}


def _personal_data_notes(plan: Plan, examples: Sequence[Example]) -> Iterable[DataNote]:
    places_by_kind = find_personal_data(examples[:MAX_ROWS_READ])
    if not places_by_kind:
        return
    places = sorted({place for places in places_by_kind.values() for place in places}, key=_in_order)
    kinds = ", ".join(f"{kind} {len(rows)}" for kind, rows in places_by_kind.items())
    first = "the first " if len(examples) > MAX_ROWS_READ else ""
    searched = f"{first}{count_noun(min(len(examples), MAX_ROWS_READ), 'example')}"
    secret = any(kind.secret and kind.name in places_by_kind for kind in PERSONAL_DATA_KINDS)
    yield DataNote(
        kind="personal_data",
        count=len(places),
        text=f"{_file(plan.data.examples)}{len(places):,} of {searched} hold {'keys or ' if secret else ''}personal data "
        f"({kinds}; {_places(places)}): a model that is trained on them, or shown them, can repeat it. Take out what it "
        "need not know; the values are not shown",
    )


def _teacher_notes(plan: Plan, examples: Sequence[Example]) -> Iterable[DataNote]:
    for teacher in teachers_of_rows(examples):
        text = f"{_file(plan.data.examples)}{teacher.sentence(len(examples), 'example')}"
        yield DataNote(kind=TEACHER_NOTE, count=teacher.rows, text=text.removesuffix("."))


def _language_notes(
    plan: Plan, examples: Sequence[Example], questions: Sequence[Question]
) -> Iterable[DataNote]:
    asked = {question.line: sure_language(question.question) for question in questions[:MAX_ROWS_READ]}
    shown = _main_language(sure_language(row.question) for row in examples[:MAX_ROWS_READ] if not row.raw)
    usual = _main_language(asked.values())
    if usual and shown and usual != shown:
        yield DataNote(
            kind="language",
            count=len(questions),
            text=f"{_file(plan.data.questions)}the questions are in {usual}, the examples in {shown}: what is tuned is "
            "measured in a language that it was not trained on",
        )
    others = {line: name for line, name in asked.items() if usual and name not in ("", usual)}
    if others:
        names = ", ".join(f"{name} {n}" for name, n in Counter(others.values()).most_common())
        yield DataNote(
            kind="language",
            count=len(others),
            text=f"{_file(plan.data.questions)}{count_noun(len(others), 'question')} in another language than the others "
            f"({usual}): {names} ({_places(others)})",
        )


def _main_language(names: Iterable[str]) -> str:
    """Return the language of most texts whose language is clear, "" where there is none."""
    counts = Counter(filter(None, names))
    name, most = next(iter(counts.most_common(1)), ("", 0))
    return name if most and most >= MIN_AGREEING * counts.total() else ""


def _file(path: Path | None) -> str:
    return f"{path.name}: " if path else ""


def _in_order(place: RowPlace) -> tuple[str, int]:
    return (place, 0) if isinstance(place, str) else ("", place)


def _places(places: Iterable[RowPlace]) -> str:
    """Return the first places: ``lines 3, 7, 9, …``."""
    named = list(places)
    numbers = all(isinstance(place, int) for place in named)
    kind = ("line " if len(named) == 1 else "lines ") if numbers else ""
    return f"{kind}{', '.join(map(str, named[:PLACES_SHOWN]))}{', …' if len(named) > PLACES_SHOWN else ''}"

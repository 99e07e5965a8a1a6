"""Held-out questions with their gold answers, read from a file by :func:`load_questions`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from runners.data.examples import is_marked_made
from runners.data.formats import (
    AmbiguousColumns,
    Columns,
    Message,
    RowTurns,
    UnknownColumns,
    UnknownFormat,
    UnusableRow,
    declared_columns,
    guess_columns,
    row_turns,
    system_turn,
)
from runners.data.tabular import read_rows

QUESTION_KEYS = (
    "rename the keys: question (or prompt, query, instruction, messages); reference for the expected answer (a sentence, a "
    "label), or answers for short ones; doc_id for its document; answerable: false where the documents have no answer"
)
"""The keys of a question row, for messages."""
_GOLD_KEYS = ("answers", "answer", "references", "doc_id", "spans", "start", "fact", "answerable")
"""Keys of what is known of a question: beside one of them, a column such as ``label`` or ``summary`` is metadata."""


@dataclass(frozen=True, slots=True)
class Question:
    """One held-out question with the gold values of its row."""

    id: str
    question: str
    answers: tuple[str, ...] = ()
    reference: str | None = None
    doc_id: str | None = None
    spans: tuple[tuple[int, int], ...] = ()
    """Character offsets of the gold passages in the gold document."""
    answerable: bool = True
    system: str | None = None
    fact: str | None = None
    line: int = 0
    references: tuple[str, ...] = ()
    """Every acceptable reply, ``reference`` first."""
    history: tuple[Message, ...] = ()
    """The turns before the question, without the system turn."""
    made: bool = False
    """Whether it was made from the documents, and not asked by anybody."""


def load_questions(path: Path | str, columns: Mapping[str, str] | None = None) -> tuple[Question, ...]:
    """Read held-out questions: rows with a ``question`` key, or rows in any format of examples.

    Args:
        path: the file of rows.
        columns: column of each role in the examples, by which rows are read whose own columns have no usual names: a
            table of questions is often a part of the table of the examples.

    Raises:
        BadInput: a row has no question or a malformed gold value, or an id occurs twice.
    """
    path = Path(path)
    questions = []
    line_of_id = dict[str, int]()
    declared = declared_columns(columns) if columns else None
    for line, row in read_rows(path):
        try:
            question = _question(row, line, declared)
        except AmbiguousColumns as error:
            raise BadInput(f"{path}:{line}: {error}", "rename the columns that are not meant") from None
        except (UnusableRow, KeyError, TypeError, ValueError) as reason:
            keys = ", ".join(map(str, row)) or "no keys"
            detail = f"it has the keys {keys}" if isinstance(reason, UnknownFormat) else str(reason)
            raise BadInput(f"{path}:{line}: not a question row: {detail}", QUESTION_KEYS) from None
        if (first := line_of_id.setdefault(question.id, line)) != line:
            raise BadInput(
                f"{path}:{line}: the id {question.id!r} was already used on line {first}",
                "give every question an id of its own, or take the key id out of all rows: then lines are counted",
            )
        questions.append(question)
    return tuple(questions)


def with_document_ids(questions: Sequence[Question], ids: Mapping[str, str]) -> tuple[Question, ...]:
    """Return questions whose gold documents have the ids of the documents; names without one stay as they are."""
    return tuple(
        replace(question, doc_id=ids.get(question.doc_id, question.doc_id)) if question.doc_id else question
        for question in questions
    )


def _question(row: Mapping[str, Any], line: int, declared: Columns | None = None) -> Question:
    """Return the question of a row; UnusableRow, KeyError, TypeError or ValueError when it holds none."""
    if isinstance(row.get("question"), str):
        extra = row.get("meta")
        meta = {**row, **extra} if isinstance(extra, dict) else dict(row)
        messages = [*system_turn(row.get("system")), {"role": "user", "content": row["question"]}]
        reference = row.get("reference", row.get("reply"))
        if reference is None and not _has_gold(meta):
            reference = _other_reply(row, declared)
    else:
        turns = _turns(row, declared)
        messages, meta = turns.messages, turns.meta
        reference = messages.pop()["content"] if messages and messages[-1]["role"] == "assistant" else None
    system = messages.pop(0)["content"] if messages and messages[0]["role"] == "system" else None
    if not messages or messages[-1]["role"] != "user" or not messages[-1]["content"].strip():
        raise UnusableRow("no question in it")
    references = dict.fromkeys(r for r in (reference, *_strings(meta, "references")) if r)
    return Question(
        id=str(meta.get("id", f"q{line}")),
        question=messages[-1]["content"],
        answers=tuple(_strings(meta, "answers") or _strings(meta, "answer")),
        reference=next(iter(references), None),
        doc_id=None if meta.get("doc_id") is None else str(meta["doc_id"]),
        spans=_spans(meta),
        answerable=_boolean(meta.get("answerable", True)),
        system=system,
        fact=None if meta.get("fact") is None else str(meta["fact"]),
        line=line,
        references=tuple(references),
        history=tuple(messages[:-1]),
        made=is_marked_made(meta),
    )


def _turns(row: Mapping[str, Any], declared: Columns | None) -> RowTurns:
    """Return the turns of a row: by the usual names of columns, or by the declared ones where those give no pair."""
    if declared is None or not all(name in row for name in declared.of.values()):
        return row_turns(row)
    try:
        turns = row_turns(row)
    except (UnknownFormat, AmbiguousColumns):
        return row_turns(row, declared)
    if turns.columns.format == "text" or _needs_reply(turns):
        return row_turns(row, declared)
    return turns


def _needs_reply(turns: RowTurns) -> bool:
    """Return whether a row was read as a prompt alone, without any other value to score an answer by."""
    return "prompt" in turns.columns.of and "reply" not in turns.columns.of and not _has_gold(turns.meta)


def _has_gold(meta: Mapping[str, Any]) -> bool:
    return any(key in meta for key in _GOLD_KEYS)


def _other_reply(row: Mapping[str, Any], declared: Columns | None) -> str | None:
    """Return the reply of a row that has none under our own keys: of the declared column, or of one such as ``label``."""
    name = declared.of.get("reply") if declared is not None else None
    if name not in row:
        try:
            name = guess_columns(row).of.get("reply")
        except (AmbiguousColumns, UnknownColumns):
            return None  # a question without its answer is allowed
    reply = row.get(name) if name is not None else None
    return reply.strip() or None if isinstance(reply, str) else None


def _strings(meta: Mapping[str, Any], key: str) -> list[str]:
    """Return a value, a list of texts or a single one, as a list."""
    value = meta.get(key) or []
    values = [value] if isinstance(value, (str, int, float)) else value
    if not isinstance(values, list):
        raise ValueError(f"{key} must be a list of strings")
    return [str(v) for v in values]


def _spans(meta: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    """Return the gold spans: a list under ``spans``, or one as ``start`` and ``end`` of the row."""
    rows = meta.get("spans") or ([meta] if "start" in meta and "end" in meta else [])
    spans = tuple((int(s["start"]), int(s["end"])) for s in rows)
    if any(start < 0 or end <= start for start, end in spans):
        raise ValueError(f"a span is empty or negative: {spans}")
    return spans


def _boolean(value: Any) -> bool:
    """Return a boolean that may be written as text or number; ValueError for anything else."""
    if isinstance(value, bool):
        return value
    if str(value).lower() in {"true", "yes", "1", "false", "no", "0"}:
        return str(value).lower() in {"true", "yes", "1"}
    raise ValueError(f"answerable must be true or false, found {value!r}")

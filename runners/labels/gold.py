"""Gold that people wrote while they labelled, written into the file of questions: :func:`gold_changes`, :func:`write_gold`.

A row keeps what it is drawn by (``split_by``), so that gold never moves a question from dev to test or back. What is
written is read again before the file is replaced; a row that would not read as it was meant stays as it is.
"""

from __future__ import annotations

import codecs
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.errors import BadInput, UsageProblem
from rag.files import write_bytes, write_text
from rag.text.words import count_noun
from runners.data.examples import normalise_text
from runners.data.questions import LABELLED_BY, SPLIT_BY, Question, load_questions
from runners.data.tabular import read_rows
from runners.labels.labels import RunLabels
from runners.labels.records import LabelSentence
from runners.labels.run_answers import LabelQuestions

BY, AT = LABELLED_BY, "labelled_at"
"""Keys of a row: who wrote its gold, and when."""
SHOWN = 3
"""Questions that a message names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """One key of a row before and after; None where the row does not have it."""

    key: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldChange:
    """What people's gold changes in one row."""

    line: int
    id: str
    question: str
    keys: tuple[KeyChange, ...]
    row: Mapping[str, Any]
    """The row as it becomes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldChanges:
    """What people's gold changes in a file of questions."""

    file: Path
    changes: tuple[GoldChange, ...]
    unlabelled: int
    """Rows without gold by people."""
    same: int
    """Rows that have the gold already."""
    disagree: tuple[str, ...]
    """Questions for which people wrote different gold, so that nothing of it is written: id and what differs."""
    unwritable: tuple[str, ...]
    """Ids of rows of a form that cannot take the gold."""
    missing: int
    """Questions with gold that the file does not have."""

    def notes(self) -> list[str]:
        """Return what is not written and why, in sentences."""
        sentences = (
            (self.unlabelled, f"unchanged: {count_noun(self.unlabelled, 'row')} without gold by people"),
            (self.same, f"unchanged: {count_noun(self.same, 'row')} with this gold already"),
            (self.disagree, f"not written, as people wrote different gold: {_some(self.disagree)}"),
            (self.unwritable, f"not written, as the row's form cannot take it: {_some(self.unwritable)}"),
            (
                self.missing,
                f"not written, as the file lacks it: gold of {count_noun(self.missing, 'question')}",
            ),
        )
        return [text for count, text in sentences if count]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gold:
    """What people agree on of one question."""

    text: str | None
    answerable: bool | None
    sentences: tuple[LabelSentence, ...]
    by: tuple[str, ...]
    at: str
    disagree: str
    """What they do not agree on; "" for nothing."""


def gold_changes(labels: RunLabels, questions: LabelQuestions) -> GoldChanges:
    """Return what people's gold changes in the rows of a file."""
    row_of_line = dict(read_rows(questions.file))
    line_of = {labels.original(row): question.line for row, question in questions.of_row.items()}
    labelled = list(dict.fromkeys(question for person in labels.people for question in person.questions))
    golds = {question: gold for question in labelled if (gold := _gold(labels, question)) is not None}
    edited: dict[int, dict[str, Any]] = {}
    golds_of_line: dict[int, _Gold] = {}
    for question, gold in golds.items():
        if question in line_of:
            line = line_of[question]
            golds_of_line[line] = gold
            edited[line] = _edited(row_of_line[line], gold)
    before = {question.line: question for question in load_questions(questions.file)} if edited else {}
    after = _read_again({**row_of_line, **edited})
    changes, unwritable, same = [], [], 0
    for line, row in edited.items():
        if row == row_of_line[line]:
            same += not golds_of_line[line].disagree
            continue
        read = after.get(line)
        if read is None or not _holds(read, before[line], golds_of_line[line]):
            unwritable.append(before[line].id)
            continue
        changes.append(_change(line, before[line], row_of_line[line], row))
    return GoldChanges(
        file=questions.file,
        changes=tuple(sorted(changes, key=lambda change: change.line)),
        unlabelled=len(row_of_line) - len(golds_of_line),
        same=same,
        disagree=tuple(f"{question} ({gold.disagree})" for question, gold in golds.items() if gold.disagree),
        unwritable=tuple(unwritable),
        missing=sum(question not in line_of for question in golds),
    )


def write_gold(changes: GoldChanges, out: Path | None = None) -> Path | None:
    """Write the changed rows, the other lines as they are, and return the copy of the old file; None for a new file.

    Args:
        changes: of :func:`gold_changes`.
        out: another file to write, as JSON lines; None replaces the file itself.

    Raises:
        UsageProblem: the file itself is no JSON lines.
        CannotRun: the file cannot be written.
    """
    rows = {change.line: change.row for change in changes.changes}
    if out is not None and out != changes.file:
        text = "".join(_line(rows.get(line, row)) + "\n" for line, row in read_rows(changes.file))
        write_text(out, text)
        return None
    if changes.file.suffix.lower() not in (".jsonl", ".ndjson"):
        raise UsageProblem(
            f"gold is written as JSON lines, and {changes.file} is {changes.file.suffix}",
            "write another file: --out questions.jsonl",
        )
    before = changes.file.read_bytes()
    lines = before.removeprefix(codecs.BOM_UTF8).decode("utf-8").split("\n")
    for line, row in rows.items():
        end = "\r" if lines[line - 1].endswith("\r") else ""
        lines[line - 1] = _line(row) + end
    backup = changes.file.with_name(f"{changes.file.name}.bak")
    write_bytes(backup, before)
    write_text(changes.file, "\n".join(lines))
    return backup


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False)


def _gold(labels: RunLabels, question: str) -> _Gold | None:
    """Return the gold that people wrote for a question; None where none is."""
    of_people = [(person.by, person.on(question)) for person in labels.people]
    writers = [(by, own) for by, own in of_people if own.gold or own.sentence or own.answerable is not None]
    if not writers:
        return None
    texts = {own.gold for _, own in writers if own.gold}
    answerable = {own.answerable for _, own in writers if own.answerable is not None}
    sentences = {own.sentence for _, own in writers if own.sentence}
    several = len({sentence.doc_id for sentence in sentences}) > 1
    differing = {"gold answer": len(texts) > 1, "answerable": len(answerable) > 1, "document": several}
    return _Gold(
        text=next(iter(texts)) if len(texts) == 1 else None,
        answerable=next(iter(answerable)) if len(answerable) == 1 else None,
        sentences=() if several else tuple(sorted(sentences, key=lambda sentence: sentence.start)),
        by=tuple(by for by, _ in writers),
        at=max(own.changed for _, own in writers),
        disagree=", ".join(name for name, differs in differing.items() if differs),
    )


def _edited(row: Mapping[str, Any], gold: _Gold) -> dict[str, Any]:
    """Return a row with people's gold, and without earlier answers that the new gold no longer states."""
    edited = dict(row)
    if gold.text is not None:
        _set_reference(edited, gold.text)
        short = _drop_other_gold(edited, gold.text)
        if not short and not gold.sentences:
            _drop(edited, ("spans", "start", "end"))
    if gold.sentences:
        _drop(edited, ("start", "end"))
        _set(edited, "doc_id", gold.sentences[0].doc_id)
        _set(edited, "spans", [{"start": one.start, "end": one.end} for one in gold.sentences])
    answerable = (
        gold.answerable if gold.answerable is not None else (True if gold.text or gold.sentences else None)
    )
    has = _get(edited, "answerable", True)
    if answerable is False or (answerable and has is not True):
        _set(edited, "answerable", answerable)
    if answerable is False and has is not False and gold.text is None:
        _drop_answer(edited)
    if edited == dict(row):
        return edited
    drawn_by = {"doc_id": _get(row, "doc_id"), "answerable": _get(row, "answerable", True)}
    now = {"doc_id": _get(edited, "doc_id"), "answerable": _get(edited, "answerable", True)}
    if drawn_by != now and SPLIT_BY not in edited:
        edited[SPLIT_BY] = drawn_by
    return edited | {BY: ", ".join(gold.by), AT: gold.at}


def _set_reference(row: dict[str, Any], text: str) -> None:
    """Put the gold answer where it is read from: the reference, the last turn of a chat, or the list of references."""
    if isinstance(row.get("question"), str):
        row["reply" if "reply" in row and "reference" not in row else "reference"] = text
        return
    turns = row.get("messages")
    if isinstance(turns, list) and turns and isinstance(turns[-1], dict) and "role" in turns[-1]:
        before = turns[:-1] if turns[-1]["role"] == "assistant" else turns
        row["messages"] = [*before, {"role": "assistant", "content": text}]
        return
    for name in ("completion", "response", "output", "answer", "reply"):
        if isinstance(row.get(name), str):
            row[name] = text
            return
    _set(row, "references", [text])


def _drop_answer(row: dict[str, Any]) -> None:
    """Take the answer out of a row that has none: kept as its gold, it would be no refusal."""
    if isinstance(row.get("question"), str):
        _drop(row, ("reference", "reply", "references", "answers", "answer", "all_of", "fact"))
        _drop(row, ("spans", "start", "end"))
    turns = row.get("messages")
    if isinstance(turns, list) and len(turns) > 1 and turns[-1].get("role") == "assistant":
        row["messages"] = turns[:-1]


def _drop_other_gold(row: dict[str, Any], text: str) -> bool:
    """Take out answers, parts and facts that a gold answer does not state; return whether a short one is left."""
    stated = f" {normalise_text(text)} "

    def states(value: Any) -> bool:
        return f" {normalise_text(str(value))} " in stated

    for key in ("answers", "answer", "all_of"):
        values = _get(row, key)
        if values is None or (key == "answer" and not isinstance(row.get("question"), str)):
            continue
        listed = values if isinstance(values, list) else [values]
        left = [value for value in listed if states(value)]
        if key == "all_of" and len(left) < len(listed):
            left = []
        if left != listed:
            _set(row, key, left) if left else _drop(row, (key,))
    if (fact := _get(row, "fact")) is not None and not states(fact):
        _drop(row, ("fact",))
    if isinstance(row.get("question"), str):
        _drop(row, ("references",))
    return any(_get(row, key) for key in ("answers", "answer", "all_of", "fact"))


def _get(row: Mapping[str, Any], key: str, default: Any = None) -> Any:
    """Return a value of a row, or of its ``meta``, which counts first."""
    meta = row.get("meta")
    return meta[key] if isinstance(meta, dict) and key in meta else row.get(key, default)


def _set(row: dict[str, Any], key: str, value: Any) -> None:
    meta = row.get("meta")
    if isinstance(meta, dict) and key in meta:
        row["meta"] = {**meta, key: value}
    else:
        row[key] = value


def _drop(row: dict[str, Any], keys: Iterable[str]) -> None:
    for key in keys:
        row.pop(key, None)
        if isinstance(meta := row.get("meta"), dict) and key in meta:
            row["meta"] = {name: value for name, value in meta.items() if name != key}


def _read_again(rows: Mapping[int, Mapping[str, Any]]) -> dict[int, Question]:
    """Return the questions of rows as they will be read, by line."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "questions.jsonl"
        last = max(rows, default=0)
        lines = [_line(rows[line]) if line in rows else "" for line in range(1, last + 1)]
        write_text(path, "\n".join(lines) + "\n")
        try:
            return {question.line: question for question in load_questions(path)}
        except BadInput as problem:
            raise BadInput(
                f"with people's gold the file could not be read: {problem.message}", problem.hint
            ) from None


def _holds(read: Question, before: Question, gold: _Gold) -> bool:
    """Return whether a row reads as it was meant: the question as it was, with the new gold."""
    spans = tuple((one.start, one.end) for one in gold.sentences)
    return (
        (read.id, read.question, read.history, read.system, read.wordings, read.weight)
        == (before.id, before.question, before.history, before.system, before.wordings, before.weight)
        and read.drawn_by == before.drawn_by
        and (gold.text is None or gold.text in (read.reference, *read.references))
        and (gold.answerable is None or read.answerable is gold.answerable)
        and (not spans or (read.spans == spans and read.doc_id == gold.sentences[0].doc_id))
    )


def _change(line: int, question: Question, before: Mapping[str, Any], after: Mapping[str, Any]) -> GoldChange:
    flat_before, flat_after = _flat(before), _flat(after)
    keys = [key for key in dict.fromkeys([*flat_before, *flat_after]) if key not in (BY, AT, SPLIT_BY)]
    return GoldChange(
        line=line,
        id=question.id,
        question=question.question,
        keys=tuple(
            KeyChange(key=key, before=flat_before.get(key), after=flat_after.get(key))
            for key in keys
            if flat_before.get(key) != flat_after.get(key)
        ),
        row=after,
    )


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a row and of its ``meta`` beside each other."""
    meta = row.get("meta")
    return {
        **{key: value for key, value in row.items() if key != "meta"},
        **(meta if isinstance(meta, dict) else {}),
    }


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more

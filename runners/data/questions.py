"""Held-out questions with their gold answers, read from a file by :func:`load_questions`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rag.embedding.language import LANGUAGES, detect_language
from rag.errors import BadInput
from rag.text.words import count_noun
from runners.data.examples import is_marked_made, normalise_text
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
from runners.data.tabular import describe_encoding, read_rows

QUESTION_KEYS = (
    "rename the keys: question (or prompt, query, instruction, messages); reference for the expected answer (a sentence, a "
    "label), or answers for short ones, any of which is right, and all_of for parts that must all be there; doc_id for its "
    "document; answerable: false where the documents have no answer"
)
"""The keys of a question row, for messages."""
_GOLD_KEYS = ("answers", "answer", "all_of", "references", "doc_id", "spans", "start", "fact", "answerable")
"""Keys of what is known of a question: beside one of them, a column such as ``label`` or ``summary`` is metadata."""
MIN_LANGUAGE_WORDS = 6
"""Fewest words of a text in Latin letters whose language is sure enough to compare."""
_LATIN = frozenset(language.name for language in LANGUAGES)
SHOWN_LINES = 3
"""Lines that a note names."""
WRITTEN_BY = "wordings_by"
"""The key of a row that names the model that wrote its wordings."""
LABELLED_BY = "labelled_by"
"""The key of a row that names who wrote its gold while labelling."""
SPLIT_BY = "split_by"
"""The key of a row whose gold people wrote: the document and ``answerable`` of before, by which it is divided into dev and
test, so that new gold does not move it."""


class UnusableWording(ValueError):
    """The wordings of a row cannot be used; the message names the value."""


class UnusableWeight(ValueError):
    """The weight of a row is no number above 0; the message names it."""


class UnusableGold(ValueError):
    """The answers or parts of a row cannot be used; the message names the value."""


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
    wordings: tuple[str, ...] = ()
    """The same question in other words; :func:`with_wordings` makes questions of them."""
    wording_of: str | None = None
    """Id of the question that this one asks in other words; None for a question as its row has it."""

    all_of: tuple[str, ...] = ()
    """Parts that a right answer must all state: "7:30 to 9:30" and "room 12"."""
    weight: float = 1.0
    """How often it is asked, or how many questions of a log it stands for, relative to the others."""
    split_by: tuple[str | None, bool] | None = None
    """The document and whether it was answerable before people wrote its gold; None where they did not change."""
    labelled: bool = False
    """Whether people wrote its gold while they labelled answers of a run."""

    @property
    def drawn_by(self) -> tuple[str | None, bool]:
        """The document and whether it is answerable, as far as they divide questions into dev and test."""
        return self.split_by or (self.doc_id, self.answerable)

    @property
    def short_answers(self) -> tuple[str, ...]:
        """The short answers, each of which is right; those of a question with parts alone are its parts in one text."""
        return self.answers or (("; ".join(self.all_of),) if self.all_of else ())

    @property
    def original(self) -> str:
        """The id of the question itself, which all its wordings share."""
        return self.wording_of or self.id


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionFile:
    """The questions of a file, and what was noticed of their wordings."""

    questions: tuple[Question, ...]
    repeated: tuple[int, ...] = ()
    """Lines of wordings that were dropped, as another question with the same answer has their words."""
    written: int = 0
    """Questions whose wordings a model wrote, as ``tunewise examples make --wordings`` marks them."""
    read_as: str = ""
    """How the file was decoded, where it is not UTF-8."""

    def notes(self, path: Path | str) -> list[str]:
        """Return sentences on how the file was read, on repeated wordings, and on those surely in another language."""
        notes = [f"{path}: {self.read_as}"] if self.read_as else []
        if self.repeated:
            dropped = count_noun(len(self.repeated), "wording")
            notes.append(
                f"{path}: {dropped} dropped ({_lines(self.repeated)}): another question with the same answer has its words"
            )
        if len(weights := {question.weight for question in self.questions}) > 1:
            asked = sum(question.weight for question in self.questions)
            notes.append(
                f"{path}: rows have a weight: {count_noun(len(self.questions), 'question')} for {asked:,.0f} asked "
                f"(weights {min(weights):,g} to {max(weights):,g}); scores are means over what was asked"
            )
        if self.written:
            notes.append(
                f"{path}: the wordings of {count_noun(self.written, 'question')} were written by a model, not by customers"
            )
        if foreign := [(q.line, *pair) for q in self.questions for pair in _other_languages(q)]:
            line, wanted, language, text = foreign[0]
            count = count_noun(len(foreign), "wording")
            notes.append(
                f"{path}:{line}: {count} in another language than the question ({wanted}), such as {language}: {text[:60]!r}"
            )
        return notes


def load_questions(path: Path | str, columns: Mapping[str, str] | None = None) -> tuple[Question, ...]:
    """Read the questions of a file as :func:`read_question_file` does."""
    return read_question_file(path, columns).questions


def read_question_file(path: Path | str, columns: Mapping[str, str] | None = None) -> QuestionFile:
    """Read held-out questions: rows with a ``question`` key, or rows in any format of examples.

    Args:
        path: the file of rows.
        columns: column of each role in the examples, by which rows are read whose own columns have no usual names: a
            table of questions is often a part of the table of the examples.

    Raises:
        BadInput: a row has no question, a malformed gold value or an unusable wording, or an id occurs twice.
    """
    path = Path(path)
    questions = []
    written = 0
    line_of_id = dict[str, int]()
    declared = declared_columns(columns) if columns else None
    for line, row in read_rows(path):
        try:
            question = _question(row, line, declared)
        except AmbiguousColumns as error:
            raise BadInput(f"{path}:{line}: {error}", "rename the columns that are not meant") from None
        except UnusableWording as reason:
            raise BadInput(
                f"{path}:{line}: {reason}",
                "wordings: a list of texts that ask the same question in other words",
            ) from None
        except UnusableWeight as reason:
            raise BadInput(
                f"{path}:{line}: {reason}",
                "weight: how often the question is asked, a number above 0; rename the column if it is something else",
            ) from None
        except UnusableGold as reason:
            raise BadInput(
                f"{path}:{line}: {reason}",
                "answers: a list of short answers, any of which is right; all_of: a list of parts that must all be stated",
            ) from None
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
        written += bool(question.wordings and row.get(WRITTEN_BY))
    return replace(_without_repeats(questions, path), written=written, read_as=describe_encoding(path))


def with_wordings(questions: Sequence[Question]) -> tuple[Question, ...]:
    """Return what is asked: each question, followed by each of its wordings as a question ``ID~1``, ``ID~2`` with its gold.

    The questions that are returned have no wordings left, so that nothing is asked twice.
    """
    return tuple(asked for question in questions for asked in _asked(question))


def _asked(question: Question) -> Iterator[Question]:
    plain = replace(question, wordings=()) if question.wordings else question
    yield plain
    for number, text in enumerate(question.wordings, 1):
        yield replace(plain, id=f"{question.id}~{number}", question=text, wording_of=question.id)


def count_questions(questions: Sequence[Question]) -> int:
    """Return how many questions there are, wordings of others not counted."""
    return sum(question.wording_of is None for question in questions)


def with_document_ids(questions: Sequence[Question], ids: Mapping[str, str]) -> tuple[Question, ...]:
    """Return questions whose gold documents have the ids of the documents; names without one stay as they are."""

    def renamed(question: Question) -> Question:
        doc_id, split_by = question.doc_id, question.split_by
        return replace(
            question,
            doc_id=doc_id and ids.get(doc_id, doc_id),
            split_by=split_by and (split_by[0] and ids.get(split_by[0], split_by[0]), split_by[1]),
        )

    return tuple(map(renamed, questions))


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
    answers = tuple(_strings(meta, "answers") or _strings(meta, "answer"))
    references = dict.fromkeys(r for r in (reference, *_strings(meta, "references")) if r)
    asked = Question(
        id=str(meta.get("id", f"q{line}")),
        question=messages[-1]["content"],
        answers=answers,
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
        wordings=_wordings(meta.get("wordings"), messages[-1]["content"]),
        all_of=_parts(meta),
        weight=_weight(meta.get("weight")),
        split_by=_split_by(meta.get(SPLIT_BY)),
        labelled=bool(meta.get(LABELLED_BY)),
    )
    return _require_gold(asked, meta)


def _wordings(values: Any, question: str) -> tuple[str, ...]:
    """Return the other wordings of a row; UnusableWording for one that is empty, no text, the question or a repeat."""
    if values is None:
        return ()
    texts = [values] if isinstance(values, str) else values
    if not isinstance(texts, list):
        raise UnusableWording(f"wordings must be a list of texts, found {values!r:.60}")
    places = {normalise_text(question) or question.strip(): "the question itself"}
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise UnusableWording(f"wording {number} must be a text, found {text!r:.60}")
        if not text.strip():
            raise UnusableWording(f"wording {number} is empty: {text!r:.60}")
        same = places.setdefault(normalise_text(text) or text.strip(), f"wording {number}")
        if same != f"wording {number}":
            raise UnusableWording(f"wording {number} is {same} again: {text!r:.60}")
    return tuple(text.strip() for text in texts)


def _without_repeats(questions: Sequence[Question], path: Path) -> QuestionFile:
    """Return the questions without wordings that another row asks as well.

    Raises:
        BadInput: the other row has another answer, or a wording's id is taken.
    """
    ids = {question.id: question.line for question in questions}
    rows_of_words: dict[tuple[str, ...], list[Question]] = {}
    if any(question.wordings for question in questions):
        for question in questions:
            rows_of_words.setdefault(_words(question, question.question), []).append(question)
    rows: list[Question] = []
    repeated: list[int] = []
    for question in questions:
        wordings = []
        for number, text in enumerate(question.wordings, 1):
            if (taken := ids.get(f"{question.id}~{number}")) is not None:
                raise BadInput(
                    f"{path}:{taken}: the id {question.id}~{number} is that of a wording of line {question.line}",
                    "give one of the two questions another id",
                )
            others = rows_of_words.setdefault(_words(question, text), [])
            if differing := [other for other in others if _gold(other) != _gold(question)]:
                raise BadInput(
                    f"{path}:{question.line}: wording {number}, {text!r:.60}, is also on line {differing[0].line}, whose "
                    "answer differs",
                    "take it out of one of the two rows: the same words cannot have two answers",
                )
            if others:
                repeated.append(question.line)
                continue
            others.append(question)
            wordings.append(text)
        rows.append(replace(question, wordings=tuple(wordings)) if question.wordings else question)
    return QuestionFile(questions=tuple(rows), repeated=tuple(repeated))


def _words(question: Question, text: str) -> tuple[str, ...]:
    """Return what two questions share that ask the same: the normalised text, and the turns before it."""
    return (normalise_text(text) or text.strip(), *(turn["content"] for turn in question.history))


def _gold(question: Question) -> tuple[Any, ...]:
    """Return what a right answer to a question depends on, but for the passages."""
    texts = (*question.answers, *question.all_of, *question.references)
    return (question.answerable, frozenset(normalise_text(text) or text.strip() for text in texts))


def _other_languages(question: Question) -> Iterator[tuple[str, str, str]]:
    """Yield (language of the question, of the wording, wording) where both are surely known and differ."""
    wanted = sure_language(question.question) if question.wordings else ""
    for text in question.wordings if wanted else ():
        if (language := sure_language(text)) not in ("", wanted):
            yield wanted, language, text


def sure_language(text: str) -> str:
    """Return the language of a text, "" where it is not clear or the text too short to be sure of it."""
    name = detect_language(text)
    short = len(text.split()) < MIN_LANGUAGE_WORDS
    return "" if short and name in _LATIN else name


def _lines(lines: Sequence[int]) -> str:
    more = ", …" if len(lines) > SHOWN_LINES else ""
    return f"{'line' if len(lines) == 1 else 'lines'} {', '.join(map(str, lines[:SHOWN_LINES]))}{more}"


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
    """Return a value, a list of texts or a single one, as a list without blank texts; UnusableGold for other values."""
    value = meta.get(key) or []
    values = [value] if isinstance(value, (str, int, float)) else value
    if not isinstance(values, list):
        raise UnusableGold(f"{key} must be a text or a list of texts, found {value!r:.60}")
    for number, text in enumerate(values, 1):
        if not isinstance(text, (str, int, float)):
            raise UnusableGold(f"{key}, number {number}, must be a text, found {text!r:.60}")
    return [text for text in map(str, values) if text.strip()]


def _parts(meta: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the parts of a row; UnusableGold where one is blank."""
    parts = _strings(meta, "all_of")
    given = meta.get("all_of")
    if isinstance(given, list) and len(parts) < len(given):
        blank = next(n for n, text in enumerate(given, 1) if not str(text).strip())
        raise UnusableGold(f"all_of, number {blank}, is empty: {given!r:.60}")
    return tuple(parts)


def _require_gold(question: Question, meta: Mapping[str, Any]) -> Question:
    """Return the question; UnusableGold where it has lists of answers and parts with nothing in them, and no other gold."""
    empty = "all_of" in meta and not question.short_answers
    if empty and question.answerable and not (question.references or question.fact or question.spans):
        raise UnusableGold("answers and all_of are both empty, and nothing else says what is right")
    return question


def _split_by(value: Any) -> tuple[str | None, bool] | None:
    """Return what a row is divided by; None for a row without, or with a column of that name that is something else."""
    if not isinstance(value, dict) or "answerable" not in value:
        return None
    doc_id = value.get("doc_id")
    return (None if doc_id is None else str(doc_id), _boolean(value["answerable"]))


def _weight(value: Any) -> float:
    """Return the weight of a row, 1 where it has none; UnusableWeight for anything but a number above 0."""
    if value is None or value == "":
        return 1.0
    try:
        weight = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        weight = math.nan
    if not 0 < weight < math.inf:
        raise UnusableWeight(f"weight must be a number above 0, found {value!r:.60}")
    return weight


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

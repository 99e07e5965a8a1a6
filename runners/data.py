"""Examples for tuning and held-out questions: read, their format detected, and kept apart from each other."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from runners.rows import read_rows
from runners.shapes import Message, Unusable, chat, system_turn

MAX_REJECTED_SHARE = 0.05
"""More unusable rows than this and the file is refused: it is hardly what the user thinks."""


@dataclass(frozen=True, slots=True)
class Example:
    """One chat to learn from: its last turn is the assistant's."""

    messages: tuple[Message, ...]
    meta: dict[str, Any] = field(default_factory=dict)
    """Every key of the row that is not the chat itself; never shown to a model."""
    line: int = 0

    @property
    def system(self) -> str:
        """Return the system turn, "" when there is none."""
        return self.messages[0]["content"] if self.messages[0]["role"] == "system" else ""

    @property
    def question(self) -> str:
        """Return the last user turn, "" for a plain text row."""
        return _last(self.messages, "user")

    @property
    def reply(self) -> str:
        """Return the last assistant turn."""
        return _last(self.messages, "assistant")


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that cannot be used, and why."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class ExampleSet:
    """All usable examples of a file, what was rejected, and how many repeat an earlier one."""

    rows: tuple[Example, ...]
    format: str
    rejected: tuple[Rejected, ...] = ()
    duplicates: int = 0
    """Rows whose normalised chat equals an earlier row's; they are counted, not dropped."""


@dataclass(frozen=True, slots=True)
class Question:
    """One held-out question with whatever gold its row carries."""

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


@dataclass(frozen=True, slots=True)
class Overlap:
    """A held-out question that training rows give away."""

    question_line: int
    example_line: int
    reason: str


def load_examples(path: Path | str) -> ExampleSet:
    """Read a file of examples, detecting each row's format.

    Raises BadInput (with its place) on a broken row, or when over 5 % of the rows are unusable: no answer,
    an empty turn, an unknown role or shape.
    """
    path = Path(path)
    rows, rejected, formats = [], [], set()
    for line, row in read_rows(path):
        try:
            kind, messages, meta = chat(row)
            rows.append(Example(_with_answer(messages), meta, line))
            formats.add(kind)
        except Unusable as reason:
            rejected.append(Rejected(line, str(reason)))
    total = len(rows) + len(rejected)
    if len(rejected) > MAX_REJECTED_SHARE * total:
        places = "; ".join(f"line {r.line}: {r.reason}" for r in rejected[:3])
        raise BadInput(
            f"{path}: {len(rejected)} of {total} examples cannot be used ({places})",
            "each example needs a prompt and an answer; see `tunewise train --help` for the formats",
        )
    keys = [tuple((m["role"], normalised(m["content"])) for m in row.messages) for row in rows]
    return ExampleSet(tuple(rows), "+".join(sorted(formats)), tuple(rejected), len(keys) - len(set(keys)))


def load_questions(path: Path | str) -> tuple[Question, ...]:
    """Read held-out questions: rows with a ``question`` key, or rows in any format of examples.

    Raises BadInput on a row without a question, a malformed gold value or an id that occurs twice.
    """
    path = Path(path)
    questions, seen = [], dict[str, int]()
    for line, row in read_rows(path):
        try:
            question = _question(row, line)
        except (Unusable, KeyError, TypeError, ValueError) as reason:
            raise BadInput(f"{path}:{line}: not a question row: {reason}") from None
        if (first := seen.setdefault(question.id, line)) != line:
            raise BadInput(f"{path}:{line}: the id {question.id!r} was already used on line {first}")
        questions.append(question)
    return tuple(questions)


def overlap(examples: Sequence[Example], questions: Sequence[Question]) -> tuple[Overlap, ...]:
    """Return the questions whose words, or whose gold fact of the same document, occur in an example."""
    asked, facts = dict[str, int](), dict[tuple[str, str], int]()
    for example in examples:
        asked.setdefault(_asked(example.messages), example.line)
        document, fact = example.meta.get("doc_id"), example.meta.get("fact")
        if document and fact:
            facts.setdefault((str(document), normalised(str(fact))), example.line)
    found = []
    for q in questions:
        words = _asked((*q.history, {"role": "user", "content": q.question}))
        if words and words in asked:
            found.append(Overlap(q.line, asked[words], "the same question"))
        elif q.doc_id and q.fact and (key := (q.doc_id, normalised(q.fact))) in facts:
            found.append(Overlap(q.line, facts[key], f"the same fact of {q.doc_id}"))
    return tuple(found)


def normalised(text: str) -> str:
    """Return the text's words in lower case, one space apart: what is compared to find repeats."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def _with_answer(messages: list[Message]) -> tuple[Message, ...]:
    if not messages or messages[-1]["role"] != "assistant" or not messages[-1]["content"].strip():
        raise Unusable("no answer")
    if any(not m["content"].strip() for m in messages):
        raise Unusable("an empty turn")
    return tuple(messages)


def _question(row: Mapping[str, Any], line: int) -> Question:
    if isinstance(row.get("question"), str):
        extra = row.get("meta")
        meta = {**row, **extra} if isinstance(extra, dict) else dict(row)
        messages = [*system_turn(row.get("system")), {"role": "user", "content": row["question"]}]
        reference = row.get("reference", row.get("reply"))
    else:
        _, messages, meta = chat(row)
        reference = messages.pop()["content"] if messages and messages[-1]["role"] == "assistant" else None
    system = messages.pop(0)["content"] if messages and messages[0]["role"] == "system" else None
    if not messages or messages[-1]["role"] != "user" or not messages[-1]["content"].strip():
        raise Unusable("no question in it")
    references = dict.fromkeys(r for r in (reference, *_strings(meta, "references")) if r)
    return Question(
        id=str(meta.get("id", f"q{line}")),
        question=messages[-1]["content"],
        answers=tuple(_strings(meta, "answers") or _strings(meta, "answer")),
        reference=next(iter(references), None),
        doc_id=None if meta.get("doc_id") is None else str(meta["doc_id"]),
        spans=_spans(meta),
        answerable=_yes(meta.get("answerable", True)),
        system=system,
        fact=None if meta.get("fact") is None else str(meta["fact"]),
        line=line,
        references=tuple(references),
        history=tuple(messages[:-1]),
    )


def _strings(meta: Mapping[str, Any], key: str) -> list[str]:
    value = meta.get(key) or []
    values = [value] if isinstance(value, (str, int, float)) else value
    if not isinstance(values, list):
        raise ValueError(f"{key} must be a list of strings")
    return [str(v) for v in values]


def _spans(meta: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    rows = meta.get("spans") or ([meta] if "start" in meta and "end" in meta else [])
    spans = tuple((int(s["start"]), int(s["end"])) for s in rows)
    if any(start < 0 or end <= start for start, end in spans):
        raise ValueError(f"a span is empty or negative: {spans}")
    return spans


def _yes(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() in {"true", "yes", "1", "false", "no", "0"}:
        return str(value).lower() in {"true", "yes", "1"}
    raise ValueError(f"answerable must be true or false, found {value!r}")


def _asked(messages: Sequence[Message]) -> str:
    return normalised("\n".join(m["content"] for m in messages if m["role"] == "user"))


def _last(messages: Sequence[Message], role: str) -> str:
    return next((m["content"] for m in reversed(messages) if m["role"] == role), "")

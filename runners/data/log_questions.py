"""Questions of a log: what people asked, in their own words and without answers, cleaned for the calibration of refusals.

:func:`load_log_questions` reads a log line by line, be it one question a line, JSON lines or a table: of a long one only a
sample is kept. Personal data of the usual shapes is masked in what it returns. :func:`log_rows` is what a plan's file holds.
"""

from __future__ import annotations

import codecs
import csv
import heapq
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from rag.text.words import count_noun
from runners.data import tabular
from runners.data.examples import normalise_text
from runners.data.formats import AmbiguousColumns, UnusableRow, row_turns
from runners.data.personal_data import mask_personal_data
from runners.data.questions import Question, sure_language

MAX_LOG_QUESTIONS = 2_000
"""Most questions that are kept of a log: a sample of them, drawn by the seed."""
MAX_QUESTION_CHARS = 4_000
"""Characters from which a line is no question, but a pasted document or a dump."""
SHOWN_LINES = 3
"""Damaged lines that are named; all are counted."""
LOG_FORMATS = (
    "one question a line (.txt), JSON lines with question, text, prompt or messages, or a table (.csv, .tsv, .parquet) "
    "with such a column"
)
"""How a log is written, for messages."""
_QUESTION_KEYS = ("question", "text", "query", "message", "prompt", "content", "body")
"""Keys of a question where a row has no format of examples, the likeliest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuestions:
    """The questions of a log that are kept, and what became of the others."""

    texts: tuple[str, ...]
    """In the order of the log, with personal data masked."""
    read: int
    """Lines or rows of the log."""
    blank: int = 0
    repeated: int = 0
    """Questions that an earlier line asks in the same words."""
    damaged: int = 0
    """Lines that hold no question: no UTF-8, broken JSON, other columns, or far too long."""
    damaged_lines: tuple[int, ...] = ()
    """The first of them."""
    left_out: int = 0
    """Questions beyond the sample."""
    tested: int = 0
    """Questions that are left out because the test asks them."""
    masked: Mapping[str, int] = field(default_factory=dict)
    """Texts in which a kind of personal data was masked, by kind."""
    languages: Mapping[str, int] = field(default_factory=dict)
    """Texts that surely are in another language than the documents, by its name."""

    def counts(self) -> dict[str, Any]:
        """Return the counts, for events and ``--json``."""
        return {
            "questions": len(self.texts),
            "read": self.read,
            "blank": self.blank,
            "repeated": self.repeated,
            "damaged": self.damaged,
            "damaged_lines": list(self.damaged_lines),
            "left_out": self.left_out,
            "masked": dict(self.masked),
            "languages": dict(self.languages),
        }

    def notes(self, path: Path | str) -> list[str]:
        """Return what was done with the log, a sentence each."""
        parts = [f"{self.blank:,} blank"] if self.blank else []
        parts += [f"{self.repeated:,} repeated"] if self.repeated else []
        if self.damaged:
            shown = ", ".join(map(str, self.damaged_lines))
            more = ", …" if self.damaged > len(self.damaged_lines) else ""
            parts.append(
                f"{self.damaged:,} damaged ({'line' if self.damaged == 1 else 'lines'} {shown}{more})"
            )
        parts += [f"{self.left_out:,} beyond the sample of {MAX_LOG_QUESTIONS:,}"] if self.left_out else []
        rest = f"; left out: {', '.join(parts)}" if parts else ""
        notes = [
            f"{path}: {count_noun(len(self.texts), 'question')} of {count_noun(self.read, 'line')}{rest}"
        ]
        if self.masked:
            kinds = ", ".join(f"{kind} in {count_noun(n, 'question')}" for kind, n in self.masked.items())
            notes.append(f"masked in what is stored: {kinds}; names and places are not recognised")
        if self.languages:
            others = ", ".join(f"{name} {n}" for name, n in self.languages.items())
            total = sum(self.languages.values())
            notes.append(f"{count_noun(total, 'question')} in another language than the documents: {others}")
        return notes

    def without(self, asked: Sequence[Question]) -> LogQuestions:
        """Return the same without the questions of a test, in any of their wordings: nothing is fitted on those."""
        words = {normalise_text(question.question) for question in asked}
        texts = tuple(text for text in self.texts if normalise_text(text) not in words)
        return replace(self, texts=texts, tested=len(self.texts) - len(texts))


def load_log_questions(path: Path | str, *, seed: int = 0, language: str = "") -> LogQuestions:
    """Read the questions of a log, cleaned, and masked where they hold personal data.

    Of more than :data:`MAX_LOG_QUESTIONS` different questions a sample is kept that depends on the seed and the questions,
    not on their order.

    Args:
        path: a .txt (any file without a known ending), .jsonl, .json, .csv, .tsv or .parquet file.
        seed: of the sample.
        language: name of the documents' language, as ``detect_language`` gives it; "" counts no other language.

    Raises:
        BadInput: the file is missing or has no question in it.
    """
    path = Path(path)
    require_log(path)
    counts: Counter[str] = Counter()
    damaged_lines: list[int] = []
    seen: set[int] = set()
    sample: list[tuple[int, int, str]] = []  # a heap, the largest digest first
    for line, value in _entries(path):
        counts["read"] += 1
        if value is None or _is_damaged(value):
            counts["damaged"] += 1
            damaged_lines += [line] if len(damaged_lines) < SHOWN_LINES else []
            continue
        if not (text := " ".join(value.split())):
            counts["blank"] += 1
            continue
        digest = int.from_bytes(blake2b(f"{seed}\0{text}".encode(), digest_size=8).digest(), "big")
        if digest in seen:
            counts["repeated"] += 1
            continue
        seen.add(digest)
        entry = (-digest, line, text)
        if len(sample) < MAX_LOG_QUESTIONS:
            heapq.heappush(sample, entry)
        else:
            heapq.heappushpop(sample, entry)
    if not sample:
        raise BadInput(f"{path}: no question in {count_noun(counts['read'], 'line')}", f"write {LOG_FORMATS}")
    texts = [text for _, _, text in sorted(sample, key=lambda entry: entry[1])]
    masked = [mask_personal_data(text) for text in texts]
    kinds = Counter(kind for _, kinds_of_text in masked for kind in kinds_of_text)
    names = Counter(sure_language(text) for text in texts) if language else Counter[str]()
    return LogQuestions(
        texts=tuple(text for text, _ in masked),
        read=counts["read"],
        blank=counts["blank"],
        repeated=counts["repeated"],
        damaged=counts["damaged"],
        damaged_lines=tuple(damaged_lines),
        left_out=len(seen) - len(texts),
        masked=dict(kinds.most_common()),
        languages={name: count for name, count in names.most_common() if name not in ("", language)},
    )


def _is_damaged(text: str) -> bool:
    """Return whether a text is too long for a question, or holds half a surrogate pair, which no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return len(text) > MAX_QUESTION_CHARS


def require_log(path: Path) -> None:
    """Raise BadInput where there is no file to read."""
    if not path.is_file():
        reason = "is a folder" if path.is_dir() else "does not exist"
        raise BadInput(f"{path} {reason}", f"name the log of questions: {LOG_FORMATS}")


def log_rows(log: LogQuestions) -> str:
    """Return the content of a plan's wordings.jsonl: a row for each question."""
    return "".join(json.dumps({"question": text}, ensure_ascii=False) + "\n" for text in log.texts)


def _entries(path: Path) -> Iterator[tuple[int, str | None]]:
    """Yield the number and the question of each line or row, None for a damaged one."""
    kind = path.suffix.lower()
    if kind in (".csv", ".tsv"):
        yield from _table_entries(path)
    elif kind in (".jsonl", ".ndjson"):
        for number, line in enumerate(_lines(path), start=1):
            yield number, _json_question(line)
    elif kind in tabular.READERS:
        for number, row in tabular.READERS[kind](path):
            yield number, _row_question(row)
    else:
        yield from enumerate(_lines(path), start=1)


def _lines(path: Path) -> Iterator[str | None]:
    """Yield a file's lines, None for one that is not UTF-8 or holds a null byte."""
    if tabular.encoding_of(path) not in tabular.STREAMED:
        yield from tabular.text_lines(path)
        return
    with path.open("rb") as file:
        for number, line in enumerate(file):
            try:
                text = (line.removeprefix(codecs.BOM_UTF8) if number == 0 else line).decode("utf-8")
            except UnicodeDecodeError:
                yield None
            else:
                yield None if "\0" in text else text


def _json_question(line: str | None) -> str | None:
    if line is None or not line.strip():
        return line
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return _row_question(value) if isinstance(value, dict) else value if isinstance(value, str) else None


def _row_question(row: Mapping[str, Any]) -> str | None:
    """Return the question of a row: under its own key, the last user turn of a chat, or a text; None without one."""
    if isinstance(row.get("question"), str):
        return str(row["question"])
    try:
        turns = row_turns(row)
    except (UnusableRow, AmbiguousColumns, TypeError, ValueError):
        values = {str(key).strip().lower(): value for key, value in row.items()}
        return next((values[key] for key in _QUESTION_KEYS if isinstance(values.get(key), str)), None)
    role = "assistant" if turns.columns.format == "text" else "user"
    return next((turn["content"] for turn in reversed(turns.messages) if turn["role"] == role), "")


def _table_entries(path: Path) -> Iterator[tuple[int, str | None]]:
    """Yield the rows of a table; a table of one column needs no name for it."""
    undecodable: set[int] = set()

    def texts() -> Iterator[str]:
        for number, line in enumerate(_lines(path), start=1):
            if line is None:
                undecodable.add(number)
            yield line or "\n"

    csv.field_size_limit(tabular.MAX_FIELD_BYTES)
    reader = csv.reader(texts(), delimiter=tabular.detect_delimiter(path))
    names = [name.strip() for name in next(reader, [])]
    alone = len(names) == 1 and _row_question({names[0]: "?"}) is None
    if alone and names[0]:
        yield 1, names[0]
    start = reader.line_num + 1
    for values in reader:
        lost = any(number in undecodable for number in range(start, reader.line_num + 1))
        text: str | None = None
        if not values and not lost:
            text = ""
        elif len(values) == len(names) and not lost:
            text = values[0] if alone else _row_question(dict(zip(names, values, strict=True)))
        if (
            text is None or len(text) > MAX_QUESTION_CHARS
        ):  # a quote that is not closed takes the lines after it, too
            yield from ((number, None) for number in range(start, reader.line_num + 1))
        else:
            yield start, text
        start = reader.line_num + 1

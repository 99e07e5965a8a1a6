"""Read logs row by row: the questions that were asked, each with the turns before it, and what no question could be
read of.

A row that ends with the user's turn is a request, and asks that turn. One that ends with an answer is a whole chat,
and asks every turn of the user's that no earlier row of the same chat asked. One that ends with a tool's result
goes on with a question that was asked before. Of one trace the same question counts once: agents send it again with
each step.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from runners.data import tabular
from runners.data.personal_data import mask_personal_data
from runners.logs.log_forms import (
    FORMS,
    TABLE,
    Chat,
    Conversations,
    NoChat,
    Turn,
    detect_form,
    row_chats,
    table_columns,
)

FIRST_ROWS = 200
"""Rows by which the form of a file is known."""
SHOWN_ROWS = 3
"""Rows of an unknown form that are shown, and damaged lines that are named."""
SHOWN_CHARS = 120
TABLE_SUFFIXES = (".csv", ".tsv")


@dataclass(frozen=True, slots=True)
class Asked:
    """One question of a log, as it was asked."""

    text: str
    before: tuple[Turn, ...] = ()
    """The turns before it, without system turns."""


@dataclass(slots=True)
class LogReader:
    """Reads one log after the other and counts what holds no question."""

    columns: Mapping[str, str] | None = None
    """Columns of tables by their role."""
    forms: dict[str, str] = field(default_factory=dict)
    """Form of each file that was read."""
    counts: Counter[str] = field(default_factory=Counter)
    """rows; damaged; without (spans of no request, rows without a user's turn); continued (the same question again)."""
    damaged: list[str] = field(default_factory=list)
    """Places of the first damaged rows."""
    unknown_authors: Counter[str] = field(default_factory=Counter)
    """Authors of tables who are taken as people who ask, as no list knows them, with their rows."""
    _chats: set[bytes] = field(default_factory=set)
    _traced: set[bytes] = field(default_factory=set)

    def read(self, path: Path) -> Iterator[Asked]:
        """Yield the questions of a log in its order.

        Raises:
            BadInput: there is no such file, it is empty, or its form is unknown.
        """
        if not path.is_file():
            reason = "is a folder" if path.is_dir() else "does not exist"
            raise BadInput(f"{path} {reason}", "name the files of the log")
        if path.suffix.lower() in TABLE_SUFFIXES:
            self.forms[str(path)] = TABLE
            yield from self._table(path)
            return
        first = [row for _, row in islice(_json_rows(path), FIRST_ROWS)]
        form = detect_form([row for row in first if row is not None])
        if not form:
            raise _unknown_form(path, len(first))
        self.forms[str(path)] = form
        for line, row in _json_rows(path):
            self.counts["rows"] += 1
            try:
                if row is None:
                    raise NoChat("broken JSON, or no UTF-8")
                chats = row_chats(form, row)
            except NoChat:
                self._damage(path, line)
                continue
            if not chats:
                self.counts["without"] += 1
            for chat in chats:
                yield from self._questions(chat)

    def _damage(self, path: Path, line: int) -> None:
        self.counts["damaged"] += 1
        if len(self.damaged) < SHOWN_ROWS:
            self.damaged.append(f"{path.name}:{line}")

    def _table(self, path: Path) -> Iterator[Asked]:
        """Yield the questions of a table; rows with another number of values than columns are damaged."""
        csv.field_size_limit(tabular.MAX_FIELD_BYTES)
        reader = csv.reader(_texts(path), delimiter=tabular.detect_delimiter(path))
        try:
            names = [name.strip() for name in next(reader, [])]
        except csv.Error as error:
            raise BadInput(f"{path}:1: broken CSV: {error}", "save the table again as CSV") from None
        if not names:
            raise BadInput(f"{path} is empty", "name a log with rows in it")
        conversations = Conversations(table_columns(names, self.columns))
        while True:
            line = reader.line_num + 1
            try:
                values = next(reader, None)
            except csv.Error:
                self.counts["rows"] += 1
                self._damage(path, line)
                continue
            if values is None:
                self.unknown_authors.update(conversations.unknown)
                return
            if not values:
                continue
            self.counts["rows"] += 1
            if len(values) != len(names):
                self._damage(path, line)
                continue
            chats = conversations.chats(dict(zip(names, values, strict=True)))
            self.counts["without"] += not chats
            for chat in chats:
                yield from self._questions(chat)

    def _questions(self, chat: Chat) -> Iterator[Asked]:
        """Yield the questions that a chat asks and that no earlier row of the same chat or trace did."""
        turns = [turn for turn in chat.turns if turn.role != "system"]
        if not any(turn.role == "user" for turn in turns):
            self.counts["without"] += 1
            return
        last = turns[-1].role
        if last == "tool":
            self.counts["continued"] += 1
            return
        start = len(turns) - 1
        if last == "assistant":
            start = self._new_from(turns)
        for number in range(start, len(turns)):
            if turns[number].role != "user":
                continue
            asked = Asked(turns[number].text, tuple(turn for turn in turns[:number] if turn.role != "tool"))
            if chat.trace:
                key = _digest(chat.trace, asked.text)
                if key in self._traced:
                    self.counts["continued"] += 1
                    continue
                self._traced.add(key)
            yield asked

    def _new_from(self, turns: Sequence[Turn]) -> int:
        """Return the place of the first turn that is not part of an earlier row of the same chat, and keep the chat."""
        ends = [n for n, turn in enumerate(turns) if turn.role == "assistant"]
        digests, state = {}, blake2b(digest_size=12)
        for number, turn in enumerate(turns):
            state.update(f"{turn.role}\0{turn.text}\0".encode("utf-8", "surrogatepass"))
            digests[number] = state.copy().digest()
        start = next((n + 1 for n in reversed(ends[:-1]) if digests[n] in self._chats), 0)
        self._chats.add(digests[ends[-1]])
        return start


def _digest(*texts: str) -> bytes:
    return blake2b("\0".join(texts).encode("utf-8", "surrogatepass"), digest_size=12).digest()


def _lines(path: Path) -> Iterator[str | None]:
    """Yield a file's lines, None for one that is not UTF-8 or holds a null byte."""
    if tabular.encoding_of(path) not in tabular.STREAMED:
        yield from tabular.text_lines(path)
        return
    with path.open("rb") as file:
        for line in file:
            try:
                text = line.decode("utf-8-sig")
            except UnicodeDecodeError:
                yield None
            else:
                yield None if "\0" in text else text


def _texts(path: Path) -> Iterator[str]:
    """Yield the lines of a table, for one that cannot be decoded a lone surrogate: that row is then counted as
    damaged.
    """
    return (line if line is not None else "\udcff\n" for line in _lines(path))


def _json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield line and value of each row: of JSON lines, or the entries of one JSON document; None for a damaged line."""
    if path.suffix.lower() == ".json" and (rows := _whole(path)) is not None:
        yield from enumerate(rows, start=1)
        return
    for number, line in enumerate(_lines(path), start=1):
        if line is not None and not line.strip():
            continue
        try:
            yield number, None if line is None else json.loads(line)
        except (ValueError, RecursionError):
            yield number, None


def _whole(path: Path) -> list[Any] | None:
    """Return the entries of a file that is one JSON document; None for JSON lines under the name .json."""
    try:
        value = json.loads(tabular.read_text(path))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) else [value]


def _unknown_form(path: Path, read: int) -> BadInput:
    """Return the error for a file of no known form: what was looked for, and its first rows, masked."""
    if not read:
        return BadInput(f"{path} is empty", "name a log with rows in it")
    rows = [
        text for line in islice(_lines(path), 50) if line is not None and (text := " ".join(line.split()))
    ]
    shown = [mask_personal_data(text)[0][:SHOWN_CHARS] for text in rows[:SHOWN_ROWS]]
    return BadInput(
        f"{path}: no row has a known form; its first rows: " + " | ".join(shown),
        f"looked for: {'; '.join(FORMS.values())}",
    )

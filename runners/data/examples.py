"""What an example is, and all that is known of a set of them.

Examples for tuning: a file or a folder of them read, the format of each row detected.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from runners.data import tabular
from runners.data import tabular as table
from runners.data.formats import (
    AmbiguousColumns,
    Columns,
    Message,
    RowTurns,
    UnusableRow,
    declared_columns,
    row_turns,
)
from runners.data.refusals import is_refusal
from runners.data.tabular import ExampleFiles, SkippedFile, read_text

RowPlace = int | str
"""Where a row is: its line, or text that names one (a file and its line, two lines that belong together)."""


@dataclass(frozen=True, slots=True)
class Example:
    """One chat to learn from, whose last turn is the assistant's; or one text, as a single assistant turn."""

    messages: tuple[Message, ...]
    meta: dict[str, Any] = field(default_factory=dict)
    """Every key of the row that is not the chat itself; never shown to a model."""
    line: int = 0
    file: str = ""
    """The file within the folder that was given; "" when a single file was."""
    tools: tuple[dict[str, Any], ...] = ()
    """What the chat may call, shown to the model as its template does."""

    @property
    def raw(self) -> bool:
        """Return whether this is a text to learn as it is, every token of it, and not a chat."""
        return len(self.messages) == 1

    @property
    def place(self) -> str:
        """Return where the row stands: ``line 3``, or ``part/a.jsonl:3`` in a folder."""
        return f"{self.file}:{self.line}" if self.file else f"line {self.line}"

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

    @property
    def refuses(self) -> bool:
        """Return whether the reply says that the documents do not hold it: by its ``meta.refusal``, else by its words."""
        flag = self.meta.get("refusal")
        return is_refusal(self.reply, ()) if flag is None else flag is True


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that cannot be used, and why."""

    line: int
    reason: str
    file: str = ""


@dataclass(frozen=True, slots=True)
class ExampleSet:
    """All usable examples of a file or folder, how they were understood, and all that was left out."""

    rows: tuple[Example, ...]
    format: str
    rejected: tuple[RejectedRow, ...] = ()
    duplicates: int = 0
    """Rows whose normalised chat equals an earlier row's; they are counted, not dropped."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """The column that was taken as prompt, reply, system, ...; several names when rows differ."""
    kept: tuple[str, ...] = ()
    """The other columns: kept as meta, never shown to a model."""
    files: tuple[str, ...] = ()
    skipped: tuple[SkippedFile, ...] = ()
    """Files of a folder that are not read."""
    notes: tuple[str, ...] = ()
    """What else was detected: encodings, separators, columns left unread."""
    total: int = 0
    """Rows in the files; more than were read when only some were asked for."""


def row_place(row: Example) -> RowPlace:
    """Return a row's line, with its file when a folder was given."""
    return f"{row.file}:{row.line}" if row.file else row.line


def normalise_text(text: str) -> str:
    """Return the text's words in lower case, one space apart: what is compared to find repeats."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def _last(messages: Sequence[Message], role: str) -> str:
    return next((m["content"] for m in reversed(messages) if m["role"] == role), "")


MAX_REJECTED_SHARE = 0.05
"""More unusable rows than this and the file is refused: it is hardly what the user thinks."""
MAX_REASONS_SHOWN = 3
"""Reasons told of unusable rows, and places of each."""


def load_examples(
    path: Path | str, columns: Mapping[str, str] | None = None, most: int | None = None
) -> ExampleSet:
    """Read a file or folder of examples, detecting each row's format, or by the ``columns`` that are named.

    With ``most`` only that many rows are read, and the others counted. Raises BadInput (with its place) on a
    broken row, on columns that can be understood in several ways, on chats and plain texts in one set, or
    when over 5 % of the rows are unusable: no answer, an empty turn, an unknown role or shape.
    """
    found = tabular.find_example_files(Path(path))
    given = declared_columns(columns) if columns else None
    seen = _Seen()
    for file in found.files:
        left = None if most is None else most - len(seen.rows) - len(seen.rejected)
        if left is None or left > 0:
            _read_file(found, file, given, left, seen)
    _require_usable(Path(path), seen)
    keys = [tuple((m["role"], normalise_text(m["content"])) for m in row.messages) for row in seen.rows]
    read = len(seen.rows) + len(seen.rejected)
    return ExampleSet(
        rows=tuple(seen.rows),
        format="+".join(sorted(seen.formats)),
        rejected=tuple(seen.rejected),
        duplicates=len(keys) - len(set(keys)),
        columns={role: ", ".join(names) for role, names in seen.columns.items()},
        kept=tuple(seen.kept),
        files=tuple(found.name(file) for file in found.files),
        skipped=found.skipped,
        notes=tuple(seen.notes),
        total=read if most is None or read < most else sum(_count(file) for file in found.files),
    )


class _Seen:
    """What reading has gathered so far."""

    def __init__(self) -> None:
        self.rows: list[Example] = []
        self.rejected: list[RejectedRow] = []
        self.formats: set[str] = set()
        self.columns: dict[str, dict[str, None]] = {}
        self.kept: dict[str, None] = {}
        self.notes: list[str] = []

    def add(self, turns: RowTurns, file: str, line: int) -> None:
        """Keep a usable row, and how it was understood."""
        messages = _usable(turns)
        self.rows.append(Example(messages, turns.meta, line, file, turns.tools))
        self.formats.add(turns.columns.format)
        for role, name in turns.columns.of.items():
            self.columns.setdefault(role, {})[name] = None
        self.kept.update(dict.fromkeys(turns.meta))


def _read_file(found: ExampleFiles, file: Path, given: Columns | None, most: int | None, seen: _Seen) -> None:
    name, inside = found.name(file), "" if file == found.root else found.name(file)
    if file.suffix.lower() in tabular.TEXT_SUFFIXES:
        if not file.is_file():
            raise BadInput(f"{file} does not exist")
        rows: list[table.Row] = [(1, {"text": read_text(file)})]
    else:
        rows = table.read_rows(file, most)
        seen.notes += [f"{name}: {remark}" for remark in table.describe_file(file)]
    for line, row in rows:
        try:
            seen.add(row_turns(row, given), inside, line)
        except AmbiguousColumns as question:
            raise BadInput(f"{file}:{line}: {question}", question.hint) from None
        except UnusableRow as reason:
            seen.rejected.append(RejectedRow(line, str(reason), name))


def _count(file: Path) -> int:
    return 1 if file.suffix.lower() in tabular.TEXT_SUFFIXES else table.count_rows(file)


def _require_usable(path: Path, seen: _Seen) -> None:
    total = len(seen.rows) + len(seen.rejected)
    if len(seen.rejected) > MAX_REJECTED_SHARE * total:
        raise BadInput(
            f"{path}: {len(seen.rejected)} of {total} examples cannot be used "
            f"({'; '.join(_reasons(seen.rejected, path.is_dir()))})",
            "each example needs a prompt and an answer under the usual names, or --columns prompt=...,reply=...; "
            "see `tunewise train --help` for the formats",
        )
    texts = sum(row.raw for row in seen.rows)
    if texts and texts < len(seen.rows):
        raise BadInput(
            f"{path}: {len(seen.rows) - texts} chats and {texts} plain texts are mixed; every token of a text is "
            "learnt, but only the answers of a chat",
            "train on the texts first, then go on from that adapter on the chats",
        )


def _reasons(rejected: Sequence[RejectedRow], inside: bool) -> list[str]:
    """Return the first few reasons, each once with its first few places; ``inside`` a folder these name files."""
    places: dict[str, list[str]] = {}
    for row in rejected:
        places.setdefault(row.reason, []).append(f"{row.file}:{row.line}" if inside else str(row.line))
    told = []
    for reason, found in islice(places.items(), MAX_REASONS_SHOWN):
        kind = "" if inside else "line " if len(found) == 1 else "lines "
        more = ", …" if len(found) > MAX_REASONS_SHOWN else ""
        told.append(f"{kind}{', '.join(found[:MAX_REASONS_SHOWN])}{more}: {reason}")
    return told


def _usable(turns: RowTurns) -> tuple[Message, ...]:
    """Return the turns when something can be learnt from them, else raise Unusable."""
    messages = turns.messages
    last = messages[-1] if messages else {"role": "", "content": ""}
    if turns.columns.format == "text" and not last["content"].strip():
        raise UnusableRow("an empty text")
    if last["role"] != "assistant" or not last["content"].strip() or "tool_calls" in last:
        raise UnusableRow("no answer")
    if turns.columns.format != "text" and all(m["role"] != "user" for m in messages):
        raise UnusableRow("no prompt")
    if any(not m["content"].strip() and m["role"] != "tool" and "tool_calls" not in m for m in messages):
        raise UnusableRow("an empty turn")
    return tuple(messages)

"""Examples for tuning: a file or a folder of them read, the format of each row detected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from rag.errors import BadInput
from runners import rows as table
from runners import sources
from runners.columns import Ambiguous, Columns, declared
from runners.encodings import read_text
from runners.example import Example, ExampleSet, Rejected, normalised
from runners.shapes import Message, Turns, Unusable, chat
from runners.sources import Sources

MAX_REJECTED_SHARE = 0.05
"""More unusable rows than this and the file is refused: it is hardly what the user thinks."""
REASONS = 3
"""Reasons told of unusable rows, and places of each."""


def load_examples(
    path: Path | str, columns: Mapping[str, str] | None = None, most: int | None = None
) -> ExampleSet:
    """Read a file or folder of examples, detecting each row's format, or by the ``columns`` that are named.

    With ``most`` only that many rows are read, and the others counted. Raises BadInput (with its place) on a
    broken row, on columns that can be understood in several ways, on chats and plain texts in one set, or
    when over 5 % of the rows are unusable: no answer, an empty turn, an unknown role or shape.
    """
    found = sources.find(Path(path))
    given = declared(columns) if columns else None
    seen = _Seen()
    for file in found.files:
        left = None if most is None else most - len(seen.rows) - len(seen.rejected)
        if left is None or left > 0:
            _read_file(found, file, given, left, seen)
    _require_usable(Path(path), seen)
    keys = [tuple((m["role"], normalised(m["content"])) for m in row.messages) for row in seen.rows]
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
        self.rejected: list[Rejected] = []
        self.formats: set[str] = set()
        self.columns: dict[str, dict[str, None]] = {}
        self.kept: dict[str, None] = {}
        self.notes: list[str] = []

    def add(self, turns: Turns, file: str, line: int) -> None:
        """Keep a usable row, and how it was understood."""
        messages = _usable(turns)
        self.rows.append(Example(messages, turns.meta, line, file, turns.tools))
        self.formats.add(turns.columns.format)
        for role, name in turns.columns.of.items():
            self.columns.setdefault(role, {})[name] = None
        self.kept.update(dict.fromkeys(turns.meta))


def _read_file(found: Sources, file: Path, given: Columns | None, most: int | None, seen: _Seen) -> None:
    name, inside = found.name(file), "" if file == found.root else found.name(file)
    if file.suffix.lower() in sources.TEXTS:
        if not file.is_file():
            raise BadInput(f"{file} does not exist")
        rows: list[table.Row] = [(1, {"text": read_text(file)})]
    else:
        rows = table.read_rows(file, most)
        seen.notes += [f"{name}: {remark}" for remark in table.remarks(file)]
    for line, row in rows:
        try:
            seen.add(chat(row, given), inside, line)
        except Ambiguous as question:
            raise BadInput(f"{file}:{line}: {question}", question.hint) from None
        except Unusable as reason:
            seen.rejected.append(Rejected(line, str(reason), name))


def _count(file: Path) -> int:
    return 1 if file.suffix.lower() in sources.TEXTS else table.count_rows(file)


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


def _reasons(rejected: Sequence[Rejected], inside: bool) -> list[str]:
    """Return the first few reasons, each once with its first few places; ``inside`` a folder these name files."""
    places: dict[str, list[str]] = {}
    for row in rejected:
        places.setdefault(row.reason, []).append(f"{row.file}:{row.line}" if inside else str(row.line))
    told = []
    for reason, found in islice(places.items(), REASONS):
        kind = "" if inside else "line " if len(found) == 1 else "lines "
        more = ", …" if len(found) > REASONS else ""
        told.append(f"{kind}{', '.join(found[:REASONS])}{more}: {reason}")
    return told


def _usable(turns: Turns) -> tuple[Message, ...]:
    """Return the turns when something can be learnt from them, else raise Unusable."""
    messages = turns.messages
    last = messages[-1] if messages else {"role": "", "content": ""}
    if turns.columns.format == "text" and not last["content"].strip():
        raise Unusable("an empty text")
    if last["role"] != "assistant" or not last["content"].strip() or "tool_calls" in last:
        raise Unusable("no answer")
    if turns.columns.format != "text" and all(m["role"] != "user" for m in messages):
        raise Unusable("no prompt")
    if any(not m["content"].strip() and m["role"] != "tool" and "tool_calls" not in m for m in messages):
        raise Unusable("an empty turn")
    return tuple(messages)

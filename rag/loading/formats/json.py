"""JSON files, and files of rows (``.jsonl``).

A JSON file becomes one document (:func:`read`): its records and settings are blocks "key: value; key: value",
each with its position in the raw file. Each row ``{"id", "title", "text", ...}`` of a ``.jsonl`` file becomes
a document (:func:`read_jsonl`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from rag.loading.base import (
    Skipped,
    UnreadableFile,
    line_spans,
    make_document,
    paragraphs,
    printable,
    title_from,
)
from rag.loading.encoding import decode_bytes
from rag.loading.metadata import iso_date
from rag.loading.offsets import Offsets
from rag.types import Block, Document

_WHITESPACE = re.compile(r"[ \t\r\n]*")
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)", re.S
)
_MAX_RECORD_CHARS = 600
"""A larger value is split into its members, down to ``_MAX_DEPTH`` levels."""
_LONG_TEXT_CHARS = 200
"""A longer string becomes a paragraph of its own."""
_MAX_DEPTH = 8


def read(id: str, data: bytes) -> Iterator[Document]:
    """Yield the file as one document; the heading of a block is the path of keys that leads to it."""
    raw, meta = decode_bytes(data)
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    try:
        start = _WHITESPACE.match(raw).end()  # type: ignore[union-attr]
        value, end = decoder.raw_decode(raw, start)
        if raw[end:].strip():
            raise UnreadableFile(f"not JSON: more text after its end at character {end}")
        title = value.get("title") if isinstance(value, dict) else None
        title = title if isinstance(title, str) and title.strip() else title_from(id)
        blocks = list(_JsonWalk(raw, decoder).blocks(start, (), 0))
        "".join(block.text for block in blocks).encode("utf-8")
    except UnicodeEncodeError:
        raise UnreadableFile("it has half a surrogate pair, which is no character") from None
    except (ValueError, RecursionError) as error:
        raise UnreadableFile(f"not JSON: {error}"[:200] or "nested too deeply") from error
    yield make_document(id, title, raw, blocks, "json", meta)


def read_jsonl(id: str, data: bytes) -> Iterator[Document | Skipped]:
    """Yield one document per row; a broken row is skipped with its file, line and reason."""
    raw, meta = decode_bytes(data)
    seen: dict[str, int] = {}
    for line, (start, end) in enumerate(line_spans(raw), start=1):
        if not raw[start:end].strip():
            continue
        try:
            document = _row_document(raw[start:end], meta)
            if document.id in seen:
                raise UnreadableFile(f"the id {document.id!r} is already used on line {seen[document.id]}")
        except UnreadableFile as error:
            yield Skipped(f"{id}:{line}", printable(str(error)))
            continue
        seen[document.id] = line
        yield document


def row_ids(path: Path) -> list[str]:
    """Return the ids of the rows of a ``.jsonl`` file; lines that are no row with an id are left out.

    Raises:
        BadInput: the file cannot be read.
    """
    ids: list[str] = []
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(row, dict) and isinstance(row.get("id"), str | int):
                    ids.append(str(row["id"]))
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from error
    return ids


class _JsonWalk:
    """Descends a JSON text and decodes value by value, so that each keeps its position."""

    def __init__(self, raw: str, decoder: json.JSONDecoder) -> None:
        self._raw = raw
        self._decoder = decoder

    def blocks(self, at: int, path: tuple[str, ...], depth: int) -> Iterator[Block]:
        """Yield the blocks of the value that begins at ``at``."""
        value, end = self._decoder.raw_decode(self._raw, at)
        heading = " > ".join(key for key in path if key)
        if isinstance(value, str) and len(value) > _LONG_TEXT_CHARS:
            yield self._text(value, at, end, heading)
            return
        text = _readable(value)
        record = depth > 0 and len(text) <= _MAX_RECORD_CHARS and not _holds_long_text(value)
        if not isinstance(value, (dict, list)) or not value or depth >= _MAX_DEPTH or record:
            yield Block("row", text, at, end, heading)
        else:
            yield from self._split(at, isinstance(value, dict), path, depth, heading)

    def _split(
        self, at: int, keyed: bool, path: tuple[str, ...], depth: int, heading: str
    ) -> Iterator[Block]:
        """Yield the blocks of an object's or a list's members; consecutive short ones share a block.

        Args:
            at: offset of the container in the raw text.
            keyed: whether it is an object.
            path: keys that lead to it.
            depth: number of containers around it.
            heading: heading of its blocks.
        """
        collected: list[str] = []
        first = last = at
        for key, member_at in self._members(at, keyed):
            value, end = self._decoder.raw_decode(self._raw, member_at)
            small = not isinstance(value, (dict, list)) and len(str(value)) <= _LONG_TEXT_CHARS
            if collected and (not small or sum(map(len, collected)) > _MAX_RECORD_CHARS):
                yield Block("row", "; ".join(collected), first, last, heading)
                collected = []
            if not small:
                yield from self.blocks(member_at, (*path, key), depth + 1)
            elif value not in (None, ""):
                first = first if collected else member_at
                last = end
                collected.append(f"{key}: {_readable(value)}" if key else _readable(value))
        if collected:
            yield Block("row", "; ".join(collected), first, last, heading)

    def _members(self, at: int, keyed: bool) -> Iterator[tuple[str, int]]:
        """Yield key (empty in a list) and offset of each member of the object or list at ``at``."""
        at = self._skip_whitespace(at + 1)
        while self._raw[at] not in "}]":
            key = ""
            if keyed:
                key, at = self._decoder.raw_decode(self._raw, at)
                at = self._skip_whitespace(self._skip_whitespace(at) + 1)  # past the colon
            yield key, at
            _, at = self._decoder.raw_decode(self._raw, at)
            at = self._skip_whitespace(at)
            if self._raw[at] == ",":
                at = self._skip_whitespace(at + 1)

    def _skip_whitespace(self, at: int) -> int:
        return _WHITESPACE.match(self._raw, at).end()  # type: ignore[union-attr]

    def _text(self, value: str, at: int, end: int, heading: str) -> Block:
        """Return a long string as a block with the raw offset of every character; an escape sequence is one character."""
        begin = at + 1  # past the quotation mark
        runs = [(0, begin)]
        length = 0
        for match in _ESCAPE.finditer(self._raw, at + 1, end - 1):
            length += match.start() - begin
            # One character at the escape, and a new run after it, because the escape is longer than the
            # character.
            runs += [(length, match.start()), (length + 1, match.end())]
            length += 1
            begin = match.end()
        return Block("paragraph", value, at + 1, end - 1, heading, Offsets(runs, len(value)))


def _holds_long_text(value: Any, depth: int = 0) -> bool:
    """Return whether a value is, or contains, a long string."""
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if isinstance(value, str) or depth > _MAX_DEPTH:
        return isinstance(value, str) and len(value) > _LONG_TEXT_CHARS
    return any(_holds_long_text(member, depth + 1) for member in members)


def _readable(value: Any) -> str:
    """Return a value as readable text: "key: value; key: value", lists with commas."""
    if isinstance(value, dict):
        return "; ".join(
            f"{key}: {_readable(inner)}" for key, inner in value.items() if inner not in (None, "", [], {})
        )
    if isinstance(value, list):
        return ", ".join(_readable(inner) for inner in value)
    return value if isinstance(value, str) else json.dumps(value)


def _row_document(line: str, meta: dict[str, Any]) -> Document:
    """Return the document of one row; UnreadableFile when the row is broken."""
    row = _parse_row(line)
    for key in ("id", "text"):
        if key not in row:
            raise UnreadableFile(f"no {key!r} key")
    name = row.pop("id")
    title = row.pop("title", None) or ""
    text = row.pop("text")
    if isinstance(name, bool) or not isinstance(name, (str, int)) or str(name).strip() == "":
        raise UnreadableFile(f"'id' must be a text or a whole number, not {name!r:.40}")
    if printable(str(name)) != str(name):
        raise UnreadableFile(f"'id' has characters that cannot be printed: {printable(str(name))!r:.60}")
    if not isinstance(text, str) or not isinstance(title, str):
        raise UnreadableFile("'title' and 'text' must be texts")
    row |= {key: iso_date(row[key]) for key in ("date", "updated", "valid_from", "valid_until") if key in row}
    return make_document(str(name), title, text, paragraphs(text), "row", {**row, **meta})


def _parse_row(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line, parse_constant=_refuse_constant)
        json.dumps(row, ensure_ascii=False).encode("utf-8")  # fails on half a surrogate pair
    except UnicodeEncodeError:
        raise UnreadableFile("it has half a surrogate pair, which is no character") from None
    except (ValueError, RecursionError) as error:
        raise UnreadableFile(f"not JSON: {error}") from error
    if not isinstance(row, dict):
        raise UnreadableFile(f"not an object but a {type(row).__name__}")
    return row


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")

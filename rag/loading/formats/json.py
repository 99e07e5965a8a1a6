"""JSON: records and settings as blocks "key: value; key: value", each with its place in the raw file.

Rows of a ``.jsonl`` file: each ``{"id", "title", "text", ...}`` is a document of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

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

_SPACE = re.compile(r"[ \t\r\n]*")
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)", re.S
)
_LARGEST_RECORD = 600
"""Characters; a larger value is taken apart into its members, down to ``_DEEPEST`` levels."""
_LONG_TEXT = 200
_DEEPEST = 8


def read(id: str, data: bytes) -> Iterator[Document]:
    """Yield the file as one document; the heading of a block is the path of keys that leads to it."""
    raw, meta = decode_bytes(data)
    decoder = json.JSONDecoder(parse_constant=_no_constant)
    try:
        start = _SPACE.match(raw).end()  # type: ignore[union-attr]
        value, end = decoder.raw_decode(raw, start)
        if raw[end:].strip():
            raise UnreadableFile(f"not JSON: more text after its end at character {end}")
        title = value.get("title") if isinstance(value, dict) else None
        title = title if isinstance(title, str) and title.strip() else title_from(id)
        blocks = list(_Walk(raw, decoder).blocks(start, (), 0))
        "".join(block.text for block in blocks).encode("utf-8")
    except UnicodeEncodeError:
        raise UnreadableFile("it holds half a surrogate pair, which is no character") from None
    except (ValueError, RecursionError) as error:
        raise UnreadableFile(f"not JSON: {error}"[:200] or "nested too deeply") from error
    yield make_document(id, title, raw, blocks, "json", meta)


class _Walk:
    """Goes down a JSON text, decoding value by value where it stands."""

    def __init__(self, raw: str, decoder: json.JSONDecoder) -> None:
        self._raw = raw
        self._decoder = decoder

    def blocks(self, at: int, path: tuple[str, ...], depth: int) -> Iterator[Block]:
        """Yield the blocks of the value that begins at ``at``."""
        value, end = self._decoder.raw_decode(self._raw, at)
        heading = " > ".join(key for key in path if key)
        if isinstance(value, str) and len(value) > _LONG_TEXT:
            yield self._text(value, at, end, heading)
            return
        text = _shown(value)
        record = depth > 0 and len(text) <= _LARGEST_RECORD and not _holds_long_text(value)
        if not isinstance(value, (dict, list)) or not value or depth >= _DEEPEST or record:
            yield Block("row", text, at, end, heading)
        else:
            yield from self._apart(at, isinstance(value, dict), path, depth, heading)

    def _apart(
        self, at: int, keyed: bool, path: tuple[str, ...], depth: int, heading: str
    ) -> Iterator[Block]:
        """Yield a container's members; short ones that follow each other share a block."""
        held: list[str] = []
        first = last = at
        for key, place in self._members(at, keyed):
            value, end = self._decoder.raw_decode(self._raw, place)
            small = not isinstance(value, (dict, list)) and len(str(value)) <= _LONG_TEXT
            if held and (not small or sum(map(len, held)) > _LARGEST_RECORD):
                yield Block("row", "; ".join(held), first, last, heading)
                held = []
            if not small:
                yield from self.blocks(place, (*path, key), depth + 1)
            elif value not in (None, ""):
                first = first if held else place
                last = end
                held.append(f"{key}: {_shown(value)}" if key else _shown(value))
        if held:
            yield Block("row", "; ".join(held), first, last, heading)

    def _members(self, at: int, keyed: bool) -> Iterator[tuple[str, int]]:
        """Yield key (empty in a list) and place of each member of the object or list at ``at``."""
        at = self._past(at + 1)
        while self._raw[at] not in "}]":
            key = ""
            if keyed:
                key, at = self._decoder.raw_decode(self._raw, at)
                at = self._past(self._past(at) + 1)
            yield key, at
            _, at = self._decoder.raw_decode(self._raw, at)
            at = self._past(at)
            if self._raw[at] == ",":
                at = self._past(at + 1)

    def _past(self, at: int) -> int:
        return _SPACE.match(self._raw, at).end()  # type: ignore[union-attr]

    def _text(self, value: str, at: int, end: int, heading: str) -> Block:
        """Return a long text with the place of every character, escapes counted as one."""
        runs, length, begin = [(0, at + 1)], 0, at + 1
        for match in _ESCAPE.finditer(self._raw, at + 1, end - 1):
            length += match.start() - begin
            runs += [(length, match.start()), (length + 1, match.end())]
            length, begin = length + 1, match.end()
        return Block("paragraph", value, at + 1, end - 1, heading, Offsets(runs, len(value)))


def _holds_long_text(value: Any, depth: int = 0) -> bool:
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if isinstance(value, str) or depth > _DEEPEST:
        return isinstance(value, str) and len(value) > _LONG_TEXT
    return any(_holds_long_text(member, depth + 1) for member in members)


def _shown(value: Any) -> str:
    """Return a value as a reader wants it: "key: value; key: value", lists with commas."""
    if isinstance(value, dict):
        return "; ".join(
            f"{key}: {_shown(inner)}" for key, inner in value.items() if inner not in (None, "", [], {})
        )
    if isinstance(value, list):
        return ", ".join(_shown(inner) for inner in value)
    return value if isinstance(value, str) else json.dumps(value)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def read_jsonl(id: str, data: bytes) -> Iterator[Document | Skipped]:
    """Yield one document per row; a broken row is skipped with its file, line and reason."""
    raw, meta = decode_bytes(data)
    seen: dict[str, int] = {}
    for line, (start, end) in enumerate(line_spans(raw), start=1):
        if not raw[start:end].strip():
            continue
        try:
            found = _document(raw[start:end], meta)
            if found.id in seen:
                raise UnreadableFile(f"the id {found.id!r} is already used on line {seen[found.id]}")
        except UnreadableFile as error:
            yield Skipped(f"{id}:{line}", printable(str(error)))
            continue
        seen[found.id] = line
        yield found


def _document(line: str, meta: dict[str, Any]) -> Document:
    row = _parse(line)
    for key in ("id", "text"):
        if key not in row:
            raise UnreadableFile(f"no {key!r} key")
    name, title, text = row.pop("id"), row.pop("title", None) or "", row.pop("text")
    if isinstance(name, bool) or not isinstance(name, (str, int)) or str(name).strip() == "":
        raise UnreadableFile(f"'id' must be a text or a whole number, not {name!r:.40}")
    if printable(str(name)) != str(name):
        raise UnreadableFile(f"'id' holds characters that cannot be printed: {printable(str(name))!r:.60}")
    if not isinstance(text, str) or not isinstance(title, str):
        raise UnreadableFile("'title' and 'text' must be texts")
    row |= {key: iso_date(row[key]) for key in ("date", "updated", "valid_from", "valid_until") if key in row}
    return make_document(str(name), title, text, paragraphs(text), "row", {**row, **meta})


def _parse(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line, parse_constant=_refuse_constant)
        line_text = json.dumps(row, ensure_ascii=False)
        line_text.encode("utf-8")
    except UnicodeEncodeError:
        raise UnreadableFile("it holds half a surrogate pair, which is no character") from None
    except (ValueError, RecursionError) as error:
        raise UnreadableFile(f"not JSON: {error}") from error
    if not isinstance(row, dict):
        raise UnreadableFile(f"not an object but a {type(row).__name__}")
    return row


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")

"""Rows of a ``.jsonl`` file: each ``{"id", "title", "text", ...}`` is a document of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from rag.lines import spans
from rag.load.base import Skipped, Unreadable, document, paragraphs, printable
from rag.load.decode import decode
from rag.load.matter import iso
from rag.types import Document


def read(id: str, data: bytes) -> Iterator[Document | Skipped]:
    """Yield one document per row; a broken row is skipped with its file, line and reason."""
    raw, meta = decode(data)
    seen: dict[str, int] = {}
    for line, (start, end) in enumerate(spans(raw), start=1):
        if not raw[start:end].strip():
            continue
        try:
            found = _document(raw[start:end], meta)
            if found.id in seen:
                raise Unreadable(f"the id {found.id!r} is already used on line {seen[found.id]}")
        except Unreadable as error:
            yield Skipped(f"{id}:{line}", printable(str(error)))
            continue
        seen[found.id] = line
        yield found


def _document(line: str, meta: dict[str, Any]) -> Document:
    row = _parse(line)
    for key in ("id", "text"):
        if key not in row:
            raise Unreadable(f"no {key!r} key")
    name, title, text = row.pop("id"), row.pop("title", None) or "", row.pop("text")
    if isinstance(name, bool) or not isinstance(name, (str, int)) or str(name).strip() == "":
        raise Unreadable(f"'id' must be a text or a whole number, not {name!r:.40}")
    if printable(str(name)) != str(name):
        raise Unreadable(f"'id' holds characters that cannot be printed: {printable(str(name))!r:.60}")
    if not isinstance(text, str) or not isinstance(title, str):
        raise Unreadable("'title' and 'text' must be texts")
    row |= {key: iso(row[key]) for key in ("date", "updated", "valid_from", "valid_until") if key in row}
    return document(str(name), title, text, paragraphs(text), "row", {**row, **meta})


def _parse(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line, parse_constant=_no_constant)
        line_text = json.dumps(row, ensure_ascii=False)
        line_text.encode("utf-8")
    except UnicodeEncodeError:
        raise Unreadable("it holds half a surrogate pair, which is no character") from None
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"not JSON: {error}") from error
    if not isinstance(row, dict):
        raise Unreadable(f"not an object but a {type(row).__name__}")
    return row


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")

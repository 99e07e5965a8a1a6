"""What every loader shares: its type, decoding, and how a document is put together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from rag.durable import canonical_json, sha256_text
from rag.types import Block, Document


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or row that was found but not loaded, and why."""

    path: str
    """POSIX path below the documents folder; ``path:line`` for a row."""
    reason: str

    def to_json(self) -> dict[str, str]:
        """Return the JSON object that ``index build --json`` lists."""
        return {"path": self.path, "reason": self.reason}


class Unreadable(Exception):
    """A loader's way to say why a file cannot become a document; the walk turns it into ``Skipped``."""


@dataclass(frozen=True, slots=True)
class Loader:
    """One file format: the endings it answers to and the function that reads it."""

    media: str
    suffixes: tuple[str, ...]
    read: Callable[[str, bytes], Iterable[Document | Skipped]]
    """``read(id, data)`` yields documents (and skipped rows); raises Unreadable for the whole file."""


def decode(data: bytes) -> str:
    """Return the bytes as UTF-8 text with newlines untouched; Unreadable says where it is not text."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Unreadable("not UTF-8 but UTF-16: save it as UTF-8")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Unreadable(
            f"not UTF-8: byte 0x{data[error.start]:02x} at {error.start} (line {line})"
        ) from error
    if "\0" in text:
        raise Unreadable("not text: it holds NUL characters")
    return text


def title_from(id: str) -> str:
    """Return a readable title made from a file name: ``winter_fares.md`` gives "Winter fares"."""
    words = re.sub(r"[_\-\s]+", " ", PurePosixPath(id).stem).strip()
    return words[:1].upper() + words[1:]


def document(
    id: str, title: str, raw: str, blocks: Iterable[Block], media: str, metadata: dict[str, Any] | None = None
) -> Document:
    """Put a document together and hash what decides its chunks; Unreadable when it holds no text."""
    kept = tuple(block for block in blocks if block.text.strip())
    if not kept:
        raise Unreadable("empty: it holds no text")
    meta = metadata or {}
    return Document(id, title, raw, kept, sha256_text(canonical_json([title, raw, media, meta])), media, meta)


def paragraphs(raw: str, start: int = 0, end: int | None = None) -> Iterator[Block]:
    """Yield the paragraphs (runs of lines between blank lines) of ``raw[start:end]``."""
    region = raw[start:end]
    for match in re.finditer(r"\S[^\r\n]*(?:(?:\r\n|\r|\n)[^\S\r\n]*\S[^\r\n]*)*", region):
        text = match.group().rstrip()
        yield Block("paragraph", text, start + match.start(), start + match.start() + len(text))

"""Rows of the text store: chunks and documents with their hashes, and what one generation changes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from rag.durable import canonical_json, sha256_text
from rag.types import Chunk, Document

CHUNK: tuple[str, ...] = tuple(field.name for field in fields(Chunk))
_PACKED = tuple(f.name for f in fields(Document) if f.name not in ("id", "sha256", "raw", "blocks"))


@dataclass(frozen=True, slots=True)
class Stored:
    """A chunk as the store holds it."""

    chunk: Chunk
    embedded: str
    """Hash of the text that was embedded; equal hashes have equal vectors."""
    sha256: str
    """Hash of the row itself."""

    def numbered(self, id: int) -> Stored:
        """Return the row under an id of its own."""
        return stored(replace(self.chunk, id=id), self.embedded)


class Summary(NamedTuple):
    """What identifies a chunk's row, without its text."""

    id: int
    doc: str
    embedded: str
    sha256: str


class Record(NamedTuple):
    """What the text store itself remembers of a generation; enough to make its files again."""

    number: int
    next_id: int
    text_sha256: str
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """What one generation changes: rows that go, rows that come; chunks with the id 0 are given new ones."""

    documents_out: tuple[str, ...] = ()
    documents_in: tuple[Document, ...] = ()
    chunks_out: tuple[int, ...] = ()
    chunks_in: tuple[Stored, ...] = ()
    whole: bool = False
    """Everything that lived before goes."""


def stored(chunk: Chunk, embedded: str) -> Stored:
    """Return the chunk with its row's hash."""
    values = [getattr(chunk, name) for name in CHUNK]
    return Stored(chunk, embedded, sha256_text(canonical_json([*values, embedded])))


def packed(document: Document) -> list[str]:
    """Return a document's columns: id, content hash, other fields as one JSON object, hash of the raw text."""
    rest = {name: getattr(document, name) for name in _PACKED}
    return [document.id, document.sha256, canonical_json(rest), sha256_text(document.raw)]


def unpacked(id: str, sha256: str, rest: str, raw: str) -> Document:
    """Return the document that ``packed`` took apart, without its blocks."""
    return Document(id=id, sha256=sha256, raw=raw, blocks=(), **json.loads(rest))


def row_hash(columns: Iterable[str]) -> str:
    """Return the hash of a document's row: over what ``packed`` gives, so also over its text's hash."""
    return sha256_text("\0".join(columns))


def digest(documents: Iterable[str], chunks: Iterable[str]) -> str:
    """Return one hash over the rows' hashes of a generation: documents by id, then chunks by id."""
    return sha256_text("\n".join([*documents, "", *chunks]))

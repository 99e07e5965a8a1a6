"""The text store: SQLite (WAL, synchronous FULL) holds documents and chunks and is the source of truth.

Every row says in which generation it was born and in which it died, so that readers of an older generation
still see it whole, and what an interrupted writer left behind can be taken back. Vectors and BM25 files can
always be made again from here. Each document and chunk row carries a hash of its content, and each generation
one hash over them all. The columns are the fields of ``Document`` and ``Chunk``; a document's text stands last
in its row, so that everything before it is read without the pages of the text.

Rows of the text store: chunks and documents with their hashes, and what one generation changes.
"""

from __future__ import annotations

import json

# ruff: noqa: S608 - the names put into these statements are constants of this file, values are always bound
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from rag.errors import BadInput
from rag.files import SCHEMA, canonical_json, check_number, sha256_text
from rag.stores.sqlite import (
    REBUILD_HINT,
    connect,
    decode_errors_as_bad_input,
    sqlite_errors_as_problems,
)
from rag.types import Chunk, Document

CHUNK_COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(Chunk))
_PACKED = tuple(f.name for f in fields(Document) if f.name not in ("id", "sha256", "raw", "blocks"))


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A chunk as the store holds it."""

    chunk: Chunk
    embedded: str
    """Hash of the text that was embedded; equal hashes have equal vectors."""
    sha256: str
    """Hash of the row itself."""

    def numbered(self, id: int) -> StoredChunk:
        """Return the row under an id of its own."""
        return store_row(replace(self.chunk, id=id), self.embedded)


class RowSummary(NamedTuple):
    """What identifies a chunk's row, without its text."""

    id: int
    doc: str
    embedded: str
    sha256: str


class GenerationRecord(NamedTuple):
    """What the text store itself remembers of a generation; enough to make its files again."""

    number: int
    next_id: int
    text_sha256: str
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RowChange:
    """What one generation changes: rows that go, rows that come; chunks with the id 0 are given new ones."""

    documents_out: tuple[str, ...] = ()
    documents_in: tuple[Document, ...] = ()
    chunks_out: tuple[int, ...] = ()
    chunks_in: tuple[StoredChunk, ...] = ()
    whole: bool = False
    """Everything that lived before goes."""


def store_row(chunk: Chunk, embedded: str) -> StoredChunk:
    """Return the chunk with its row's hash."""
    values = [getattr(chunk, name) for name in CHUNK_COLUMNS]
    return StoredChunk(chunk, embedded, sha256_text(canonical_json([*values, embedded])))


def document_columns(document: Document) -> list[str]:
    """Return a document's columns: id, content hash, other fields as one JSON object, hash of the raw text."""
    rest = {name: getattr(document, name) for name in _PACKED}
    return [document.id, document.sha256, canonical_json(rest), sha256_text(document.raw)]


def document_from_columns(id: str, sha256: str, rest: str, raw: str) -> Document:
    """Return the document that ``packed`` took apart, without its blocks."""
    return Document(id=id, sha256=sha256, raw=raw, blocks=(), **json.loads(rest))


def row_hash(columns: Iterable[str]) -> str:
    """Return the hash of a document's row: over what ``packed`` gives, so also over its text's hash."""
    return sha256_text("\0".join(columns))


def rows_digest(documents: Iterable[str], chunks: Iterable[str]) -> str:
    """Return one hash over the rows' hashes of a generation: documents by id, then chunks by id."""
    return sha256_text("\n".join([*documents, "", *chunks]))


TEXT_DATABASE = "text.sqlite"
_TABLES = f"""
create table if not exists documents (
    id text not null, sha256 text not null, fields text not null, raw_sha256 text not null, row text not null,
    born integer not null, died integer, raw text not null, primary key (id, born));
create table if not exists chunks (
    {", ".join(f"{name} {'integer not null' if name == 'id' else ''}" for name in CHUNK_COLUMNS)},
    embedded text not null, row text not null,
    born integer not null, died integer, primary key (id, born));
create index if not exists chunks_of on chunks (doc);
create table if not exists generations (
    number integer primary key, next_id integer not null, text_sha256 text not null, facts text not null,
    row text not null);
"""
_LIVES = "born <= :at and (died is null or died > :at)"
_FIELDS = ", ".join(CHUNK_COLUMNS)
_COLUMNS = "id, sha256, fields, raw_sha256"
_UNNUMBERED = 1_529_774_588
"""What stores of number 1 say that were made before they were numbered: the checksum of their tables."""


class TextStore:
    """An open text store; use it as a context manager."""

    def __init__(self, folder: Path, *, write: bool = False) -> None:
        """Open ``text.sqlite``; only a writer creates it. BadInput when it is missing, damaged or newer."""
        self._path = path = folder / TEXT_DATABASE
        if not write and not path.is_file():
            raise BadInput(f"{folder} is not an index: it has no {TEXT_DATABASE}", "build it first")
        fresh = not path.exists()
        mode = "rwc" if write else "rw" if os.access(folder, os.W_OK) else "ro&immutable=1"
        self._db = connect(path, mode)
        try:
            with sqlite_errors_as_problems(path):
                if write:
                    self._db.execute("pragma journal_mode = wal")
                    self._db.execute("pragma synchronous = full")
                if write and (fresh or not self._is_made()):
                    self._make()
                else:
                    self._db.execute("pragma query_only = off" if write else "pragma query_only = on")
                number = self._db.execute("pragma user_version").fetchone()[0]
            check_number(1 if number == _UNNUMBERED else number, "text store", path)
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> TextStore:
        """Return the store."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the database; the last to close folds the write-ahead log into the file."""
        self._db.close()

    def documents(self, at: int) -> dict[str, str]:
        """Return id and content hash of the documents that live in a generation."""
        return dict(self._all(f"select id, sha256 from documents where {_LIVES} order by id", at))

    def document(self, id: str, at: int) -> Document | None:
        """Return a document (without its blocks) in a generation, verified against its row's hash."""
        sql = f"select {_COLUMNS}, row, raw from documents where id = :id and {_LIVES}"
        found = self._all(sql, at, id=id)
        if not found:
            return None
        with decode_errors_as_bad_input(self._path):
            *columns, row, raw = found[0]
            _, sha256, rest, raw_sha256 = columns
            if row_hash(columns) != row or sha256_text(raw) != raw_sha256:
                raise BadInput(
                    f"{self._path} is damaged: the text of {id!r} differs from its hash", REBUILD_HINT
                )
            return document_from_columns(id, sha256, rest, raw)

    def abouts(self, at: int) -> dict[str, dict[str, Any]]:
        """Return what is known of every document of a generation besides its text, by id, verified.

        These are the fields of ``Document`` but for ``id``, ``sha256``, ``raw`` and ``blocks``. No text is read.
        """
        rows = self._all(f"select {_COLUMNS}, row from documents where {_LIVES} order by id", at)
        found = {}
        with decode_errors_as_bad_input(self._path):
            for *columns, row in rows:
                if row_hash(columns) != row:
                    raise BadInput(
                        f"{self._path} is damaged: the row of {columns[0]!r} differs from its hash",
                        REBUILD_HINT,
                    )
                found[columns[0]] = json.loads(columns[2])
        return found

    def departed(self, at: int) -> list[str]:
        """Return the documents that an older generation still holds and this one does not."""
        sql = f"select id from documents where died <= :at except select id from documents where {_LIVES}"
        return sorted(id for (id,) in self._all(sql, at))

    def chunks(self, at: int) -> list[StoredChunk]:
        """Return the chunks that live in a generation, by id, each verified against its hash."""
        rows = self._all(f"select {_FIELDS}, embedded, row from chunks where {_LIVES} order by id", at)
        with decode_errors_as_bad_input(self._path):
            found = [store_row(Chunk(*row[:-2]), row[-2]) for row in rows]
        for read, row in zip(found, rows, strict=True):
            if read.sha256 != row[-1]:
                raise BadInput(
                    f"{self._path} is damaged: chunk {read.chunk.id} differs from its hash", REBUILD_HINT
                )
        return found

    def summaries(self, at: int) -> list[RowSummary]:
        """Return what identifies each chunk of a generation, by id, without reading its text."""
        rows = self._all(f"select id, doc, embedded, row from chunks where {_LIVES} order by id", at)
        return [RowSummary(*row) for row in rows]

    def digest(self, at: int) -> str:
        """Return one hash over everything that lives in a generation, made from the rows' own hashes."""
        documents = self._all(f"select row from documents where {_LIVES} order by id", at)
        chunks = self._all(f"select row from chunks where {_LIVES} order by id", at)
        with decode_errors_as_bad_input(self._path):
            return rows_digest((row for (row,) in documents), (row for (row,) in chunks))

    def record(self, number: int) -> GenerationRecord | None:
        """Return what was written down of a generation; None when it is not here, or damaged."""
        sql = "select number, next_id, text_sha256, facts, row from generations where number = :at"
        with decode_errors_as_bad_input(self._path):
            for *values, row in self._all(sql, number):
                if sha256_text(canonical_json(values)) == row:
                    return GenerationRecord(values[0], values[1], values[2], json.loads(values[3]))
        return None

    def numbers(self) -> list[int]:
        """Return the numbers of all generations written down, published or not, oldest first."""
        return [number for (number,) in self._all("select number from generations order by number", 0)]

    def next_id(self, at_least: int = 1) -> int:
        """Return the next free chunk id; ids are never given twice."""
        highest = self._all(
            "select max(next_id) from generations union all select max(id) + 1 from chunks", 0
        )
        return max(at_least, *(value if isinstance(value, int) else 1 for (value,) in highest))

    def apply(
        self, number: int, change: RowChange, facts: dict[str, object], at_least: int = 1
    ) -> GenerationRecord:
        """Write a generation's change in one durable transaction, which also gives new chunks their ids."""
        with self._transaction() as db:
            next_id = self.next_id(at_least)
            if change.whole:
                db.execute("update documents set died = ? where died is null", (number,))
                db.execute("update chunks set died = ? where died is null", (number,))
            gone = [(number, id) for id in change.documents_out]
            db.executemany("update documents set died = ? where id = ? and died is null", gone)
            ended = [(number, id) for id in change.chunks_out]
            db.executemany("update chunks set died = ? where id = ? and died is null", ended)
            db.executemany(
                f"insert into documents ({_COLUMNS}, row, born, raw) values (?, ?, ?, ?, ?, ?, ?)",
                [(*(c := document_columns(d)), row_hash(c), number, d.raw) for d in change.documents_in],
            )
            rows: list[StoredChunk] = []
            for coming in change.chunks_in:
                rows.append(coming if coming.chunk.id else coming.numbered(next_id))
                next_id += not coming.chunk.id
            db.executemany(
                f"insert into chunks values ({', '.join('?' * (len(CHUNK_COLUMNS) + 3))}, null)",
                [
                    (*(getattr(r.chunk, name) for name in CHUNK_COLUMNS), r.embedded, r.sha256, number)
                    for r in rows
                ],
            )
            values = [number, next_id, self.digest(number), canonical_json(facts)]
            row = sha256_text(canonical_json(values))
            db.execute("insert into generations values (?, ?, ?, ?, ?)", (*values, row))
        return GenerationRecord(number, next_id, str(values[2]), facts)

    def take_back(self, current: int) -> None:
        """Undo what a writer left behind that never published its generation."""
        with self._transaction() as db:
            for table in ("documents", "chunks"):
                db.execute(f"delete from {table} where born > ?", (current,))
                db.execute(f"update {table} set died = null where died > ?", (current,))
            db.execute("delete from generations where number > ?", (current,))

    def forget(self, oldest: int) -> None:
        """Delete rows that died before or in the oldest generation that is still kept."""
        with self._transaction() as db:
            for table in ("documents", "chunks"):
                db.execute(f"delete from {table} where died <= ?", (oldest,))
            db.execute("delete from generations where number < ?", (oldest,))

    def scrub(self) -> None:
        """Write the file anew: no byte of a deleted row stays."""
        with sqlite_errors_as_problems(self._path):
            self._db.execute("vacuum")
            self._db.execute("pragma wal_checkpoint(truncate)")

    def check(self) -> None:
        """Let SQLite verify its own pages; BadInput when they are damaged."""
        with sqlite_errors_as_problems(self._path):
            answer = self._db.execute("pragma integrity_check").fetchone()[0]
        if answer != "ok":
            raise BadInput(f"{self._path} is damaged: {answer}", REBUILD_HINT)

    def dump(self) -> Iterable[tuple[object, ...]]:
        """Yield every row of every table in a fixed order: two stores with equal dumps hold the same."""
        for table, order in (("documents", "id, born"), ("chunks", "id, born"), ("generations", "number")):
            yield from ((table, *row) for row in self._all(f"select * from {table} order by {order}", 0))

    def _is_made(self) -> bool:
        return bool(self._db.execute("select count(*) from sqlite_schema").fetchone()[0])

    def _make(self) -> None:
        with self._transaction() as db:
            for statement in filter(str.strip, _TABLES.split(";")):
                db.execute(statement)
            db.execute(f"pragma user_version = {SCHEMA}")

    def _all(self, sql: str, at: int, **values: object) -> list[tuple]:  # type: ignore[type-arg]
        with sqlite_errors_as_problems(self._path):
            return self._db.execute(sql, {"at": at, **values}).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with sqlite_errors_as_problems(self._path):
            self._db.execute("begin immediate")
            try:
                yield self._db
                self._db.execute("commit")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("rollback")
                raise

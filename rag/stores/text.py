"""The text store: SQLite (WAL, synchronous FULL) holds documents and chunks and is the source of truth.

Every row says in which generation it was born and in which it died, so that readers of an older generation
still see it whole, and what an interrupted writer left behind can be taken back. Vectors and BM25 files can
always be made again from here. Each chunk and document row carries a hash of its content.
"""

# ruff: noqa: S608 - the names put into these statements are constants of this file, values are always bound

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rag.durable import canonical_json, sha256_text
from rag.errors import BadInput, CannotRun
from rag.types import Chunk, Document

FILE = "text.sqlite"
_TABLES = """
create table if not exists documents (
    id text not null, title text not null, raw text not null, sha256 text not null, media text not null,
    metadata text not null, born integer not null, died integer, primary key (id, born));
create table if not exists chunks (
    id integer not null, doc text not null, title text not null, ordinal integer not null, text text not null,
    start integer not null, end integer not null, heading text not null, line_start integer not null,
    line_end integer not null, page integer, embedded text not null, sha256 text not null,
    born integer not null, died integer, primary key (id, born));
"""
_LIVES = "born <= :at and (died is null or died > :at)"
_FIELDS = "id, doc, title, ordinal, text, start, end, heading, line_start, line_end, page"


@dataclass(frozen=True, slots=True)
class Stored:
    """A chunk as the store holds it."""

    chunk: Chunk
    embedded: str
    """Hash of the text that was embedded; equal hashes have equal vectors."""
    sha256: str
    """Hash of the row itself."""


@dataclass(frozen=True, slots=True)
class Change:
    """What one generation changes: rows that go, rows that come."""

    documents_out: tuple[str, ...]
    documents_in: tuple[Document, ...]
    chunks_out: tuple[int, ...]
    chunks_in: tuple[Stored, ...]


def stored(chunk: Chunk, embedded: str) -> Stored:
    """Return the chunk with its row's hash."""
    values = [getattr(chunk, name) for name in _FIELDS.split(", ")]
    return Stored(chunk, embedded, sha256_text(canonical_json([*values, embedded])))


def digest(rows: Iterable[Stored]) -> str:
    """Return one hash over a generation's chunks, in the order of their ids."""
    return sha256_text("\n".join(row.sha256 for row in rows))


class TextStore:
    """An open text store; use it as a context manager."""

    def __init__(self, folder: Path, *, write: bool = False) -> None:
        """Open ``text.sqlite``; only a writer creates it. BadInput when it is missing or not a database."""
        path = folder / FILE
        if not write and not path.is_file():
            raise BadInput(f"{folder} is not an index: it has no {FILE}", "build it first")
        mode = "rwc" if write else "rw" if os.access(folder, os.W_OK) else "ro&immutable=1"
        with self._reported(path):
            self._db = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode={mode}", uri=True, isolation_level=None
            )
            if write:
                self._db.execute("pragma journal_mode = wal")
                self._db.execute("pragma synchronous = full")
                self._db.executescript(_TABLES)
            else:
                self._db.execute("pragma query_only = on")
        self._path = path

    def __enter__(self) -> TextStore:
        """Return the store."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the database; the last to close folds the write-ahead log into the file."""
        self._db.close()

    def documents(self, at: int) -> dict[str, str]:
        """Return id and content hash of the documents that live in a generation."""
        with self._reported(self._path):
            rows = self._db.execute(
                f"select id, sha256 from documents where {_LIVES} order by id", {"at": at}
            )
            return dict(rows.fetchall())

    def document(self, id: str, at: int) -> Document | None:
        """Return a document (without its blocks) in a generation, verified against its hash."""
        sql = f"select title, raw, sha256, media, metadata from documents where id = :id and {_LIVES}"
        with self._reported(self._path):
            row = self._db.execute(sql, {"id": id, "at": at}).fetchone()
        if row is None:
            return None
        title, raw, sha256, media, metadata = row
        meta = json.loads(metadata)
        if sha256_text(canonical_json([title, raw, media, meta])) != sha256:
            raise BadInput(f"{self._path} is damaged: the text of {id!r} differs from its hash")
        return Document(id, title, raw, (), sha256, media, meta)

    def chunks(self, at: int) -> list[Stored]:
        """Return the chunks that live in a generation, by id, each verified against its hash."""
        sql = f"select {_FIELDS}, embedded, sha256 from chunks where {_LIVES} order by id"
        with self._reported(self._path):
            rows = self._db.execute(sql, {"at": at}).fetchall()
        found = [stored(Chunk(*row[:-2]), row[-2]) for row in rows]
        for read, row in zip(found, rows, strict=True):
            if read.sha256 != row[-1]:
                raise BadInput(f"{self._path} is damaged: chunk {read.chunk.id} differs from its hash")
        return found

    def apply(self, number: int, change: Change) -> None:
        """Write a generation's change in one durable transaction."""
        with self._transaction() as db:
            gone = [(number, id) for id in change.documents_out]
            db.executemany("update documents set died = ? where id = ? and died is null", gone)
            ended = [(number, id) for id in change.chunks_out]
            db.executemany("update chunks set died = ? where id = ? and died is null", ended)
            db.executemany(
                "insert into documents values (?, ?, ?, ?, ?, ?, ?, null)",
                [
                    (d.id, d.title, d.raw, d.sha256, d.media, canonical_json(d.metadata), number)
                    for d in change.documents_in
                ],
            )
            db.executemany(
                f"insert into chunks values ({', '.join('?' * 14)}, null)",
                [
                    (
                        *(getattr(row.chunk, name) for name in _FIELDS.split(", ")),
                        row.embedded,
                        row.sha256,
                        number,
                    )
                    for row in change.chunks_in
                ],
            )

    def take_back(self, current: int) -> None:
        """Undo what a writer left behind that never published its generation."""
        with self._transaction() as db:
            for table in ("documents", "chunks"):
                db.execute(f"delete from {table} where born > ?", (current,))
                db.execute(f"update {table} set died = null where died > ?", (current,))

    def forget(self, oldest: int) -> None:
        """Delete rows that died before or in the oldest generation that is still kept."""
        with self._transaction() as db:
            for table in ("documents", "chunks"):
                db.execute(f"delete from {table} where died <= ?", (oldest,))

    def check(self) -> None:
        """Let SQLite verify its own pages; BadInput when they are damaged."""
        with self._reported(self._path):
            answer = self._db.execute("pragma integrity_check").fetchone()[0]
        if answer != "ok":
            raise BadInput(f"{self._path} is damaged: {answer}")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._reported(self._path):
            self._db.execute("begin immediate")
            try:
                yield self._db
                self._db.execute("commit")
            except BaseException:
                self._db.execute("rollback")
                raise

    @contextmanager
    def _reported(self, path: Path) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise CannotRun(
                f"cannot use {path}: {error}", "check the disk's space and permissions"
            ) from error
        except sqlite3.DatabaseError as error:
            raise BadInput(
                f"{path} is damaged: {error}", "remove the index folder and build it again"
            ) from error

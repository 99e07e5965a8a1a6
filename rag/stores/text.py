"""The text store: SQLite (WAL, synchronous FULL) holds documents and chunks and is the source of truth.

Every row says in which generation it was born and in which it died, so that readers of an older generation
still see it whole, and what an interrupted writer left behind can be taken back. Vectors and BM25 files can
always be made again from here. Each document and chunk row carries a hash of its content, and each generation
one hash over them all. The columns are the fields of ``Document`` and ``Chunk``; a document's text stands last
in its row, so that everything before it is read without the pages of the text.
"""

# ruff: noqa: S608 - the names put into these statements are constants of this file, values are always bound

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rag.durable import canonical_json, sha256_text
from rag.errors import BadInput
from rag.stores.database import REBUILD, connect, decoded, reported
from rag.stores.rows import CHUNK, Change, Record, Stored, Summary, digest, packed, row_hash, stored, unpacked
from rag.types import Chunk, Document
from rag.versions import SCHEMA, check_number

FILE = "text.sqlite"
_TABLES = f"""
create table if not exists documents (
    id text not null, sha256 text not null, fields text not null, raw_sha256 text not null, row text not null,
    born integer not null, died integer, raw text not null, primary key (id, born));
create table if not exists chunks (
    {", ".join(f"{name} {'integer not null' if name == 'id' else ''}" for name in CHUNK)},
    embedded text not null, row text not null,
    born integer not null, died integer, primary key (id, born));
create index if not exists chunks_of on chunks (doc);
create table if not exists generations (
    number integer primary key, next_id integer not null, text_sha256 text not null, facts text not null,
    row text not null);
"""
_LIVES = "born <= :at and (died is null or died > :at)"
_FIELDS = ", ".join(CHUNK)
_COLUMNS = "id, sha256, fields, raw_sha256"
_UNNUMBERED = 1_529_774_588
"""What stores of number 1 say that were made before they were numbered: the checksum of their tables."""


class TextStore:
    """An open text store; use it as a context manager."""

    def __init__(self, folder: Path, *, write: bool = False) -> None:
        """Open ``text.sqlite``; only a writer creates it. BadInput when it is missing, damaged or newer."""
        self._path = path = folder / FILE
        if not write and not path.is_file():
            raise BadInput(f"{folder} is not an index: it has no {FILE}", "build it first")
        fresh = not path.exists()
        mode = "rwc" if write else "rw" if os.access(folder, os.W_OK) else "ro&immutable=1"
        self._db = connect(path, mode)
        try:
            with reported(path):
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
        with decoded(self._path):
            *columns, row, raw = found[0]
            _, sha256, rest, raw_sha256 = columns
            if row_hash(columns) != row or sha256_text(raw) != raw_sha256:
                raise BadInput(f"{self._path} is damaged: the text of {id!r} differs from its hash", REBUILD)
            return unpacked(id, sha256, rest, raw)

    def abouts(self, at: int) -> dict[str, dict[str, Any]]:
        """Return what is known of every document of a generation besides its text, by id, verified.

        These are the fields of ``Document`` but for ``id``, ``sha256``, ``raw`` and ``blocks``. No text is read.
        """
        rows = self._all(f"select {_COLUMNS}, row from documents where {_LIVES} order by id", at)
        found = {}
        with decoded(self._path):
            for *columns, row in rows:
                if row_hash(columns) != row:
                    raise BadInput(
                        f"{self._path} is damaged: the row of {columns[0]!r} differs from its hash", REBUILD
                    )
                found[columns[0]] = json.loads(columns[2])
        return found

    def departed(self, at: int) -> list[str]:
        """Return the documents that an older generation still holds and this one does not."""
        sql = f"select id from documents where died <= :at except select id from documents where {_LIVES}"
        return sorted(id for (id,) in self._all(sql, at))

    def chunks(self, at: int) -> list[Stored]:
        """Return the chunks that live in a generation, by id, each verified against its hash."""
        rows = self._all(f"select {_FIELDS}, embedded, row from chunks where {_LIVES} order by id", at)
        with decoded(self._path):
            found = [stored(Chunk(*row[:-2]), row[-2]) for row in rows]
        for read, row in zip(found, rows, strict=True):
            if read.sha256 != row[-1]:
                raise BadInput(
                    f"{self._path} is damaged: chunk {read.chunk.id} differs from its hash", REBUILD
                )
        return found

    def summaries(self, at: int) -> list[Summary]:
        """Return what identifies each chunk of a generation, by id, without reading its text."""
        rows = self._all(f"select id, doc, embedded, row from chunks where {_LIVES} order by id", at)
        return [Summary(*row) for row in rows]

    def digest(self, at: int) -> str:
        """Return one hash over everything that lives in a generation, made from the rows' own hashes."""
        documents = self._all(f"select row from documents where {_LIVES} order by id", at)
        chunks = self._all(f"select row from chunks where {_LIVES} order by id", at)
        with decoded(self._path):
            return digest((row for (row,) in documents), (row for (row,) in chunks))

    def record(self, number: int) -> Record | None:
        """Return what was written down of a generation; None when it is not here, or damaged."""
        sql = "select number, next_id, text_sha256, facts, row from generations where number = :at"
        with decoded(self._path):
            for *values, row in self._all(sql, number):
                if sha256_text(canonical_json(values)) == row:
                    return Record(values[0], values[1], values[2], json.loads(values[3]))
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

    def apply(self, number: int, change: Change, facts: dict[str, object], at_least: int = 1) -> Record:
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
                [(*(c := packed(d)), row_hash(c), number, d.raw) for d in change.documents_in],
            )
            rows: list[Stored] = []
            for coming in change.chunks_in:
                rows.append(coming if coming.chunk.id else coming.numbered(next_id))
                next_id += not coming.chunk.id
            db.executemany(
                f"insert into chunks values ({', '.join('?' * (len(CHUNK) + 3))}, null)",
                [(*(getattr(r.chunk, name) for name in CHUNK), r.embedded, r.sha256, number) for r in rows],
            )
            values = [number, next_id, self.digest(number), canonical_json(facts)]
            row = sha256_text(canonical_json(values))
            db.execute("insert into generations values (?, ?, ?, ?, ?)", (*values, row))
        return Record(number, next_id, str(values[2]), facts)

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
        with reported(self._path):
            self._db.execute("vacuum")
            self._db.execute("pragma wal_checkpoint(truncate)")

    def check(self) -> None:
        """Let SQLite verify its own pages; BadInput when they are damaged."""
        with reported(self._path):
            answer = self._db.execute("pragma integrity_check").fetchone()[0]
        if answer != "ok":
            raise BadInput(f"{self._path} is damaged: {answer}", REBUILD)

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
        with reported(self._path):
            return self._db.execute(sql, {"at": at, **values}).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with reported(self._path):
            self._db.execute("begin immediate")
            try:
                yield self._db
                self._db.execute("commit")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("rollback")
                raise

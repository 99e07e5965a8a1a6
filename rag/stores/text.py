"""The text store: SQLite (WAL, synchronous FULL) with all documents and chunks; the source of truth of an index.

Every row has the generation in which it was added (``born``) and the one in which it was removed (``died``), so that
readers of an older generation still see it complete, and the changes of an interrupted writer can be rolled back.
Vectors and BM25 files can always be rebuilt from here. Each document and chunk row carries a hash of its content, and
each generation one hash over them all. The columns are the fields of ``Document`` and ``Chunk``; a document's text is
the last column of its row, so that the columns before it are read without the pages of the text.
"""
# ruff: noqa: S608 - the names put into these statements are constants of this file, values are always bound

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from rag.errors import BadInput
from rag.files import SCHEMA, canonical_json, check_number, sha256_text
from rag.stores.digests import SUM_PREFIX, rows_digest, sum_of_hashes
from rag.stores.sqlite import (
    REBUILD_HINT,
    connect,
    decode_errors_as_bad_input,
    sqlite_errors_as_problems,
)
from rag.types import Chunk, Document

CHUNK_COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(Chunk))
_PACKED = tuple(f.name for f in fields(Document) if f.name not in ("id", "sha256", "raw", "blocks"))
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
_DIED_INDEXES = "".join(
    f"create index if not exists {table}_died on {table} (died) where died is not null;"
    for table in ("documents", "chunks")
)
"""Rows that were removed, so that deleting them reads no others; made by the first writer of a store that lacks them."""
# The condition for rows of generation ``:at``
_LIVES = "born <= :at and (died is null or died > :at)"
_FIELDS = ", ".join(CHUNK_COLUMNS)
_COLUMNS = "id, sha256, fields, raw_sha256"


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A chunk as the store holds it."""

    chunk: Chunk
    embedded: str
    """Hash of the text that was embedded; chunks with equal hashes have equal vectors."""
    sha256: str
    """Hash of the row itself."""

    def numbered(self, id: int) -> StoredChunk:
        """Return the row with another chunk id."""
        return store_row(replace(self.chunk, id=id), self.embedded)


class RowSummary(NamedTuple):
    """The identity of a chunk's row, without its text."""

    id: int
    doc: str
    embedded: str
    sha256: str


class GenerationRecord(NamedTuple):
    """The text store's record of a generation, from which the generation's files can be rebuilt."""

    number: int
    next_id: int
    text_sha256: str
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RowChange:
    """The rows that one generation removes and adds; chunks with the id 0 are given new ids."""

    documents_out: tuple[str, ...] = ()
    documents_in: tuple[Document, ...] = ()
    chunks_out: tuple[int, ...] = ()
    chunks_in: tuple[StoredChunk, ...] = ()
    whole: bool = False
    """Remove all earlier rows as well."""


class TextStore:
    """An open text store; use it as a context manager."""

    def __init__(self, folder: Path, *, write: bool = False) -> None:
        """Open ``text.sqlite``; only a writer creates it. BadInput if it is missing, damaged or of a newer format."""
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
                if write and (fresh or not self._has_tables()):
                    self._create_tables()
                else:
                    self._db.execute("pragma query_only = off" if write else "pragma query_only = on")
                if write:
                    self._db.executescript(_DIED_INDEXES)
                number = self._db.execute("pragma user_version").fetchone()[0]
            check_number(number, "text store", path)
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> TextStore:
        """Return the store."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the database; the last connection to close merges the write-ahead log into the file."""
        self._db.close()

    def documents(self, at: int) -> dict[str, str]:
        """Return id and content hash of the documents of a generation."""
        return dict(self._all(f"select id, sha256 from documents where {_LIVES} order by id", at))

    def document(self, id: str, at: int) -> Document | None:
        """Return a document of a generation (without its blocks), verified against its row's hash; None if there is none."""
        sql = f"select {_COLUMNS}, row, raw from documents where id = :id and {_LIVES}"
        rows = self._all(sql, at, id=id)
        if not rows:
            return None
        with decode_errors_as_bad_input(self._path):
            *columns, row, raw = rows[0]
            _, sha256, rest, raw_sha256 = columns
            if row_hash(columns) != row or sha256_text(raw) != raw_sha256:
                raise BadInput(
                    f"{self._path} is damaged: the text of {id!r} differs from its hash", REBUILD_HINT
                )
            return document_from_columns(id, sha256, rest, raw)

    def document_fields(self, at: int, document: str | None = None) -> dict[str, dict[str, Any]]:
        """Return the fields of every document of a generation, or of one, except its text, by id, verified.

        These are the fields of ``Document`` without ``id``, ``sha256``, ``raw`` and ``blocks``. No text is read.
        """
        only = "" if document is None else "id = :id and "
        sql = f"select {_COLUMNS}, row from documents where {only}{_LIVES} order by id"
        rows = self._all(sql, at, id=document)
        fields_by_id = {}
        with decode_errors_as_bad_input(self._path):
            for *columns, row in rows:
                if row_hash(columns) != row:
                    raise BadInput(
                        f"{self._path} is damaged: the row of {columns[0]!r} differs from its hash",
                        REBUILD_HINT,
                    )
                fields_by_id[columns[0]] = json.loads(columns[2])
        return fields_by_id

    def removed_documents(self, at: int) -> list[str]:
        """Return the documents that an older generation still has and this one does not."""
        living = f"select 1 from documents where id = old.id and {_LIVES}"
        sql = f"select distinct id from documents as old where died <= :at and not exists ({living})"
        return sorted(id for (id,) in self._all(sql, at))

    def chunks(self, at: int) -> list[StoredChunk]:
        """Return the chunks of a generation, by id, each verified against its hash."""
        return self._verified(
            self._all(f"select {_FIELDS}, embedded, row from chunks where {_LIVES} order by id", at)
        )

    def chunks_by_id(self, at: int, ids: Sequence[int]) -> dict[int, Chunk]:
        """Return those of the chunks that a generation has, by id, each verified against its hash."""
        return {
            stored.chunk.id: stored.chunk
            for part in _parts(ids)
            for stored in self._chunks_where(f"id in ({', '.join('?' * len(part))})", at, part)
        }

    def chunks_of(self, at: int, document: str) -> list[Chunk]:
        """Return a document's chunks in the order of its text, each verified against its hash."""
        stored = self._chunks_where("doc = ?", at, [document])
        return sorted((row.chunk for row in stored), key=lambda chunk: chunk.ordinal)

    def iter_chunks(self, at: int, batch: int = 4096) -> Iterator[Chunk]:
        """Yield the chunks of a generation by ascending id, each verified, never more than a batch in memory."""
        last = 0
        while rows := self._chunks_where("id > ?", at, [last], f"order by id limit {int(batch)}"):
            yield from (row.chunk for row in rows)
            last = rows[-1].chunk.id

    def ids_of(self, at: int, documents: Collection[str]) -> list[int]:
        """Return the ids of the chunks of documents, in any order."""
        ids: list[int] = []
        for part in _parts(sorted(documents)):
            ids += [row.id for row in self._summaries_of(at, part)]
        return ids

    def _chunks_where(
        self, condition: str, at: int, values: Sequence[object], order: str = "order by id"
    ) -> list[StoredChunk]:
        """Return verified chunks of a generation that satisfy a condition with positional parameters."""
        lives = _LIVES.replace(":at", str(int(at)))
        sql = f"select {_FIELDS}, embedded, row from chunks where {condition} and {lives} {order}"
        with sqlite_errors_as_problems(self._path):
            rows = self._db.execute(sql, list(values)).fetchall()
        return self._verified(rows)

    def _verified(self, rows: Sequence[tuple[Any, ...]]) -> list[StoredChunk]:
        """Return the chunks of rows that end with the hashes of text and row; BadInput if one differs from its hash."""
        with decode_errors_as_bad_input(self._path):
            chunks = [store_row(Chunk(*row[:-2]), row[-2]) for row in rows]
        for stored, row in zip(chunks, rows, strict=True):
            if stored.sha256 != row[-1]:
                raise BadInput(
                    f"{self._path} is damaged: chunk {stored.chunk.id} differs from its hash", REBUILD_HINT
                )
        return chunks

    def summaries(self, at: int, documents: Collection[str] | None = None) -> list[RowSummary]:
        """Return the identity of each chunk of a generation, or of some documents, by id, without reading its text."""
        if documents is not None:
            rows_of = (row for part in _parts(sorted(documents)) for row in self._summaries_of(at, part))
            return sorted(rows_of)
        rows = self._all(f"select id, doc, embedded, row from chunks where {_LIVES} order by id", at)
        return [RowSummary(*row) for row in rows]

    def _summaries_of(self, at: int, documents: Sequence[str]) -> list[RowSummary]:
        lives = _LIVES.replace(":at", str(int(at)))
        names = ", ".join("?" * len(documents))
        sql = f"select id, doc, embedded, row from chunks where doc in ({names}) and {lives}"
        with sqlite_errors_as_problems(self._path):
            return [RowSummary(*row) for row in self._db.execute(sql, list(documents)).fetchall()]

    def count_documents(self, at: int) -> int:
        """Return the number of documents of a generation."""
        return int(self._all(f"select count(*) from documents where {_LIVES}", at)[0][0])

    def has_metadata(self, at: int, key: str) -> bool:
        """Return whether the fields of any document of a generation may have a key; false only if none has."""
        sql = f"select 1 from documents where instr(fields, :key) > 0 and {_LIVES} limit 1"
        return bool(self._all(sql, at, key=json.dumps(key)))

    def digest(self, at: int) -> str:
        """Return one hash over all rows of a generation, made from the rows' own hashes."""
        documents, chunks = self._row_hashes(at)
        with decode_errors_as_bad_input(self._path):
            return rows_digest(documents, chunks)

    def digest_sum(self, at: int) -> str:
        """Return the sum of the hashes of all rows of a generation: see :func:`sum_of_hashes`."""
        documents, chunks = self._row_hashes(at)
        with decode_errors_as_bad_input(self._path):
            return sum_of_hashes([*documents, *chunks])

    def has_digest(self, at: int, digest: str) -> bool:
        """Return whether the rows of a generation are those that a digest was recorded for; every row is read."""
        return digest == (self.digest_sum(at) if digest.startswith(SUM_PREFIX) else self.digest(at))

    def document_hashes(self, at: int, documents: Collection[str]) -> list[str]:
        """Return the hashes of the rows of documents of a generation, in any order."""
        lives = _LIVES.replace(":at", str(int(at)))
        hashes: list[str] = []
        for part in _parts(sorted(documents)):
            sql = f"select row from documents where id in ({', '.join('?' * len(part))}) and {lives}"
            with sqlite_errors_as_problems(self._path):
                hashes += [row for (row,) in self._db.execute(sql, list(part))]
        return hashes

    def _row_hashes(self, at: int) -> tuple[list[str], list[str]]:
        """Return the hashes of the rows of all documents, then of all chunks, by id."""
        tables = ("documents", "chunks")
        documents, chunks = (
            [row for (row,) in self._all(f"select row from {table} where {_LIVES} order by id", at)]
            for table in tables
        )
        return documents, chunks

    def record(self, number: int) -> GenerationRecord | None:
        """Return the record of a generation; None if it is missing or damaged."""
        sql = "select number, next_id, text_sha256, facts, row from generations where number = :at"
        with decode_errors_as_bad_input(self._path):
            for *values, row in self._all(sql, number):
                if sha256_text(canonical_json(values)) == row:
                    return GenerationRecord(values[0], values[1], values[2], json.loads(values[3]))
        return None

    def numbers(self) -> list[int]:
        """Return the numbers of all recorded generations, published or not, oldest first."""
        return [number for (number,) in self._all("select number from generations order by number", 0)]

    def next_id(self, at_least: int = 1) -> int:
        """Return the next free chunk id; ids are never reused."""
        highest = self._all(
            "select max(next_id) from generations union all select max(id) + 1 from chunks", 0
        )
        return max(at_least, *(value if isinstance(value, int) else 1 for (value,) in highest))

    def apply(
        self,
        number: int,
        change: RowChange,
        facts: dict[str, object],
        at_least: int = 1,
        before: str = "",
    ) -> GenerationRecord:
        """Write a generation's change in one durable transaction, which also gives new chunks their ids.

        Args:
            number: of the new generation.
            change: the rows to remove and to add.
            facts: stored in the generation's record.
            at_least: lowest id for new chunks.
            before: sum of the row hashes of the generation before, so that only changed rows are read for the new
                one's; "" reads all rows.
        """
        with self._transaction() as db:
            next_id = self.next_id(at_least)
            gone = self._hashes_of(number - 1, change) if before else []
            if change.whole:
                db.execute("update documents set died = ? where died is null", (number,))
                db.execute("update chunks set died = ? where died is null", (number,))
            removed_documents = [(number, id) for id in change.documents_out]
            db.executemany("update documents set died = ? where id = ? and died is null", removed_documents)
            removed_chunks = [(number, id) for id in change.chunks_out]
            db.executemany("update chunks set died = ? where id = ? and died is null", removed_chunks)
            db.executemany(
                f"insert into documents ({_COLUMNS}, row, born, raw) values (?, ?, ?, ?, ?, ?, ?)",
                [
                    (*(columns := document_columns(document)), row_hash(columns), number, document.raw)
                    for document in change.documents_in
                ],
            )
            rows: list[StoredChunk] = []
            for stored in change.chunks_in:
                rows.append(stored if stored.chunk.id else stored.numbered(next_id))
                next_id += not stored.chunk.id
            db.executemany(
                f"insert into chunks values ({', '.join('?' * (len(CHUNK_COLUMNS) + 3))}, null)",
                [
                    (
                        *(getattr(stored.chunk, name) for name in CHUNK_COLUMNS),
                        stored.embedded,
                        stored.sha256,
                        number,
                    )
                    for stored in rows
                ],
            )
            digest = _changed_sum(before, gone, change, rows) if before else self.digest(number)
            values = [number, next_id, digest, canonical_json(facts)]
            row = sha256_text(canonical_json(values))
            db.execute("insert into generations values (?, ?, ?, ?, ?)", (*values, row))
        return GenerationRecord(number, next_id, str(values[2]), facts)

    def _hashes_of(self, at: int, change: RowChange) -> list[str]:
        """Return the hashes of the rows that a change removes from a generation."""
        hashes = self.document_hashes(at, change.documents_out)
        lives = _LIVES.replace(":at", str(int(at)))
        for part in _parts(change.chunks_out):
            sql = f"select row from chunks where id in ({', '.join('?' * len(part))}) and {lives}"
            with sqlite_errors_as_problems(self._path):
                hashes += [row for (row,) in self._db.execute(sql, list(part))]
        return hashes

    def roll_back(self, current: int) -> None:
        """Undo the changes of writers that never published their generation: all after ``current``."""
        if max(self.numbers(), default=0) <= current:
            return  # a change and the record of its generation are written in one transaction
        with self._transaction() as db:
            for table in ("documents", "chunks"):
                db.execute(f"delete from {table} where born > ?", (current,))
                db.execute(f"update {table} set died = null where died > ?", (current,))
            db.execute("delete from generations where number > ?", (current,))

    def delete_before(self, oldest: int) -> None:
        """Delete rows that no generation from ``oldest`` on contains, and the records of older generations."""
        with self._transaction() as db:
            for table in ("documents", "chunks"):
                db.execute(f"delete from {table} where died <= ?", (oldest,))
            db.execute("delete from generations where number < ?", (oldest,))

    def vacuum(self) -> None:
        """Rewrite the file, so that no byte of a deleted row remains."""
        with sqlite_errors_as_problems(self._path):
            self._db.execute("vacuum")
            self._db.execute("pragma wal_checkpoint(truncate)")

    def check(self) -> None:
        """Let SQLite verify its pages; BadInput if they are damaged."""
        with sqlite_errors_as_problems(self._path):
            answer = self._db.execute("pragma integrity_check").fetchone()[0]
        if answer != "ok":
            raise BadInput(f"{self._path} is damaged: {answer}", REBUILD_HINT)

    def dump(self) -> Iterable[tuple[object, ...]]:
        """Yield every row of every table in a fixed order: two stores with equal dumps have equal contents."""
        for table, order in (("documents", "id, born"), ("chunks", "id, born"), ("generations", "number")):
            yield from ((table, *row) for row in self._all(f"select * from {table} order by {order}", 0))

    def _has_tables(self) -> bool:
        return bool(self._db.execute("select count(*) from sqlite_schema").fetchone()[0])

    def _create_tables(self) -> None:
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


def _changed_sum(before: str, gone: Iterable[str], change: RowChange, rows: Iterable[StoredChunk]) -> str:
    """Return the sum of a generation's row hashes from that of the one before, without and with the changed rows."""
    new = [row_hash(document_columns(document)) for document in change.documents_in]
    return sum_of_hashes([*new, *(row.sha256 for row in rows)], before, gone)


def store_row(chunk: Chunk, embedded: str) -> StoredChunk:
    """Return the chunk with its row's hash."""
    values = [getattr(chunk, name) for name in CHUNK_COLUMNS]
    return StoredChunk(chunk, embedded, sha256_text(canonical_json([*values, embedded])))


def document_columns(document: Document) -> list[str]:
    """Return a document's columns: id, content hash, other fields as one JSON object, hash of the raw text."""
    rest = {name: getattr(document, name) for name in _PACKED}
    return [document.id, document.sha256, canonical_json(rest), sha256_text(document.raw)]


def document_from_columns(id: str, sha256: str, rest: str, raw: str) -> Document:
    """Return the document of columns that :func:`document_columns` made, without its blocks."""
    return Document(id=id, sha256=sha256, raw=raw, blocks=(), **json.loads(rest))


def row_hash(columns: Iterable[str]) -> str:
    """Return the hash of a document's row: over its :func:`document_columns`, so also over the hash of its text."""
    return sha256_text("\0".join(columns))


def _parts(values: Sequence[Any], size: int = 500) -> Iterator[Sequence[Any]]:
    """Yield runs of values: SQLite limits the parameters of a statement."""
    for start in range(0, len(values), size):
        yield values[start : start + size]

"""The writer of an index in PostgreSQL: one transaction for each change, one writer at a time.

The writer holds an advisory lock of the database as long as its connection lives, so that a killed writer leaves nothing
locked. A build from nothing loads new tables by ``COPY`` and indexes them afterwards; an update changes rows, and the
posting blocks of the words that come and go. Readers see nothing of either before the commit.
"""
# ruff: noqa: S608 - names and numbers put into statements come from the tables, values are always bound

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from typing import Any

import numpy as np
import psycopg
from pgvector.psycopg import register_vector

from rag.backends.base import IndexChange
from rag.backends.postgresql.connection import (
    VECTOR_TYPES,
    PostgresAddress,
    errors_as_problems,
    open_connection,
)
from rag.backends.postgresql.publication import PostgresPublication, batches
from rag.backends.postgresql.reader import PublishedRecord, read_newest, sent_vector
from rag.backends.postgresql.tables import COMMON_TABLES, FORMAT, NEVER, TableSet
from rag.errors import BadInput, CannotRun
from rag.search.backend import IndexFacts
from rag.stores.text import RowSummary

MIN_VERSION = (0, 8)
"""Of pgvector: earlier ones have no iterative scans."""


@contextmanager
def locked_writer(address: PostgresAddress) -> Iterator[PostgresWriter]:
    """Lock an index for writing, creating its schema if need be.

    Raises:
        BadInput: another process is writing it, or the schema holds something else.
        CannotRun: the server cannot be reached, the extension is missing, a right is missing.
    """
    connection = open_connection(address)
    try:
        with errors_as_problems(address):
            lock = int.from_bytes(
                sha256(f"tunewise index {address.index}".encode()).digest()[:8], signed=True
            )
            locked = connection.execute("select pg_try_advisory_lock(%s)", (lock,)).fetchone()
            if not locked or not locked[0]:
                raise BadInput(
                    f"{address.shown} is being written by another process", "wait until it has ended"
                )
            _prepare(connection, address)
            register_vector(connection)
            record = read_newest(connection, address)
        yield PostgresWriter(connection, address, record)
    finally:
        # The server gives a lock back some time after a connection is closed, and the next writer may be here before.
        with suppress(psycopg.Error):
            connection.execute("select pg_advisory_unlock_all()")
        connection.close()


def _prepare(connection: psycopg.Connection[Any], address: PostgresAddress) -> None:
    """Create the extension, the schema and the tables that all generations share, where they are missing."""
    sql = "select extversion from pg_extension where extname = 'vector'"
    extension = connection.execute(sql).fetchone()
    if extension is None:
        try:
            connection.execute("create extension vector")
        except psycopg.errors.InsufficientPrivilege as error:
            raise CannotRun(
                f"{address.shown}: the extension vector is not in this database, and this role may not create it",
                "let an administrator run there: create extension vector",
            ) from error
        except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile) as error:
            raise CannotRun(
                f"{address.shown}: the server lacks the extension pgvector",
                "install it there, e.g. apt-get install postgresql-17-pgvector",
            ) from error
        extension = connection.execute(sql).fetchone()
    version = tuple(int(part) for part in re.findall(r"\d+", str(extension[0] if extension else "")))
    if version < MIN_VERSION:
        raise CannotRun(
            f"{address.shown}: pgvector {extension[0] if extension else 'of unknown version'} is too old, 0.8 is needed",
            "install a newer one on the server and let an administrator run: alter extension vector update",
        )
    held = connection.execute(
        "select count(*), count(*) filter (where c.relname = 'generations') from pg_class c "
        "join pg_namespace n on n.oid = c.relnamespace where n.nspname = %s and c.relkind = 'r'",
        (address.index,),
    ).fetchone()
    if held and held[0] and not held[1]:
        raise BadInput(
            f"the schema {address.index} has other tables and no index", "choose another name: index=NAME"
        )
    if not held or not held[0]:
        with connection.transaction():
            for statement in (f"create schema if not exists {address.schema}", *COMMON_TABLES):
                connection.execute(statement.format(schema=address.schema))  # type: ignore[call-overload]
            format_number = (str(FORMAT).encode(),)
            connection.execute(f"insert into {address.schema}.notes values ('format', %s)", format_number)  # type: ignore[call-overload]


class PostgresWriter:
    """The only writer of an index; see :func:`locked_writer`."""

    def __init__(
        self, connection: psycopg.Connection[Any], address: PostgresAddress, record: PublishedRecord | None
    ) -> None:
        """Take the connection that holds the lock, and the newest generation."""
        self._db = connection
        self._address = address
        self._record = record
        self.remarks: tuple[str, ...] = ()
        """What the last publication did about the HNSW index, a sentence each."""

    def facts(self) -> IndexFacts | None:
        """Return the facts of the current generation."""
        return self._record.index_facts() if self._record else None

    def documents(self) -> dict[str, str]:
        """Return the content hash of each document, by id."""
        return dict(self._living("documents", "id, sha256", 'order by id collate "C"'))

    def summaries(self, documents: Collection[str]) -> list[RowSummary]:
        """Return the identity of each chunk of documents, by ascending chunk id."""
        if self._record is None:
            return []
        tables = self._record.tables
        sql = (
            f"select c.id, d.id, c.embedded, c.row from {tables.name('chunks')} c join {tables.name('documents')} d "
            f"on d.number = c.doc and d.died = {NEVER} where c.died = {NEVER} and d.id = any(%s) order by c.id"
        )
        return [RowSummary(*row) for row in self._rows(sql, (list(documents),))]

    def known_vectors(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the stored vectors of those hashes of embedded texts that the index has."""
        if self._record is None:
            return {}
        tables = self._record.tables
        sql = (
            f"select c.embedded, vector_send(v.embedding::vector) from {tables.name('chunks')} c "
            f"join {tables.name('vectors')} v on v.id = c.id where c.died = {NEVER} and c.embedded = any(%s)"
        )
        vectors: dict[str, np.ndarray] = {}
        for part in batches(texts):
            rows = self._rows(sql, (part,), binary=True)
            vectors |= {embedded: sent_vector(data) for embedded, data in rows}
        return vectors

    def publish(self, change: IndexChange) -> IndexFacts:
        """Write a change in one transaction, seen by readers whole or not at all."""
        vectors = self._address.vectors or (self._record.vectors if self._record else VECTOR_TYPES[0])
        whole = change.rows.whole or self._record is None
        if self._record and not whole and vectors != self._record.vectors:
            raise BadInput(
                f"{self._address.shown} stores vectors as {self._record.vectors}, and the URL says {vectors}",
                "rebuild it, or remove vectors from the URL",
            )
        self.remarks = ()
        with errors_as_problems(self._address), self._db.transaction():
            publication = PostgresPublication(self._db, self._address, self._record, change, vectors, whole)
            record = publication.write()
            self.remarks = tuple(publication.remarks)
        self._record = record
        return record.index_facts()

    def state(self) -> bytes | None:
        """Return what :meth:`put_state` stored last."""
        rows = self._rows(f"select value from {self._address.schema}.notes where key = 'state'", ())
        return bytes(rows[0][0]) if rows else None

    def put_state(self, state: bytes) -> None:
        """Store what the next update needs to leave unchanged files unread."""
        with errors_as_problems(self._address):
            self._db.execute(
                f"insert into {self._address.schema}.notes values ('state', %s) "  # type: ignore[arg-type]
                "on conflict (key) do update set value = excluded.value",
                (state,),
            )

    def purge(self) -> list[str]:
        """Delete all rows that the current generation does not have, and its predecessor; return documents that are gone.

        The rows are vacuumed; write-ahead log and backups of the server are not touched.
        """
        if self._record is None:
            return []
        schema, tables = self._address.schema, self._record.tables
        with errors_as_problems(self._address):
            with self._db.transaction():
                documents = tables.name("documents")
                sql = f"select distinct id from {documents} where died < {NEVER} except select id from {documents} "
                gone = [id for (id,) in self._db.execute(f"{sql} where died = {NEVER}").fetchall()]  # type: ignore[arg-type]
                sql = (
                    f"delete from {schema}.generations where number < {self._record.number} returning tables"
                )
                others = {number for (number,) in self._db.execute(sql).fetchall()} - {tables.number}  # type: ignore[arg-type]
                for number in sorted(others):
                    self._db.execute(f"drop table {', '.join(TableSet(schema, number).tables())}")  # type: ignore[arg-type]
                for statement in tables.deletions(self._record.number):
                    self._db.execute(statement)  # type: ignore[call-overload]
            for table in tables.tables():
                self._db.execute(f"vacuum {table}")  # type: ignore[arg-type]
        return gone

    def _living(self, table: str, columns: str, tail: str = "") -> list[Any]:
        if self._record is None:
            return []
        return self._rows(
            f"select {columns} from {self._record.tables.name(table)} where died = {NEVER} {tail}", ()
        )

    def _rows(self, sql: str, values: Sequence[Any], *, binary: bool = False) -> list[Any]:
        with errors_as_problems(self._address):
            return self._db.execute(sql, values, binary=binary).fetchall()  # type: ignore[call-overload, no-any-return]

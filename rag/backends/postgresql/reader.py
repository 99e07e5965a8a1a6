"""Statements of a reader: they see one generation, or say that it is gone.

Each statement has a snapshot of its own and selects the rows of the generation by ``born`` and ``died``. A row that the
generation has is deleted only when the generation's record is deleted in the same transaction, so that a record which is
still there *after* a statement proves that the statement saw the generation whole.
"""
# ruff: noqa: S608 - names and numbers put into statements come from the tables, values are always bound

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg

from rag.backends.files import GenerationReplaced
from rag.backends.postgresql.connection import ConnectionPool, PostgresAddress
from rag.backends.postgresql.tables import FORMAT, TableSet
from rag.errors import BadInput
from rag.files import UPDATE_HINT
from rag.search.backend import IndexFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRecord:
    """A row of the table of generations."""

    number: int
    tables: TableSet
    next_id: int
    """The next free chunk id."""
    facts: Mapping[str, Any]
    """:func:`rag.indexing.writer.index_facts`, and ``made_by`` and ``vectors`` of this backend."""
    documents: int
    chunks: int
    words: int
    """Words of all chunks together."""
    indexed: bool
    """Whether there is an HNSW index."""

    @property
    def vectors(self) -> str:
        """The type of the stored vectors: vector or halfvec."""
        return str(self.facts["vectors"])

    def index_facts(self) -> IndexFacts:
        """Return the record as the facts of a backend."""
        return IndexFacts.of_record(self.facts, self.number, self.documents, self.chunks)


def sent_vector(data: bytes) -> np.ndarray:
    """Return the vector that pgvector's ``vector_send`` gave, float32: dimensions and two bytes unused, then the values."""
    return np.frombuffer(data, dtype=">f4", offset=4).astype(np.float32)


def read_newest(connection: psycopg.Connection[Any], address: PostgresAddress) -> PublishedRecord | None:
    """Return the record of the newest generation; None if there is no index.

    Raises:
        BadInput: the index was written by a newer version.
    """
    exists = connection.execute("select to_regclass(%s)", (f"{address.schema}.generations",)).fetchone()
    if exists is None or exists[0] is None:
        return None
    stored = connection.execute(f"select value from {address.schema}.notes where key = 'format'").fetchone()  # type: ignore[call-overload]
    if stored and int(bytes(stored[0])) > FORMAT:
        raise BadInput(f"{address.shown} was written by a newer version of tunewise", UPDATE_HINT)
    row = connection.execute(
        "select number, tables, next_id, facts, documents, chunks, words, indexed "
        f"from {address.schema}.generations order by number desc limit 1"  # type: ignore[arg-type]
    ).fetchone()
    if row is None:
        return None
    number, tables, next_id, facts, documents, chunks, words, indexed = row
    return PublishedRecord(
        number=number,
        tables=TableSet(address.schema, tables),
        next_id=next_id,
        facts=json.loads(facts),
        documents=documents,
        chunks=chunks,
        words=words,
        indexed=indexed,
    )


class GenerationReader:
    """Runs statements on one generation of an index, over a pool of connections."""

    def __init__(self, pool: ConnectionPool, tables: TableSet, generation: int) -> None:
        """Take the pool, the table set of the generation, and its number."""
        self.pool = pool
        self.tables = tables
        self.generation = generation
        self._check = f"select 1 from {tables.schema}.generations where number = %s"

    def lives(self, alias: str) -> str:
        """Return the condition that a row, by its table's alias, belongs to the generation."""
        return f"{alias}.born <= {self.generation} and {alias}.died > {self.generation}"

    def vector_lives(self, alias: str) -> str:
        """Return the same for a row of the table of vectors, whose end is recorded in another table."""
        return (
            f"{alias}.born <= {self.generation} and not exists (select 1 from {self.tables.name('removed')} r "
            f"where r.id = {alias}.id and r.died <= {self.generation})"
        )

    def rows(
        self,
        sql: str,
        values: Sequence[Any] = (),
        *,
        binary: bool = False,
        settings: Sequence[tuple[str, str]] = (),
    ) -> list[Any]:
        """Return the rows of one statement.

        Args:
            sql: the statement.
            values: bound to its ``%s``.
            binary: whether results are sent as bytes, which suits vectors and byte strings.
            settings: of the session, made before the statement in the same round trip.

        Raises:
            GenerationReplaced: the generation is no longer retained.
            CannotRun: the server is down.
        """
        with self.pool.connection() as connection:
            session = self.pool.settings.setdefault(connection, {})
            changed = [(name, value) for name, value in settings if session.get(name) != value]
            try:
                with connection.pipeline():
                    for name, value in changed:
                        connection.execute("select set_config(%s, %s, false)", (name, value))
                    cursor = connection.execute(sql, values, binary=binary)  # type: ignore[call-overload]
                    check = connection.execute(self._check, (self.generation,))  # type: ignore[call-overload]
                session.update(changed)
                found_rows = cursor.fetchall()
                retained = bool(check.fetchall())
            except psycopg.errors.UndefinedTable:
                retained = False
        if not retained:
            raise GenerationReplaced(
                f"generation {self.generation} of {self.pool.address.shown} has been replaced twice",
                "open the index again",
            )
        return list(found_rows)

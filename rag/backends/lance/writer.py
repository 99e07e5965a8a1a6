"""The writer of an index in LanceDB.

Each table gets new versions, which no reader looks at; then one row of the table ``generations`` names them. A writer that
is killed before that leaves the old generation, and the next writer puts the tables back to the versions that it names.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from rag.backends.base import IndexChange
from rag.backends.lance.publication import LancePublication, fetched_rows, optimize_table
from rag.backends.lance.storage import LanceAddress, connect_lance, lance_errors, writer_of
from rag.backends.lance.tables import (
    CHUNKS,
    DOCUMENTS,
    GENERATION_SCHEMA,
    GENERATIONS,
    ROWS_AT_ONCE,
    STATE,
    TABLES,
    VERSIONED,
    LanceRecord,
    numbers_condition,
    read_records,
    table_names,
    texts_condition,
)
from rag.backends.lance.vectors import vector_remark
from rag.errors import BadInput, Problem
from rag.search.backend import IndexFacts
from rag.settings import IndexSettings
from rag.stores.text import RowSummary

if TYPE_CHECKING:
    import lancedb
    from lancedb.table import Table

KEPT_GENERATIONS = 2
"""Generations whose files are kept, as of an index folder: readers of the one before the newest are not disturbed."""


@contextmanager
def lance_writing(address: LanceAddress) -> Iterator[LanceWriter]:
    """Yield the only writer of an index; what a killed writer left is undone first.

    Raises:
        BadInput: another process is writing it, or something else is in its place.
        CannotRun: the storage cannot be reached.
    """
    _refuse_foreign_files(address)
    database = connect_lance(address, create=True)
    with writer_of(address) as check_lock:
        records = read_records(database, address)
        with lance_errors(address):
            foreign = [name for name in table_names(database) if name not in TABLES]
        if not records and foreign:
            raise BadInput(
                f"{address.shown} is another database: it has the table {foreign[0]}", "choose another place"
            )
        writer = LanceWriter(address, database, records, check_lock)
        writer.roll_back()
        yield writer


def _refuse_foreign_files(address: LanceAddress) -> None:
    """Raise BadInput if the folder holds anything but tables of LanceDB."""
    folder = address.folder
    if folder is None or not folder.exists():
        return
    if not folder.is_dir():
        raise BadInput(f"{address.shown} is a file", "choose another folder")
    for path in folder.iterdir():
        if path.suffix != ".lance" and not path.name.startswith("."):
            raise BadInput(
                f"{address.shown} is not an index and not empty: it contains {path.name}",
                "choose another folder",
            )


class LanceWriter:
    """The only writer of one index, while its lock is held; use :func:`lance_writing`."""

    def __init__(
        self,
        address: LanceAddress,
        database: lancedb.DBConnection,
        records: Sequence[LanceRecord],
        check_lock: Callable[[], None],
    ) -> None:
        """Take the parts; ``records`` are the published generations, oldest first."""
        self._address = address
        self._database = database
        self._records = list(records)
        self._check_lock = check_lock
        self.remarks: tuple[str, ...] = ()
        """How the vectors of the last publication are searched, where an index of them was built."""

    @property
    def _current(self) -> LanceRecord | None:
        return self._records[-1] if self._records else None

    def facts(self) -> IndexFacts | None:
        """Return the facts of the current generation."""
        return self._current.index_facts if self._current else None

    def documents(self) -> dict[str, str]:
        """Return the content hash of each document, by id."""
        rows = self._rows(DOCUMENTS, None, ["id", "sha256"])
        return {row["id"]: row["sha256"] for row in rows}

    def summaries(self, documents: Collection[str]) -> list[RowSummary]:
        """Return the identity of each chunk of documents, by ascending chunk id."""
        numbers = list(self._numbers(documents).values())
        columns = ["id", "doc", "embedded", "row"]
        rows = [
            row
            for start in range(0, len(numbers), ROWS_AT_ONCE)
            for row in self._rows(
                CHUNKS, numbers_condition("document", numbers[start : start + ROWS_AT_ONCE]), columns
            )
        ]
        return sorted(RowSummary(row["id"], row["doc"], row["embedded"], row["row"]) for row in rows)

    def known_vectors(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the stored vectors of those hashes of embedded texts that the index has, by hash."""
        if self._current is None or not texts:
            return {}
        wanted = set(texts)
        with lance_errors(self._address):
            table = self._table(CHUNKS)
            every = table.search().select(["id", "embedded"]).to_arrow()
        mask = pa.compute.is_in(every["embedded"], value_set=pa.array(sorted(wanted)))
        ids = every.filter(mask)["id"].to_numpy()
        vectors_by_hash: dict[str, np.ndarray] = {}
        for start in range(0, len(ids), ROWS_AT_ONCE):
            condition = numbers_condition("id", ids[start : start + ROWS_AT_ONCE])
            with lance_errors(self._address):
                rows = table.search().where(condition).select(["embedded", "vector"]).to_arrow()
            vectors = rows["vector"].combine_chunks().flatten().to_numpy().reshape(len(rows), -1)
            vectors_by_hash |= dict(zip(rows["embedded"].to_pylist(), vectors, strict=True))
        return vectors_by_hash

    def state(self) -> bytes | None:
        """Return what :meth:`put_state` stored last."""
        with lance_errors(self._address):
            if STATE not in table_names(self._database):
                return None
            rows = self._database.open_table(STATE).to_arrow().to_pylist()
        return bytes(rows[0]["state"]) if rows else None

    def put_state(self, state: bytes) -> None:
        """Store what the next update needs to leave unchanged files unread."""
        rows = pa.table({"state": pa.array([state], pa.binary())})
        with lance_errors(self._address):
            table = self._database.create_table(STATE, rows, mode="overwrite")
            table.optimize(cleanup_older_than=timedelta(milliseconds=1), delete_unverified=True)

    def roll_back(self) -> None:
        """Put every table back to its version of the current generation, after a writer that never published."""
        if self._current is None:
            return
        with lance_errors(self._address):
            for name, version in self._current.versions.items():
                table = self._database.open_table(name)
                if table.version != version:
                    table.checkout(version)
                    table.restore()

    def publish(self, change: IndexChange) -> IndexFacts:
        """Write a change as the next generation; readers see it when the last row is written, and then whole.

        Raises:
            BadInput: the vectors are of another embedder than those of the index and the change is not ``whole``.
            CannotRun: the storage was lost or is full; the generation before stays.
        """
        whole = change.rows.whole or self._current is None
        if not whole and self._current is not None:
            own, other = self._current.facts["fingerprint"], change.facts["fingerprint"]
            if own != other:
                raise BadInput(
                    f"{self._address.shown} has vectors of {self._current.facts['embedder']} ({own}), "
                    f"these are of {change.facts['embedder']} ({other})",
                    "build the index again",
                )
        try:
            record = LancePublication(self._address, self._database, self._current, change, whole).write()
            self._check_lock()
            self._add(record)
        except BaseException:
            with suppress(Problem):  # without the storage, the next writer does it
                self.roll_back()
            raise
        self._remove_old(force=whole)
        built = self._current.vector_index if self._current else {}
        before = self._records[-2].vector_index if len(self._records) > 1 else {}
        self.remarks = (vector_remark(built),) if built and built != before else ()
        return record.index_facts

    def _add(self, record: LanceRecord) -> None:
        """Publish a generation: this one row makes it the current one."""
        with lance_errors(self._address):
            table = self._database.create_table(GENERATIONS, schema=GENERATION_SCHEMA, exist_ok=True)
            table.add(record.row())
        self._records.append(record)

    def _remove_old(self, *, force: bool) -> None:
        """Delete records of old generations; now and then, or by ``force``, also the files that only they needed."""
        retained = self._records = self._records[-KEPT_GENERATIONS:]
        with lance_errors(self._address):
            generations = self._database.open_table(GENERATIONS)
            generations.delete(f"number < {retained[0].number}")
            every = IndexSettings.from_json(retained[-1].facts["settings"]).max_fragments
            if not force and retained[-1].number % every:
                return
            versions = dict(retained[-1].versions)
            for name in VERSIONED:
                table = self._database.open_table(name)
                optimize_table(table, min(record.versions[name] for record in retained))
                versions[name] = table.version
            if versions != retained[-1].versions:  # joined files hold the same rows
                retained[-1] = replace(retained[-1], versions=versions)
                merge = generations.merge_insert("number").when_matched_update_all()
                merge.execute(retained[-1].row())
            generations.optimize(cleanup_older_than=timedelta(minutes=1))

    def _table(self, name: str) -> Table:
        """Open a table at the version of the current generation."""
        table = self._database.open_table(name)
        if self._current is not None:
            table.checkout(self._current.versions[name])
        return table

    def _numbers(self, documents: Collection[str]) -> dict[str, int]:
        """Return the numbers of those documents that the index has, by id."""
        ids = sorted(documents)
        numbers: dict[str, int] = {}
        for start in range(0, len(ids), 1_000):
            condition = texts_condition("id", ids[start : start + 1_000])
            numbers |= {
                row["id"]: row["number"] for row in self._rows(DOCUMENTS, condition, ["id", "number"])
            }
        return numbers

    def _rows(self, name: str, condition: str | None, columns: list[str]) -> list[dict[str, Any]]:
        """Return some columns of the rows of the current generation that satisfy a condition."""
        if self._current is None:
            return []
        with lance_errors(self._address):
            return fetched_rows(self._table(name), condition, columns)

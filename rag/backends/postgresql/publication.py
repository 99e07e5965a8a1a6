"""One change of an index, written within an open transaction: rows, postings, indexes, the generation's record."""
# ruff: noqa: S608 - names and numbers put into statements come from the tables, values are always bound

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import psycopg
from pgvector import HalfVector

from rag.backends.base import IndexChange
from rag.backends.postgresql.connection import PostgresAddress
from rag.backends.postgresql.filters import date_columns, value_rows
from rag.backends.postgresql.reader import PublishedRecord
from rag.backends.postgresql.tables import MAX_HNSW_DIMENSIONS, MIN_HNSW_CHUNKS, NEVER, TableSet
from rag.backends.postgresql.words import (
    BLOCK_IDS,
    NO_POSTINGS,
    PostingRow,
    Postings,
    block_postings,
    posting_rows,
)
from rag.backends.word_scores import WordCounts
from rag.files import canonical_json
from rag.stores.capacity import hnsw_bytes
from rag.stores.text import CHUNK_COLUMNS, StoredChunk, document_columns, row_hash
from rag.text.words import count_noun
from rag.version import __version__

MAX_MAINTENANCE_BYTES = 2 << 30
"""Most memory that a build of HNSW asks of the server by itself; ``options=-c maintenance_work_mem=...`` gives more."""
_CHUNK_FIELDS = ", ".join(f'"{name}"' for name in CHUNK_COLUMNS)


class PostgresPublication:
    """One change while it is written, in an open transaction."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        address: PostgresAddress,
        previous: PublishedRecord | None,
        change: IndexChange,
        vectors: str,
        whole: bool,
    ) -> None:
        """Take the change.

        Args:
            connection: in a transaction.
            address: of the index.
            previous: the newest generation, None for a new index.
            change: what to write.
            vectors: type of the stored vectors, vector or halfvec.
            whole: whether the change is all of the index, which gets new tables.
        """
        self.db = connection
        self.address = address
        self.previous = previous
        self.change = change
        self.vectors = vectors
        self.whole = whole
        self.dimension = int(change.facts["dimension"])
        self.number = previous.number + 1 if previous else 1
        self.tables = (
            TableSet(address.schema, (previous.tables.number if previous else 0) + 1)
            if whole or previous is None
            else previous.tables
        )
        self.remarks: list[str] = []

    def write(self) -> PublishedRecord:
        """Write all rows, indexes and the generation's record."""
        next_id = self.previous.next_id if self.previous else 1
        rows: list[StoredChunk] = []
        for stored in self.change.rows.chunks_in:
            rows.append(stored if stored.chunk.id else stored.numbered(next_id))
            next_id += not stored.chunk.id
        next_id = max([next_id, *(stored.chunk.id + 1 for stored in rows)])
        rows.sort(key=lambda stored: stored.chunk.id)
        replaced = set() if self.whole else set(self.change.rows.chunks_out)
        new = [stored for stored in rows if stored.chunk.id not in replaced]
        gone = sorted(replaced - {stored.chunk.id for stored in rows})
        if self.whole:
            self._execute(*self.tables.creation(self.dimension, self.vectors))
        else:
            self._remove_rows(gone)
        numbers = self._write_documents(rows)
        self._write_chunks(rows, numbers)
        self._write_vectors(new, numbers)
        words = self._write_words(new, gone)
        if self.whole:
            self._execute(*self.tables.indexes())
        else:
            self._execute(
                f"update {self.tables.name('documents')} d set chunks = (select count(*) from "
                f"{self.tables.name('chunks')} c where c.doc = d.number and c.died = {NEVER}) where d.born = {self.number}"
            )
        documents, chunks = len(self.change.rows.documents_in), len(new) - len(gone)
        if self.previous and not self.whole:
            documents += self.previous.documents - len(self.change.rows.documents_out)
            chunks += self.previous.chunks
        record = self._record(next_id, documents, chunks, words)
        self._delete_unneeded()
        return record

    def _remove_rows(self, gone: Sequence[int]) -> None:
        """End the life of the rows that the change removes."""
        documents, ids = list(self.change.rows.documents_out), list(self.change.rows.chunks_out)
        name = self.tables.name
        numbers = f"select number from {name('documents')} where id = any(%s) and died = {NEVER}"
        for table, column in (("values", "doc"), ("texts", "number")):
            sql = f"update {name(table)} set died = {self.number} where {column} in ({numbers}) and died = {NEVER}"
            self.db.execute(sql, (documents,))  # type: ignore[call-overload]
        for table, column, keys in (("documents", "id", documents), ("chunks", "id", ids)):
            sql = f"update {name(table)} set died = {self.number} where {column} = any(%s) and died = {NEVER}"
            self.db.execute(sql, (keys,))  # type: ignore[call-overload]
        sql = f"insert into {name('removed')} select unnest(%s::bigint[]), {self.number}"
        self.db.execute(sql, (list(gone),))  # type: ignore[call-overload]

    def _write_documents(self, rows: Sequence[StoredChunk]) -> dict[str, int]:
        """Write the documents that come, and return the numbers of all documents of the rows."""
        documents = self.change.rows.documents_in
        names = list(dict.fromkeys([*(doc.id for doc in documents), *(row.chunk.doc for row in rows)]))
        numbers: dict[str, int] = {}
        highest = 0
        if not self.whole:
            table = self.tables.name("documents")
            for part in batches(names):
                sql = f"select id, max(number) from {table} where id = any(%s) group by id"
                numbers |= dict(self.db.execute(sql, (part,)).fetchall())  # type: ignore[call-overload]
            highest = self._number(f"select coalesce(max(number), 0) from {table}")
        for name in names:
            if name not in numbers:
                highest += 1
                numbers[name] = highest
        counts = Counter(row.chunk.doc for row in rows) if self.whole else Counter()
        columns = "number, id, sha256, fields, raw_sha256, row, chunks, dated, dated_unreadable"
        columns += ", until, until_unreadable, born"
        types = [
            "int4",
            "text",
            "text",
            "text",
            "text",
            "text",
            "int4",
            "date",
            "bool",
            "date",
            "bool",
            "int4",
        ]
        values: list[tuple[Any, ...]] = []
        for document in documents:
            stored = document_columns(document)
            fields = json.loads(stored[2])
            number = numbers[document.id]
            dates = date_columns(fields["metadata"])
            values.append((number, *stored, row_hash(stored), counts[document.id], *dates, self.number))
        self._copy("documents", columns, types, values)
        texts = ((numbers[document.id], document.raw, self.number) for document in documents)
        self._copy("texts", "number, raw, born", ["int4", "text", "int4"], texts)
        self._copy(
            "values",
            'doc, position, "key", name, folded, number, value, born',
            ["int4", "int4", "text", "uuid", "uuid", "float8", "text", "int4"],
            (
                (number, *row, self.number)
                for number, id, _, fields, *_ in values
                for row in value_rows(id, json.loads(fields))
            ),
        )
        return numbers

    def _write_chunks(self, rows: Sequence[StoredChunk], numbers: dict[str, int]) -> None:
        columns = f"{_CHUNK_FIELDS}, prefix, embedded, row, born"
        integers = ("doc", "ordinal", "start", "end", "line_start", "line_end", "page")
        types = ["int8" if n == "id" else "int4" if n in integers else "text" for n in CHUNK_COLUMNS]
        self._copy(
            "chunks",
            columns,
            [*types, "text", "text", "text", "int4"],
            (
                (
                    *(numbers[row.chunk.doc] if n == "doc" else getattr(row.chunk, n) for n in CHUNK_COLUMNS),
                    self._prefix(row),
                    row.embedded,
                    row.sha256,
                    self.number,
                )
                for row in rows
            ),
        )

    def _prefix(self, row: StoredChunk) -> str:
        """Return what was put before a chunk's text when it was embedded, so that its words can be counted again."""
        embedded = self.change.texts[row.embedded]
        if not embedded.endswith(row.chunk.text):
            raise ValueError(f"the embedded text of chunk {row.chunk.id} does not end with its text")
        return embedded[: len(embedded) - len(row.chunk.text)]

    def _write_vectors(self, rows: Sequence[StoredChunk], numbers: dict[str, int]) -> None:
        half = self.vectors == "halfvec"
        vectors = self.change.vectors
        self._copy(
            "vectors",
            "id, doc, born, embedding",
            ["int8", "int4", "int4", self.vectors],
            (
                (
                    row.chunk.id,
                    numbers[row.chunk.doc],
                    self.number,
                    HalfVector(vectors[row.embedded]) if half else vectors[row.embedded],
                )
                for row in rows
            ),
        )

    def _write_words(self, new: Sequence[StoredChunk], gone: Sequence[int]) -> int:
        """Write the postings of new rows without those of removed ones; return the words of all chunks together.

        If another version counted the words that are stored, all are counted again.
        """
        texts = self.change.texts
        total = 0
        recounted = (
            not self.whole and self.previous is not None and self.previous.facts["made_by"] != __version__
        )

        def counted(rows: Iterable[tuple[int, str]]) -> Iterator[tuple[int, WordCounts]]:
            nonlocal total
            for id, text in rows:
                words = WordCounts.of(text)
                total += words.length
                yield id, words

        if self.whole:
            self._copy_postings(posting_rows(counted((row.chunk.id, texts[row.embedded]) for row in new)))
        elif recounted:
            table = self.tables.name("postings")
            self._execute(f"update {table} set died = {self.number} where died = {NEVER}")
            highest = self._number(f"select coalesce(max(id), 0) from {self.tables.name('chunks')}")
            for block in range(highest // BLOCK_IDS + 1):
                # read whole before it is written, because the connection can do only one of both
                inside = f"id between {block * BLOCK_IDS} and {(block + 1) * BLOCK_IDS - 1} and died = %s"
                stored = self._texts_where(inside, NEVER)
                self._copy_postings(posting_rows(counted(stored)))
        else:
            assert self.previous is not None
            added = [(row.chunk.id, WordCounts.of(texts[row.embedded])) for row in new]
            ended = f"id = any(%s) and died = {self.number}"
            removed = [
                (id, WordCounts.of(text))
                for part in batches(gone)
                for id, text in self._texts_where(ended, part)
            ]
            total = self.previous.words + sum(words.length for _, words in added)
            total -= sum(words.length for _, words in removed)
            for block in sorted({id // BLOCK_IDS for id, _ in (*added, *removed)}):
                self._change_block(
                    block,
                    block_postings(row for row in added if row[0] // BLOCK_IDS == block),
                    [row for row in removed if row[0] // BLOCK_IDS == block],
                )
        return total

    def _change_block(
        self, block: int, added: dict[str, Postings], removed: Sequence[tuple[int, WordCounts]]
    ) -> None:
        """Replace the rows of the words that come and go in one block."""
        offsets = np.array([id % BLOCK_IDS for id, _ in removed], dtype=np.int64)
        words = sorted({*added, *block_postings(removed)})
        table = self.tables.name("postings")
        where = f"word = any(%s) and block = %s and died = {NEVER}"
        columns = "word, block, offsets, counts, lengths"
        stored: dict[str, Postings] = {}
        for part in batches(words):
            cursor = self.db.execute(
                f"select {columns} from {table} where {where}", (part, block), binary=True
            )  # type: ignore[call-overload]
            stored |= {row[0]: Postings.read(PostingRow(*row)) for row in cursor.fetchall()}
            self.db.execute(f"update {table} set died = {self.number} where {where}", (part, block))  # type: ignore[call-overload]
        changed = (
            (word, stored.get(word, NO_POSTINGS).changed(offsets, added.get(word, NO_POSTINGS)))
            for word in words
        )
        self._copy_postings(postings.row(word, block) for word, postings in changed if len(postings.offsets))

    def _copy_postings(self, rows: Iterable[PostingRow]) -> None:
        types = ["text", "int4", "bytea", "bytea", "bytea", "int4"]
        values = ((*row, self.number) for row in rows)
        self._copy("postings", "word, block, offsets, counts, lengths, born", types, values)

    def _texts_where(self, condition: str, value: Any) -> list[tuple[int, str]]:
        """Return id and embedded text of chunks, by ascending id."""
        sql = f"select id, prefix || text from {self.tables.name('chunks')} where {condition} order by id"
        return self.db.execute(sql, (value,)).fetchall()  # type: ignore[call-overload, no-any-return]

    def _record(self, next_id: int, documents: int, chunks: int, words: int) -> PublishedRecord:
        """Make the HNSW index if it is due, write the record of the generation and return it."""
        indexed = bool(self.previous and self.previous.indexed and not self.whole)
        if not indexed:
            indexed = self._index_vectors(chunks)
        facts = {**self.change.facts, "made_by": __version__, "vectors": self.vectors}
        self.db.execute(
            f"insert into {self.address.schema}.generations values (%s, %s, %s, %s, %s, %s, %s, %s)",  # type: ignore[arg-type]
            (
                self.number,
                self.tables.number,
                next_id,
                canonical_json(facts),
                documents,
                chunks,
                words,
                indexed,
            ),
        )
        if self.whole:
            self._execute(f"analyze {', '.join(self.tables.tables())}")
        return PublishedRecord(
            number=self.number,
            tables=self.tables,
            next_id=next_id,
            facts=facts,
            documents=documents,
            chunks=chunks,
            words=words,
            indexed=indexed,
        )

    def _index_vectors(self, chunks: int) -> bool:
        """Make the HNSW index unless the index is small, or is to be searched exactly; return whether it was made."""
        if chunks < MIN_HNSW_CHUNKS or self.address.search == "exact":
            return False
        if self.dimension > MAX_HNSW_DIMENSIONS[self.vectors]:
            self.remarks.append(
                f"no HNSW index: pgvector indexes at most {MAX_HNSW_DIMENSIONS[self.vectors]} dimensions as {self.vectors}, "
                f"these vectors have {self.dimension}; every search scans all of them"
            )
            return False
        needed = hnsw_bytes(chunks, self.dimension, self.vectors)
        # the graph in memory takes somewhat more than its pages
        wanted = min(needed * 5 // 4 + (64 << 20), MAX_MAINTENANCE_BYTES)
        setting = self._number(
            "select setting::int8 * 1024 from pg_settings where name = 'maintenance_work_mem'"
        )
        given = max(wanted, setting)
        self.db.execute("select set_config('maintenance_work_mem', %s, true)", (f"{given // 1024}kB",))
        self.remarks.append(
            f"HNSW index of {count_noun(chunks, 'vector')} of {self.dimension} dimensions as {self.vectors}: "
            f"{_mib(needed)} of the server's memory to be fast, {_mib(given)} while it is built (maintenance_work_mem)"
            + (
                ""
                if given >= needed
                else "; that is less than the index, so the build is slow: add "
                f"options=-c%20maintenance_work_mem%3D{needed // (1 << 30) + 1}GB to the URL"
            )
        )
        self._execute(self.tables.hnsw(self.vectors))
        return True

    def _delete_unneeded(self) -> None:
        """Delete what neither this generation nor the one before contains, and drop table sets that neither uses."""
        if self.previous is None:
            return
        oldest = self.previous.number
        schema = self.address.schema
        sql = f"delete from {schema}.generations where number < %s returning tables"
        used = {self.tables.number, self.previous.tables.number}
        for number in sorted({tables for (tables,) in self.db.execute(sql, (oldest,)).fetchall()} - used):  # type: ignore[call-overload]
            self._execute(f"drop table {', '.join(TableSet(schema, number).tables())}")
        self._execute(*self.previous.tables.deletions(oldest))

    def _copy(self, table: str, columns: str, types: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        sql = f"copy {self.tables.name(table)} ({columns}) from stdin (format binary)"
        with self.db.cursor() as cursor, cursor.copy(sql) as copy:  # type: ignore[call-overload]
            copy.set_types(types)
            for row in rows:
                copy.write_row(row)

    def _number(self, sql: str) -> int:
        rows = self.db.execute(sql).fetchall()  # type: ignore[call-overload]
        return int(rows[0][0])

    def _execute(self, *statements: str) -> None:
        for statement in statements:
            self.db.execute(statement)  # type: ignore[call-overload]


def batches(values: Sequence[Any], size: int = 5_000) -> Iterator[list[Any]]:
    """Yield values in lists of at most ``size``."""
    for start in range(0, len(values), size):
        yield list(values[start : start + size])


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.0f} MiB"

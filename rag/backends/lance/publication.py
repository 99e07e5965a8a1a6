"""One change on its way into the tables of an index in LanceDB; :mod:`rag.backends.lance.writer` publishes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from rag.backends.base import IndexChange
from rag.backends.lance.storage import LanceAddress, lance_errors
from rag.backends.lance.tables import (
    CHUNKS,
    DOCUMENTS,
    ROWS_AT_ONCE,
    VERSIONED,
    WORDS,
    CountedWords,
    LanceRecord,
    chunk_batches,
    chunk_schema,
    document_reader,
    numbers_condition,
    reader_of,
    texts_condition,
    word_table,
)
from rag.backends.lance.vectors import build_vector_index, wants_index
from rag.errors import CannotRun
from rag.settings import IndexSettings
from rag.stores.base import checked_vectors
from rag.stores.text import StoredChunk

if TYPE_CHECKING:
    import lancedb
    from lancedb.table import Table

_INDEXED = {CHUNKS: ("id", "document"), DOCUMENTS: ("id", "number"), WORDS: ("word",)}
_WORD_INDEX = {
    "base_tokenizer": "whitespace",
    "lower_case": False,
    "stem": False,
    "remove_stop_words": False,
    "ascii_folding": False,
    "max_token_length": None,
}
"""The words are those of :mod:`rag.text.words` already, with a space between them."""


@dataclass(frozen=True, slots=True)
class _RemovedWords:
    """The words of removed chunks."""

    frequencies: Counter[str]
    """In how many of the chunks each occurs."""
    words: int
    rows: int
    """Number of chunks."""


class LancePublication:
    """One change on its way into the tables."""

    def __init__(
        self,
        address: LanceAddress,
        database: lancedb.DBConnection,
        previous: LanceRecord | None,
        change: IndexChange,
        whole: bool,
    ) -> None:
        self._address = address
        self._database = database
        self._previous = previous
        self._change = change
        self._whole = whole
        self._dimension = int(change.facts["dimension"])
        self._settings = IndexSettings.from_json(change.facts["settings"])
        self._counted = CountedWords()

    def write(self) -> LanceRecord:
        """Write the tables and return the record that publishes them."""
        rows, next_id = self._numbered()
        for text in {row.embedded for row in rows}:
            checked_vectors(self._change.vectors[text][None], self._dimension)
        with lance_errors(self._address):
            record = self._replaced(rows) if self._whole or self._previous is None else self._changed(rows)
            counted = self._database.open_table(CHUNKS).count_rows()
        if counted != record.chunks:
            raise CannotRun(
                f"{self._address.shown} has {counted} chunks where {record.chunks} were written: another process "
                "wrote at the same time",
                "run it again",
            )
        return replace(record, next_id=next_id)

    def _numbered(self) -> tuple[list[StoredChunk], int]:
        """Return the rows that come, all with ids, and the next free id."""
        next_id = self._previous.next_id if self._previous else 1
        rows: list[StoredChunk] = []
        for row in self._change.rows.chunks_in:
            rows.append(row if row.chunk.id else row.numbered(next_id))
            next_id += not row.chunk.id
        return rows, max([next_id, *(row.chunk.id + 1 for row in rows)])

    def _replaced(self, rows: Sequence[StoredChunk]) -> LanceRecord:
        """Write all tables anew, and their indexes."""
        change, previous = self._change, self._previous
        documents = change.rows.documents_in
        first = previous.next_document if previous else 1
        numbers = {document.id: first + n for n, document in enumerate(documents)}
        # LanceDB numbers on: versions of the generation before stay, though the tables' columns may change
        chunks = self._created(CHUNKS, chunk_schema(self._dimension))
        if rows:
            chunks.add(reader_of(chunks.schema, self._batches(rows, numbers)))
        stream = document_reader(documents, numbers)
        table = self._created(DOCUMENTS, stream.schema)
        if documents:
            table.add(stream)
        spelled = word_table(self._counted.frequencies)
        table = self._created(WORDS, spelled.schema)
        if len(spelled):
            table.add(spelled)
        for name in VERSIONED:
            self._index(name)
        vector_index: dict[str, Any] = {}
        if wants_index(len(rows), self._address.search):
            vector_index = build_vector_index(chunks, len(rows), self._dimension)
        return LanceRecord(
            number=previous.number + 1 if previous else 1,
            versions=self._versions(),
            facts=dict(change.facts),
            chunks=len(rows),
            documents=len(documents),
            total_words=self._counted.total,
            expiring=sum(bool(document.metadata.get("valid_until")) for document in documents),
            next_id=0,
            next_document=first + len(documents),
            word_rows=len(spelled),
            distinct_words=len(spelled),
            vector_index=vector_index,
        )

    def _changed(self, rows: Sequence[StoredChunk]) -> LanceRecord:
        """Remove and add rows; the indexes cover the new ones later, and searches look at those one by one."""
        previous, change = self._previous, self._change.rows
        assert previous is not None
        gone = self._remove_chunks(change.chunks_out)
        numbers, documents, expiring = self._documents_changed(rows)
        chunks = self._database.open_table(CHUNKS)
        if rows:
            chunks.add(reader_of(chunks.schema, self._batches(rows, numbers)))
        changed_words = Counter(self._counted.frequencies)
        changed_words.subtract(gone.frequencies)
        spelled = word_table(changed_words)
        if len(spelled):
            self._database.open_table(WORDS).add(spelled)
        record = replace(
            previous,
            number=previous.number + 1,
            facts=dict(self._change.facts),
            chunks=previous.chunks - gone.rows + len(rows),
            documents=previous.documents + documents,
            total_words=previous.total_words + self._counted.total - gone.words,
            expiring=previous.expiring + expiring,
            next_document=max([previous.next_document, *(number + 1 for number in numbers.values())]),
            word_rows=previous.word_rows + len(spelled),
        )
        return replace(self._maintained(record), versions=self._versions())

    def _remove_chunks(self, ids: Sequence[int]) -> _RemovedWords:
        """Delete chunks and return what words they had."""
        table = self._database.open_table(CHUNKS)
        removed = _RemovedWords(Counter(), 0, 0)
        for start in range(0, len(ids), ROWS_AT_ONCE):
            condition = numbers_condition("id", ids[start : start + ROWS_AT_ONCE])
            spelled = [row["words"].split() for row in fetched_rows(table, condition, ["words"])]
            for row in spelled:
                removed.frequencies.update(set(row))
            words = removed.words + sum(map(len, spelled))
            removed = replace(removed, words=words, rows=removed.rows + len(spelled))
            table.delete(condition)
        return removed

    def _documents_changed(self, rows: Sequence[StoredChunk]) -> tuple[dict[str, int], int, int]:
        """Remove and add documents.

        Returns:
            The numbers of the documents of the rows that come, by id (a changed document keeps its number, because
            its unchanged chunks keep theirs); how many documents there are more, and how many more that expire.
        """
        change, previous = self._change.rows, self._previous
        assert previous is not None
        table = self._database.open_table(DOCUMENTS)
        needed = sorted({*change.documents_out, *(row.chunk.doc for row in rows)})
        known: dict[str, dict[str, Any]] = {}
        for start in range(0, len(needed), 1_000):
            condition = texts_condition("id", needed[start : start + 1_000])
            known |= {row["id"]: row for row in fetched_rows(table, condition, ["id", "number", "expires"])}
        gone = [known[id] for id in change.documents_out if id in known]
        for start in range(0, len(gone), ROWS_AT_ONCE):
            part = [row["number"] for row in gone[start : start + ROWS_AT_ONCE]]
            table.delete(numbers_condition("number", part))
        numbers = {id: row["number"] for id, row in known.items()}
        next_number = previous.next_document
        for document in change.documents_in:
            if document.id not in numbers:
                numbers[document.id] = next_number
                next_number += 1
        if change.documents_in:
            table.add(document_reader(change.documents_in, numbers))
        expiring = sum(bool(document.metadata.get("valid_until")) for document in change.documents_in)
        expiring -= sum(row["expires"] for row in gone)
        return numbers, len(change.documents_in) - len(gone), expiring

    def _maintained(self, record: LanceRecord) -> LanceRecord:
        """Bring indexes and files up to date where changes have piled up, so that searches stay fast."""
        if not record.chunks:
            return record
        chunks = self._database.open_table(CHUNKS)
        indexed = {config.columns[0] for config in chunks.list_indices()}
        if "words" not in indexed:
            self._index(CHUNKS)
        unindexed = _unindexed(chunks, "words")
        stats: Any = chunks.stats()
        if (
            unindexed > max(self._settings.max_unindexed, record.chunks // 50)
            or stats["fragment_stats"]["num_fragments"] > self._settings.max_fragments
        ):
            previous = self._previous
            assert previous is not None
            for name in VERSIONED:
                optimize_table(self._database.open_table(name), previous.versions[name])
        if record.word_rows > 2 * record.distinct_words + self._settings.max_unindexed:
            record = self._words_added_up(record)
        built = record.vector_index.get("rows", 0)
        if wants_index(record.chunks, self._address.search) and record.chunks > 2 * built:
            index = build_vector_index(self._database.open_table(CHUNKS), record.chunks, self._dimension)
            record = replace(record, vector_index=index)
        return record

    def _words_added_up(self, record: LanceRecord) -> LanceRecord:
        """Write the table of words with one row a word."""
        sums: dict[str, int] = {}
        for batch in self._database.open_table(WORDS).search().to_batches(65_536):
            for word, rows in zip(batch["word"].to_pylist(), batch["rows"].to_pylist(), strict=True):
                sums[word] = sums.get(word, 0) + rows
        spelled = word_table(sums)
        self._created(WORDS, spelled.schema).add(spelled)
        self._index(WORDS)
        return replace(record, word_rows=len(spelled), distinct_words=len(spelled))

    def _index(self, name: str) -> None:
        """Make the indexes of a table that has rows."""
        from lancedb.index import FTS, BTree

        table = self._database.open_table(name)
        if not table.count_rows():
            return
        for column in _INDEXED[name]:
            table.create_index(column, config=BTree())
        if name == CHUNKS:
            table.create_index("words", config=FTS(**_WORD_INDEX))  # type: ignore[arg-type]

    def _batches(self, rows: Sequence[StoredChunk], numbers: Mapping[str, int]) -> Iterator[pa.RecordBatch]:
        change = self._change
        return chunk_batches(rows, numbers, change.texts, change.vectors, self._dimension, self._counted)

    def _created(self, name: str, schema: pa.Schema) -> Table:
        return self._database.create_table(name, schema=schema, mode="overwrite")

    def _versions(self) -> dict[str, int]:
        return {name: self._database.open_table(name).version for name in VERSIONED}


def fetched_rows(table: Table, condition: str | None, columns: list[str]) -> list[dict[str, Any]]:
    """Return some columns of the rows of a table that satisfy a condition, all rows for None."""
    query = table.search().select(columns)
    rows = (query.where(condition) if condition else query).to_arrow()
    return rows.to_pylist()


def _unindexed(table: Table, column: str) -> int:
    """Return how many rows the index of a column does not cover."""
    names = [config.name for config in table.list_indices() if config.columns == [column]]
    stats = table.index_stats(names[0]) if names else None
    return stats.num_unindexed_rows if stats else table.count_rows()


def optimize_table(table: Table, oldest: int) -> None:
    """Join small files, cover new rows by the indexes, and delete the files that only versions before ``oldest`` need."""
    timestamps = {version["version"]: version["timestamp"] for version in table.list_versions()}
    age = datetime.now() - timestamps[oldest] if oldest in timestamps else timedelta(days=3650)
    table.optimize(cleanup_older_than=age + timedelta(seconds=1), delete_unverified=True)

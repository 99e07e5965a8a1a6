"""The tables of an index in LanceDB: their columns, rows from and to the project's types, and the generation's record.

LanceDB numbers the versions of each table. A row of the table ``generations``, written last, names the versions of the other
tables that belong together; a reader of that generation sees these versions and no later change.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from rag.backends.lance.storage import LanceAddress, lance_errors
from rag.errors import BadInput
from rag.files import canonical_json, check_schema
from rag.search.backend import IndexFacts
from rag.stores.text import CHUNK_COLUMNS, StoredChunk, document_columns, row_hash
from rag.text.words import words
from rag.types import Chunk, Document

if TYPE_CHECKING:
    import lancedb

CHUNKS, DOCUMENTS, WORDS = "chunks", "documents", "words"
VERSIONED = (CHUNKS, DOCUMENTS, WORDS)
"""The tables whose versions a generation names."""
GENERATIONS, STATE = "generations", "state"
TABLES = (*VERSIONED, GENERATIONS, STATE)
ROWS_AT_ONCE = 4_096
"""Rows written or fetched at a time."""
_MAX_RANGES = 64
"""A condition on numbers is written as ranges if there are at most so many, else as a list."""
_DOCUMENT_SCHEMA = pa.schema(
    [
        ("number", pa.int32()),
        ("id", pa.string()),
        ("sha256", pa.string()),
        ("fields", pa.string()),
        ("raw_sha256", pa.string()),
        ("row", pa.string()),
        ("expires", pa.bool_()),
        ("raw", pa.string()),
    ]
)
_WORD_SCHEMA = pa.schema([("word", pa.string()), ("rows", pa.int64())])
GENERATION_SCHEMA = pa.schema([("number", pa.int64()), ("body", pa.string())])


def chunk_schema(dimension: int) -> pa.Schema:
    """Return the columns of chunks: the chunk's own, its document's number, hashes, its words in order, its vector."""
    texts = {"doc", "title", "text", "heading"}
    own = [(name, pa.string() if name in texts else pa.int64()) for name in CHUNK_COLUMNS]
    return pa.schema(
        [
            *own,
            ("document", pa.int32()),
            ("embedded", pa.string()),
            ("row", pa.string()),
            ("words", pa.string()),
            ("vector", pa.list_(pa.float32(), dimension)),
        ]
    )


@dataclass(frozen=True, slots=True)
class LanceRecord:
    """One published generation."""

    number: int
    versions: Mapping[str, int]
    """The version of each table of :data:`VERSIONED`."""
    facts: Mapping[str, Any]
    """:func:`rag.indexing.writer.index_facts`."""
    chunks: int
    documents: int
    total_words: int
    """Words of all chunks together; BM25's mean length is that by the number of chunks."""
    expiring: int
    """Documents that have a ``valid_until``; without any, a search without conditions reads no document."""
    next_id: int
    next_document: int
    word_rows: int
    """Rows of the table of words; more than one row of a word are added up."""
    distinct_words: int
    """Rows of that table when each word had one."""
    vector_index: Mapping[str, Any] = field(default_factory=dict)
    """Of :mod:`rag.backends.lance.vectors`: kind, sizes, probes, recall measured; empty for exact search."""

    @property
    def index_facts(self) -> IndexFacts:
        """What a search is told of the generation."""
        return IndexFacts.of_record(self.facts, self.number, self.documents, self.chunks)

    def row(self) -> pa.Table:
        """Return the record as a row of the table of generations."""
        body = canonical_json({"schema": 1, **asdict(self)})
        return pa.table({"number": [self.number], "body": [body]}, schema=GENERATION_SCHEMA)


def read_records(database: lancedb.DBConnection, address: LanceAddress) -> list[LanceRecord]:
    """Return the published generations that are still recorded, oldest first; [] where no index is.

    Raises:
        BadInput: a record is damaged, or was written by a newer version.
        CannotRun: the storage cannot be reached.
    """
    with lance_errors(address):
        if GENERATIONS not in table_names(database):
            return []
        rows = database.open_table(GENERATIONS).to_arrow().to_pylist()
    records = []
    for row in sorted(rows, key=lambda row: row["number"]):
        try:
            body = json.loads(row["body"])
        except ValueError as error:
            raise BadInput(f"{address.shown} is damaged: {error}", "build it again") from error
        body = check_schema(body, "LanceDB index", address.shown)
        body.pop("schema", None)
        try:
            records.append(LanceRecord(**body))
        except TypeError as error:
            raise BadInput(f"{address.shown} is damaged: {error}", "build it again") from error
    return records


def table_names(database: lancedb.DBConnection) -> list[str]:
    """Return the names of all tables of a database."""
    names: list[str] = []
    token: str | None = None
    while True:
        page = database.list_tables(page_token=token)
        names += page.tables
        token = page.page_token
        if not token:
            return names


@dataclass(slots=True)
class CountedWords:
    """The words of chunks, counted while their rows are written."""

    frequencies: Counter[str] = field(default_factory=Counter)
    """In how many of the chunks each word occurs."""
    total: int = 0
    """Words of all chunks together."""

    def add(self, spelled: Sequence[str]) -> str:
        """Count the words of one chunk, and return them as they are stored."""
        self.frequencies.update(set(spelled))
        self.total += len(spelled)
        return " ".join(spelled)


def chunk_batches(
    rows: Sequence[StoredChunk],
    numbers: Mapping[str, int],
    texts: Mapping[str, str],
    vectors: Mapping[str, np.ndarray],
    dimension: int,
    counted: CountedWords,
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of chunks as LanceDB stores them.

    Args:
        rows: with their ids.
        numbers: of their documents, by document id.
        texts: the embedded texts by their hashes.
        vectors: their vectors by the same hashes.
        dimension: of a vector.
        counted: takes the words.
    """
    schema = chunk_schema(dimension)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        part = rows[start : start + ROWS_AT_ONCE]
        columns: dict[str, Any] = {name: [getattr(row.chunk, name) for row in part] for name in CHUNK_COLUMNS}
        columns["document"] = pa.array([numbers[row.chunk.doc] for row in part], pa.int32())
        columns["embedded"] = [row.embedded for row in part]
        columns["row"] = [row.sha256 for row in part]
        columns["words"] = [counted.add(words(texts[row.embedded])) for row in part]
        flat = np.concatenate([np.asarray(vectors[row.embedded], dtype=np.float32) for row in part])
        columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(flat), dimension)
        yield pa.record_batch(columns, schema=schema)


def chunk_of(row: Mapping[str, Any]) -> Chunk:
    """Return the chunk of a fetched row."""
    return Chunk(*(row[name] for name in CHUNK_COLUMNS))


def document_rows(documents: Sequence[Document], numbers: Mapping[str, int]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of documents, few at a time, because each holds a whole text."""
    for start in range(0, len(documents), 256):
        part = documents[start : start + 256]
        columns: dict[str, Any] = {name: [] for name in _DOCUMENT_SCHEMA.names}
        for document in part:
            id, sha256, rest, raw_sha256 = own = document_columns(document)
            values = (numbers[id], id, sha256, rest, raw_sha256, row_hash(own))
            row = (*values, bool(document.metadata.get("valid_until")), document.raw)
            for name, value in zip(_DOCUMENT_SCHEMA.names, row, strict=True):
                columns[name].append(value)
        yield pa.record_batch(columns, schema=_DOCUMENT_SCHEMA)


def word_table(frequencies: Mapping[str, int]) -> pa.Table:
    """Return rows of the table of words: in how many more chunks each occurs."""
    changed = sorted((word, rows) for word, rows in frequencies.items() if rows)
    return pa.table(
        {"word": [word for word, _ in changed], "rows": [rows for _, rows in changed]}, schema=_WORD_SCHEMA
    )


def reader_of(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> pa.RecordBatchReader:
    """Return batches as one stream, which LanceDB writes as one version."""
    return pa.RecordBatchReader.from_batches(schema, batches)


def document_reader(documents: Sequence[Document], numbers: Mapping[str, int]) -> pa.RecordBatchReader:
    """Return the rows of documents as one stream."""
    return reader_of(_DOCUMENT_SCHEMA, document_rows(documents, numbers))


def numbers_condition(column: str, numbers: np.ndarray | Sequence[int], *, inside: bool = True) -> str:
    """Return the SQL condition that a column of numbers is one of those given, or none of them."""
    values = np.unique(np.asarray(numbers, dtype=np.int64))
    if not len(values):
        return "false" if inside else "true"
    starts = np.flatnonzero(np.diff(values, prepend=values[0] - 2) != 1)
    if len(starts) <= min(_MAX_RANGES, len(values) // 2):
        ends = np.append(starts[1:], len(values)) - 1
        spans = zip(values[starts].tolist(), values[ends].tolist(), strict=True)
        joined = " OR ".join(f"({column} >= {first} AND {column} <= {last})" for first, last in spans)
        return f"({joined})" if inside else f"NOT ({joined})"
    return f"{column} {'IN' if inside else 'NOT IN'} ({','.join(map(str, values.tolist()))})"


def texts_condition(column: str, texts: Iterable[str]) -> str:
    """Return the SQL condition that a column of text is one of those given; LanceDB binds no values."""
    quoted = ",".join("'" + text.replace("'", "''") + "'" for text in texts)
    return f"{column} IN ({quoted})" if quoted else "false"

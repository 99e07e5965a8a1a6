"""The backend of an index in LanceDB, in a folder or on S3: its reader; :mod:`rag.backends.lance.writer` writes.

Vectors are compared one by one in indexes of up to 100,000 chunks and where a filter leaves few; else by IVF_PQ with a
refinement (:mod:`rag.backends.lance.vectors`). For words, LanceDB's full text index over our own stemmed words finds the
candidates, with the BM25 of Lucene at k1 1.2 and b 0.75; their exact scores are then computed from the words of the rows.
"""

from __future__ import annotations

import json
import math
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from rag.backends.lance.storage import EXACT_SEARCH, LanceAddress, build_hint, connect_lance, lance_errors
from rag.backends.lance.tables import (
    CHUNKS,
    DOCUMENTS,
    ROWS_AT_ONCE,
    VERSIONED,
    WORDS,
    LanceRecord,
    chunk_of,
    numbers_condition,
    read_records,
    texts_condition,
)
from rag.backends.lance.vectors import nearest, nearest_exactly
from rag.backends.lance.writer import LanceWriter, lance_writing
from rag.backends.word_scores import CollectionStatistics, bm25_scores
from rag.errors import BadInput
from rag.search.backend import ChunkSelection, WordMatches
from rag.search.documents import DocumentIndex
from rag.search.query import Query
from rag.stores.bm25 import query_words
from rag.stores.text import CHUNK_COLUMNS, StoredChunk, document_from_columns, row_hash, store_row
from rag.types import Chunk, Document

if TYPE_CHECKING:
    import lancedb

EXACT_CHUNKS = 50_000
"""Filters that allow at most so many chunks are searched exactly: 0.1 s at 384 dimensions."""
WIDE_SHARE = 0.2
"""A filter that allows this share of the chunks or more is applied to more results instead of being given to LanceDB."""
CACHED_ROWS = 2_000
"""Chunks held with their vectors and words: one search asks for the same ones several times."""
CACHED_WORDS = 20_000
CACHED_DOCUMENTS = 4_096
_OVERFETCH = 1.5
_DEEPER = 4
"""Factor by which more is asked for when too few results of a wide filter were allowed."""
_ROUNDS = 3
_FULL_TEXT_SETTINGS = (1.2, 0.75)
"""k1 and b of LanceDB's full text index, which cannot be set."""
_OTHER_SETTINGS_DEPTH = 20
"""With other settings so many times more candidates are scored: 10 times found all of the best 50 at k1 2, b 0.3."""


@dataclass(frozen=True, slots=True)
class _Allowed:
    """Which documents a query may search, by their numbers."""

    numbers: np.ndarray | None
    """Ascending, int64; None for all."""
    hidden: np.ndarray
    """Those that this query alone leaves out, int64."""
    share: float
    """Of all chunks, how many are allowed."""

    @property
    def everything(self) -> bool:
        return self.numbers is None and not len(self.hidden)

    def condition(self) -> str:
        """Return the condition on the column of the document's number; "" for all."""
        parts = []
        if self.numbers is not None:
            parts.append(numbers_condition("document", np.setdiff1d(self.numbers, self.hidden)))
        elif len(self.hidden):
            parts.append(numbers_condition("document", self.hidden, inside=False))
        return " AND ".join(parts)

    def permits(self, numbers: np.ndarray) -> np.ndarray:
        """Return which of the documents' numbers are allowed, bool [numbers]."""
        inside = np.ones(len(numbers), dtype=bool) if self.numbers is None else np.isin(numbers, self.numbers)
        return inside & ~np.isin(numbers, self.hidden)


class LanceBackend:
    """One generation of an index in LanceDB, pinned: later updates do not change its results."""

    def __init__(self, address: LanceAddress, database: lancedb.DBConnection, record: LanceRecord) -> None:
        """Open the tables at the versions of a generation; use :meth:`open`."""
        self.facts = record.index_facts
        self._address = address
        self._database = database
        self._record = record
        with lance_errors(address):
            self._tables = {name: database.open_table(name) for name in VERSIONED}
            for name, table in self._tables.items():
                table.checkout(record.versions[name])
        self._lock = threading.Lock()
        self._rows: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._frequencies: dict[str, int] = {}
        self._metadata: OrderedDict[str, Mapping[str, Any]] = OrderedDict()
        self._numbers: dict[str, int] = {}

    @classmethod
    def open(cls, url: str) -> LanceBackend:
        """Open the newest generation of the index at a URL.

        Raises:
            BadInput: there is no index, or a newer version wrote it.
            CannotRun: the storage cannot be reached.
        """
        address = LanceAddress.parse(url)
        database = connect_lance(address)
        while True:
            records = read_records(database, address)
            if not records:
                raise BadInput(f"there is no index at {address.shown}", build_hint(address))
            try:
                return cls(address, database, records[-1])
            except BadInput:
                newest = read_records(database, address)
                if not newest or newest[-1].number == records[-1].number:
                    raise
                # updates were published meanwhile and removed this generation: take the new one

    @classmethod
    def writer(cls, url: str) -> AbstractContextManager[LanceWriter]:
        """Return a context in which the caller is the only writer of the index at a URL."""
        return lance_writing(LanceAddress.parse(url))

    @classmethod
    def shown(cls, url: str) -> str:
        """Return a URL as messages show it, after checking that it can be used."""
        return LanceAddress.parse(url).shown

    @property
    def vector_index(self) -> Mapping[str, Any]:
        """What was recorded of the vector index when it was built, with its recall; empty for exact search."""
        return self._record.vector_index

    def current_generation(self) -> int:
        """Return the number of the newest published generation."""
        records = read_records(self._database, self._address)
        return records[-1].number if records else 0

    def select(self, query: Query, today: date) -> ChunkSelection:
        """Return the chunks that a query allows; without conditions and dates no table is read."""
        numbers: np.ndarray | None = None
        notes: tuple[str, ...] = ()
        if query.where or query.as_of is not None or (self._record.expiring and not query.expired):
            documents = self._document_index.select(query, today)
            notes = documents.notes
            if documents.allowed is not None:
                numbers = self._number_list(documents.allowed)
        hidden = np.array(sorted(self._known_numbers(query.without).values()), dtype=np.int64)
        if numbers is None and not len(hidden):
            return ChunkSelection(self.facts.chunks, _Allowed(None, hidden, 1.0), notes)
        counts = self._chunks_of_numbers
        if numbers is None:
            count = self.facts.chunks - int(counts[hidden].sum())
        else:
            count = int(counts[np.setdiff1d(numbers, hidden)].sum())
        return ChunkSelection(count, _Allowed(numbers, hidden, count / max(1, self.facts.chunks)), notes)

    def by_vector(
        self, vectors: np.ndarray, depth: int, selections: Sequence[ChunkSelection]
    ) -> list[np.ndarray]:
        """Return the ids of the allowed chunks nearest to each vector."""
        with lance_errors(self._address):
            return [
                self._nearest(np.asarray(vector, dtype=np.float32), min(depth, selection.count), selection)
                for vector, selection in zip(vectors, selections, strict=True)
            ]

    def by_words(self, question: str, depth: int, selection: ChunkSelection) -> WordMatches:
        """Return the allowed chunks with the best BM25 scores; equal scores are in the order of their ids."""
        query = query_words(question)
        frequencies = self._word_frequencies(query)
        query = [word for word in query if frequencies.get(word)]

        def scores_of(ids: np.ndarray) -> np.ndarray:
            rows = self._fetched(np.asarray(ids, dtype=np.int64).tolist())
            return self._scores(query, [row["words"] for row in rows], frequencies)

        wanted = min(depth, selection.count)
        if not query or not wanted:
            return WordMatches(np.empty(0, dtype=np.int64), scores_of)
        with lance_errors(self._address):
            ids, texts = self._word_candidates(" ".join(query), wanted, selection)
        scores = self._scores(query, texts, frequencies)
        best = np.lexsort((ids, -scores))[:depth]
        return WordMatches(ids[best], scores_of)

    def allowed_ids(self, selection: ChunkSelection) -> np.ndarray:
        """Return the ids of all chunks that a selection allows."""
        with lance_errors(self._address):
            rows = self._tables[CHUNKS].search().select(["id", "document"]).to_arrow()
        ids, documents = (rows[name].to_numpy() for name in ("id", "document"))
        return np.sort(ids[selection.allowed.permits(documents)])

    def vectors(self, ids: np.ndarray) -> np.ndarray:
        """Return the stored vectors of chunks."""
        wanted = np.asarray(ids, dtype=np.int64).tolist()
        matrix = np.empty((len(wanted), self.facts.dimension), dtype=np.float32)
        for start in range(0, len(wanted), CACHED_ROWS):
            for n, row in enumerate(self._fetched(wanted[start : start + CACHED_ROWS]), start):
                matrix[n] = row["vector"]
        return matrix

    def chunks(self, ids: Sequence[int]) -> list[Chunk]:
        """Return chunks by their ids."""
        parts = (ids[start : start + CACHED_ROWS] for start in range(0, len(ids), CACHED_ROWS))
        return [chunk_of(row) for part in parts for row in self._fetched(part)]

    def chunks_of(self, document: str) -> list[Chunk]:
        """Return a document's chunks in the order of its text."""
        number = self._known_numbers([document]).get(document)
        if number is None:
            return []
        rows = self._select(CHUNKS, f"document = {number}", list(CHUNK_COLUMNS))
        return sorted((chunk_of(row) for row in rows), key=lambda chunk: chunk.ordinal)

    def all_chunks(self) -> Iterator[Chunk]:
        """Yield all chunks by ascending id."""
        for rows in self._pages(CHUNK_COLUMNS):
            yield from map(chunk_of, rows)

    def document_ids(self) -> tuple[str, ...]:
        """Return the ids of all documents, sorted."""
        return tuple(sorted(row["id"] for row in self._select(DOCUMENTS, None, ["id"])))

    def metadata(self, document: str) -> Mapping[str, Any]:
        """Return a document's metadata."""
        known = self._metadata.get(document)
        if known is None:
            rows = self._select(DOCUMENTS, texts_condition("id", [document]), ["fields"])
            if not rows:
                raise KeyError(f"no document has the id {document!r}")
            known = json.loads(rows[0]["fields"])["metadata"]
            with self._lock:
                self._metadata[document] = known
                if len(self._metadata) > CACHED_DOCUMENTS:
                    self._metadata.popitem(last=False)
        return known

    def raw(self, document: str) -> str | None:
        """Return a document's source text."""
        rows = self._select(DOCUMENTS, texts_condition("id", [document]), ["raw"])
        return str(rows[0]["raw"]) if rows else None

    def close(self) -> None:
        """Forget the rows held; LanceDB has no connection to end."""
        with self._lock:
            self._rows.clear()

    def stored_chunks(self) -> Iterator[StoredChunk]:
        """Yield the rows of all chunks by ascending id."""
        for rows in self._pages((*CHUNK_COLUMNS, "embedded", "row")):
            for row in rows:
                yield StoredChunk(chunk_of(row), row["embedded"], row["row"])

    def stored_documents(self) -> Iterator[Document]:
        """Yield all documents by id with their source texts, without blocks."""
        ids = self.document_ids()
        for start in range(0, len(ids), 256):
            condition = texts_condition("id", ids[start : start + 256])
            rows = self._select(DOCUMENTS, condition, ["id", "sha256", "fields", "raw"])
            for row in sorted(rows, key=lambda row: row["id"]):
                yield document_from_columns(row["id"], row["sha256"], row["fields"], row["raw"])

    def verify(self) -> dict[str, Any]:
        """Compare every chunk and document with the hash of its row.

        Returns:
            How vectors are searched, with what was recorded of their index.

        Raises:
            BadInput: naming the damage.
        """
        for row in self.stored_chunks():
            if store_row(row.chunk, row.embedded).sha256 != row.sha256:
                raise self._damaged(f"chunk {row.chunk.id} differs from its hash")
        for line in self._select(DOCUMENTS, None, ["id", "sha256", "fields", "raw_sha256", "row"]):
            if row_hash([line["id"], line["sha256"], line["fields"], line["raw_sha256"]]) != line["row"]:
                raise self._damaged(f"the row of {line['id']!r} differs from its hash")
        return {"search": dict(self.vector_index) if "kind" in self.vector_index else EXACT_SEARCH}

    def _damaged(self, what: str) -> BadInput:
        return BadInput(f"{self._address.shown} is damaged: {what}", "build it again")

    @cached_property
    def _document_index(self) -> DocumentIndex:
        """The fields of all documents, read when a query first has a condition."""
        rows = self._select(DOCUMENTS, None, ["id", "number", "fields"])
        self._numbers = {row["id"]: row["number"] for row in rows}
        return DocumentIndex(
            {row["id"]: json.loads(row["fields"]) for row in sorted(rows, key=lambda r: r["id"])}
        )

    @cached_property
    def _chunks_of_numbers(self) -> np.ndarray:
        """How many chunks each document has, by its number, int64 [next number]."""
        with lance_errors(self._address):
            rows = self._tables[CHUNKS].search().select(["document"]).to_arrow()
        return np.bincount(rows["document"].to_numpy(), minlength=self._record.next_document)

    def _number_list(self, documents: Iterable[str]) -> np.ndarray:
        return np.array(sorted(self._known_numbers(documents).values()), dtype=np.int64)

    def _known_numbers(self, documents: Iterable[str]) -> dict[str, int]:
        """Return the numbers of those documents that there are, by id."""
        ids = list(documents)
        missing = [] if "_document_index" in self.__dict__ else [id for id in ids if id not in self._numbers]
        for start in range(0, len(missing), 1_000):
            condition = texts_condition("id", missing[start : start + 1_000])
            rows = self._select(DOCUMENTS, condition, ["id", "number"])
            self._numbers.update((row["id"], row["number"]) for row in rows)
        return {id: self._numbers[id] for id in ids if id in self._numbers}

    def _nearest(self, vector: np.ndarray, wanted: int, selection: ChunkSelection) -> np.ndarray:
        """Return the ids of the allowed chunks nearest to one vector."""
        allowed: _Allowed = selection.allowed
        if not wanted:
            return np.empty(0, dtype=np.int64)
        indexed = "kind" in self._record.vector_index and self._address.search != EXACT_SEARCH
        if allowed.share >= WIDE_SHARE or allowed.everything:
            ids = self._nearest_of_all(vector, wanted, allowed, indexed)
            if ids is not None:
                return ids
        condition = allowed.condition()
        if indexed and selection.count > EXACT_CHUNKS:
            index = self._record.vector_index
            rows = nearest(self._tables[CHUNKS], vector, wanted, index, allowed.share, condition)
            if len(rows) == wanted:
                return rows["id"].to_numpy()
        return nearest_exactly(self._tables[CHUNKS], vector, wanted, condition)["id"].to_numpy()

    def _nearest_of_all(
        self, vector: np.ndarray, wanted: int, allowed: _Allowed, indexed: bool
    ) -> np.ndarray | None:
        """Return the allowed ones among the nearest of all, asking for more if they are too few; None if they stay so."""
        table = self._tables[CHUNKS]
        limit = wanted
        if not allowed.everything:
            limit = math.ceil(_OVERFETCH * wanted / allowed.share) + int(
                self._chunks_of_numbers[allowed.hidden].sum()
            )
        for _ in range(_ROUNDS):
            if indexed:
                rows = nearest(table, vector, limit, self._record.vector_index, min(1.0, wanted / limit))
            else:
                rows = nearest_exactly(table, vector, limit)
            ids = rows["id"].to_numpy()
            if not allowed.everything:
                ids = ids[allowed.permits(rows["document"].to_numpy())]
            if len(ids) >= wanted:
                return ids[:wanted]
            limit = min(limit * _DEEPER, self.facts.chunks)
        return None

    def _word_candidates(
        self, words: str, wanted: int, selection: ChunkSelection
    ) -> tuple[np.ndarray, list[str]]:
        """Return ids and words of the allowed chunks with the best scores of the full text index, more than are wanted."""
        allowed: _Allowed = selection.allowed
        settings = self.facts.settings
        other = (settings.k1, settings.b) != _FULL_TEXT_SETTINGS
        # its counts of rows and words include those of removed rows, and of rows that it does not cover yet none
        enough = _OTHER_SETTINGS_DEPTH * wanted if other else 2 * wanted + 50
        if allowed.everything or allowed.share < WIDE_SHARE:
            rows = self._full_text(words, enough, allowed.condition())
            return rows["id"].to_numpy(), rows["words"].to_pylist()
        limit = math.ceil(_OVERFETCH * enough / allowed.share)
        for _ in range(_ROUNDS):
            rows = self._full_text(words, limit, "")
            permitted = rows.filter(pa.array(allowed.permits(rows["document"].to_numpy())))
            if len(permitted) >= enough or len(rows) < limit:
                return permitted["id"].to_numpy(), permitted["words"].to_pylist()
            limit *= _DEEPER
        rows = self._full_text(words, enough, allowed.condition())
        return rows["id"].to_numpy(), rows["words"].to_pylist()

    def _full_text(self, words: str, limit: int, condition: str) -> pa.Table:
        """Return id, document and words of the rows with the best scores of the full text index."""
        from lancedb import query as queries

        match: Any = queries.MatchQuery
        query = self._tables[CHUNKS].search(match(words, "words"), query_type="fts")
        if condition:
            query = query.where(condition, prefilter=True)
        columns = ["id", "document", "words", "_score"]
        return query.select(columns).limit(min(limit, self.facts.chunks)).to_arrow()

    def _scores(
        self, query: Sequence[str], texts: Sequence[str], frequencies: Mapping[str, int]
    ) -> np.ndarray:
        """Return the BM25 scores of rows by their words, float32 [rows]."""
        spelled = [text.split(" ") if text else [] for text in texts]
        counts = {
            word: np.array([row.count(word) for row in spelled], dtype=np.int64)
            for word in dict.fromkeys(query)
        }
        lengths = np.array([len(row) for row in spelled], dtype=np.int64)
        settings = self.facts.settings
        statistics = CollectionStatistics(
            self.facts.chunks, self._record.total_words, settings.k1, settings.b
        )
        return bm25_scores(query, counts, lengths, frequencies, statistics)

    def _word_frequencies(self, query: Sequence[str]) -> Mapping[str, int]:
        """Return in how many chunks each word occurs."""
        with self._lock:
            known = {word: self._frequencies[word] for word in query if word in self._frequencies}
        if missing := sorted(set(query).difference(known)):
            read = dict.fromkeys(missing, 0)
            for row in self._select(WORDS, texts_condition("word", missing), ["word", "rows"]):
                read[row["word"]] += row["rows"]
            known |= read
            with self._lock:
                if len(self._frequencies) > CACHED_WORDS:
                    self._frequencies.clear()
                self._frequencies.update(read)
        return known

    def _fetched(self, ids: Sequence[int]) -> list[dict[str, Any]]:
        """Return the rows of chunks with vectors and words, held or fetched at once; KeyError for an unknown id."""
        with self._lock:
            rows = {id: self._rows[id] for id in ids if id in self._rows}
        missing = [id for id in dict.fromkeys(ids) if id not in rows]
        if missing:
            with lance_errors(self._address):
                table = self._tables[CHUNKS].search().where(numbers_condition("id", missing))
                fetched = table.select([*CHUNK_COLUMNS, "words", "vector"]).to_arrow()
            flat = fetched["vector"].combine_chunks().flatten().to_numpy()
            vectors = flat.reshape(len(fetched), self.facts.dimension)
            for row, vector in zip(fetched.drop_columns(["vector"]).to_pylist(), vectors, strict=True):
                rows[row["id"]] = {**row, "vector": vector}
            with self._lock:
                self._rows.update((id, rows[id]) for id in missing if id in rows)
                while len(self._rows) > CACHED_ROWS:
                    self._rows.popitem(last=False)
        for id in ids:
            if id not in rows:
                raise KeyError(f"no chunk has the id {id}")
        return [rows[id] for id in ids]

    def _pages(self, columns: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
        """Yield some columns of all chunks by ascending id, a page at a time."""
        with lance_errors(self._address):
            ids = np.sort(self._tables[CHUNKS].search().select(["id"]).to_arrow()["id"].to_numpy())
        for start in range(0, len(ids), ROWS_AT_ONCE):
            condition = numbers_condition("id", ids[start : start + ROWS_AT_ONCE])
            yield sorted(self._select(CHUNKS, condition, list(columns)), key=lambda row: row["id"])

    def _select(self, name: str, condition: str | None, columns: list[str]) -> list[dict[str, Any]]:
        """Return some columns of the rows that satisfy a condition."""
        with lance_errors(self._address):
            query = self._tables[name].search().select(columns)
            rows: list[dict[str, Any]] = (
                (query.where(condition) if condition else query).to_arrow().to_pylist()
            )
        return rows

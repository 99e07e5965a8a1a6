"""The backend of an index in PostgreSQL with pgvector: its reader; :mod:`rag.backends.postgresql.writer` writes.

Vectors are searched exactly where few chunks are allowed, through the b-tree on their document, or where the index is
small; else by HNSW, deeper than asked, and then filtered: a filter given to HNSW itself loses most rows when it is
selective (pgvector 0.8 with default settings found 2 % of them at 0.5 % selectivity).
"""
# ruff: noqa: S608 - names and numbers put into statements come from the tables, values are always bound

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from rag.backends.postgresql.connection import ConnectionPool, PostgresAddress
from rag.backends.postgresql.filters import AllowedDocuments, DocumentFilters
from rag.backends.postgresql.reader import (
    GenerationReader,
    PublishedRecord,
    read_newest,
    sent_vector,
)
from rag.backends.postgresql.words import PostingRow, best_rows, scored_matches, word_key
from rag.backends.postgresql.writer import PostgresWriter, locked_writer
from rag.backends.word_scores import CollectionStatistics
from rag.errors import BadInput
from rag.search.backend import ChunkSelection, WordMatches
from rag.search.query import Query
from rag.stores.bm25 import query_words
from rag.stores.capacity import hnsw_bytes
from rag.stores.text import CHUNK_COLUMNS, StoredChunk, document_from_columns, store_row
from rag.types import Chunk, Document

EXACT_CHUNKS = 50_000
"""Filters that allow at most so many chunks may be searched exactly: some 25 ms at 384 dimensions."""
SCANNED_FOR_ONE = 15
"""Rows that are scanned, through the b-tree of their documents, in about the time that HNSW needs for one."""
MIN_EF_SEARCH = 100
"""Fewest candidates of one HNSW search; at 100 the best 10 of 100,000 vectors had a recall of 1.000, at pgvector's default
of 40 .975."""
MAX_EF_SEARCH = 1000
"""pgvector's limit."""
OVERFETCH = 4
"""Times more than needed are fetched from HNSW, so that the best of them are the best."""
MAX_HNSW_ROWS = 20_000
"""If more rows than this would be needed from HNSW to fill up a filtered result, all are scanned."""
ROWS_AT_ONCE = 2_000
"""Chunks or vectors fetched by one statement."""
CACHED_DOCUMENTS = 4_096
_CHUNK_SQL = ", ".join("d.id" if name == "doc" else f'c."{name}"' for name in CHUNK_COLUMNS)


@dataclass(frozen=True, slots=True)
class _Allowed:
    """What a query allows: the documents of its filters without those that it alone leaves out."""

    documents: AllowedDocuments
    hidden: tuple[int, ...]
    """Numbers of documents."""

    @property
    def everything(self) -> bool:
        return not self.documents.clauses and not self.hidden

    def condition(self, column: str) -> tuple[str, list[Any]]:
        """Return the condition on ``d``, beginning with "and", in which ``column`` is the document's number."""
        sql, values = self.documents.sql, list(self.documents.values)
        if self.hidden:
            sql += f" and {column} <> all(%s)"
            values.append(list(self.hidden))
        return sql, values


class PostgresBackend:
    """One generation of an index in PostgreSQL, pinned: later updates do not change its results."""

    def __init__(
        self,
        pool: ConnectionPool,
        record: PublishedRecord,
        search: str = "",
        exact_chunks: int = EXACT_CHUNKS,
    ) -> None:
        """Take the connections and the generation's record; use :meth:`open`."""
        self._exact_chunks = exact_chunks
        self.facts = record.index_facts()
        self._record = record
        self._pool = pool
        self._reader = GenerationReader(pool, record.tables, record.number)
        self._filters = DocumentFilters(self._reader, record.documents, record.chunks)
        self._indexed = record.indexed and search != "exact"
        self._documents: OrderedDict[str, Mapping[str, Any]] = OrderedDict()
        self._numbers: WeakKeyDictionary[AllowedDocuments, list[int]] = WeakKeyDictionary()
        self._ids: WeakKeyDictionary[AllowedDocuments, np.ndarray] = WeakKeyDictionary()

    @classmethod
    def open(cls, url: str, *, exact_chunks: int = EXACT_CHUNKS) -> PostgresBackend:
        """Open the newest generation of the index at a URL.

        Args:
            url: of the index.
            exact_chunks: filters that allow so many chunks at most are searched exactly.

        Raises:
            BadInput: there is no index, or a newer version wrote it.
            CannotRun: the server cannot be reached.
        """
        address = PostgresAddress.parse(url)
        pool = ConnectionPool(address)
        with pool.connection() as connection:
            record = read_newest(connection, address)
        if record is None:
            pool.close()
            raise BadInput(
                f"there is no index at {address.shown}",
                f"build it first: tunewise index build --to '{address.shown}' --documents DOCUMENTS",
            )
        return cls(pool, record, address.search, exact_chunks)

    @classmethod
    def writer(cls, url: str) -> AbstractContextManager[PostgresWriter]:
        """Return a context in which the caller is the only writer of the index at a URL."""
        return locked_writer(PostgresAddress.parse(url))

    @classmethod
    def shown(cls, url: str) -> str:
        """Return a URL as messages show it, after checking that it can be used."""
        return PostgresAddress.parse(url).shown

    def current_generation(self) -> int:
        """Return the number of the newest published generation."""
        with self._pool.connection() as connection:
            record = read_newest(connection, self._pool.address)
        return record.number if record else 0

    def select(self, query: Query, today: date) -> ChunkSelection:
        """Return the chunks that a query allows."""
        documents = self._filters.select(query, today)
        count, hidden = documents.chunks, ()
        if query.without:
            sql = f"select d.number, d.chunks from {self._documents_sql} and d.id = any(%s){documents.sql}"
            rows = self._reader.rows(sql, (list(query.without), *documents.values))
            hidden = tuple(number for number, _ in rows)
            count -= sum(chunks for _, chunks in rows)
        return ChunkSelection(count, _Allowed(documents, hidden), documents.notes)

    def by_vector(
        self, vectors: np.ndarray, depth: int, selections: Sequence[ChunkSelection]
    ) -> list[np.ndarray]:
        """Return the ids of the allowed chunks nearest to each vector."""
        return [
            self._nearest(vector, min(depth, selection.count), selection)
            for vector, selection in zip(vectors, selections, strict=True)
        ]

    def by_words(self, question: str, depth: int, selection: ChunkSelection) -> WordMatches:
        """Return the allowed chunks with the best exact BM25 scores; equal scores are in the order of their ids."""
        query = query_words(question)
        keys = sorted({word_key(word) for word in query})
        sql = (
            f"select p.word, p.block, p.offsets, p.counts, p.lengths from {self._reader.tables.name('postings')} p "
            f"where p.word = any(%s) and {self._reader.lives('p')} order by p.block"
        )
        rows = [PostingRow(*row) for row in self._reader.rows(sql, (keys,), binary=True)]
        settings = self.facts.settings
        statistics = CollectionStatistics(self.facts.chunks, self._record.words, settings.k1, settings.b)
        ids, scores = scored_matches(query, rows, statistics)

        def scores_of(wanted: np.ndarray) -> np.ndarray:
            positions = np.minimum(np.searchsorted(ids, wanted), max(len(ids) - 1, 0))
            result = np.zeros(len(wanted), dtype=np.float32)
            if len(ids):
                matching = ids[positions] == wanted
                result[matching] = scores[positions[matching]]
            return result

        return WordMatches(self._best_allowed(ids, scores, depth, selection), scores_of)

    def allowed_ids(self, selection: ChunkSelection) -> np.ndarray:
        """Return the ids of all chunks that a selection allows."""
        condition, values = selection.allowed.condition("d.number")
        sql = (
            f"select v.id from {self._reader.tables.name('vectors')} v {self._join('v.doc')} "
            f"where {self._reader.vector_lives('v')}{condition} order by v.id"
        )
        return np.array([id for (id,) in self._reader.rows(sql, values, binary=True)], dtype=np.int64)

    def vectors(self, ids: np.ndarray) -> np.ndarray:
        """Return the stored vectors of chunks; those of a ``halfvec`` index are rounded to 11 bits."""
        wanted = np.asarray(ids, dtype=np.int64).tolist()
        sql = (
            f"select v.id, vector_send(v.embedding::vector) from {self._reader.tables.name('vectors')} v "
            f"where v.id = any(%s) and {self._reader.vector_lives('v')}"
        )
        matrix = np.empty((len(wanted), self.facts.dimension), dtype=np.float32)
        for start in range(0, len(wanted), ROWS_AT_ONCE):
            part = wanted[start : start + ROWS_AT_ONCE]
            known = dict(self._reader.rows(sql, (part,), binary=True))
            for n, id in enumerate(part, start):
                if id not in known:
                    raise KeyError(f"no chunk has the id {id}")
                matrix[n] = sent_vector(known[id])
        return matrix

    def chunks(self, ids: Sequence[int]) -> list[Chunk]:
        """Return chunks by their ids."""
        known: dict[int, Chunk] = {}
        for start in range(0, len(ids), ROWS_AT_ONCE):
            part = list(ids[start : start + ROWS_AT_ONCE])
            known |= {chunk.id: chunk for chunk in self._chunks("c.id = any(%s)", (part,), documents=True)}
        if missing := [id for id in ids if id not in known]:
            raise KeyError(f"no chunk has the id {missing[0]}")
        return [known[id] for id in ids]

    def chunks_of(self, document: str) -> list[Chunk]:
        """Return a document's chunks in the order of its text."""
        return self._chunks("d.id = %s", (document,), "order by c.ordinal")

    def all_chunks(self) -> Iterator[Chunk]:
        """Yield all chunks by ascending id."""
        last = -1
        while page := self._chunks("c.id > %s", (last,), f"order by c.id limit {ROWS_AT_ONCE}"):
            yield from page
            last = page[-1].id

    def document_ids(self) -> tuple[str, ...]:
        """Return the ids of all documents, sorted."""
        rows = self._reader.rows(f'select d.id from {self._documents_sql} order by d.id collate "C"')
        return tuple(id for (id,) in rows)

    def metadata(self, document: str) -> Mapping[str, Any]:
        """Return a document's metadata."""
        known = self._documents.get(document)
        if known is None:
            sql = f"select d.fields from {self._documents_sql} and d.id = %s"
            rows = self._reader.rows(sql, (document,))
            if not rows:
                raise KeyError(f"no document has the id {document!r}")
            known = self._remember(document, rows[0][0])
        return known

    def raw(self, document: str) -> str | None:
        """Return a document's source text."""
        sql = (
            f"select t.raw from {self._reader.tables.name('texts')} t {self._join('t.number')} "
            f"where d.id = %s and {self._reader.lives('t')}"
        )
        rows = self._reader.rows(sql, (document,))
        return str(rows[0][0]) if rows else None

    def close(self) -> None:
        """End the connections."""
        self._pool.close()

    def stored_chunks(self) -> Iterator[StoredChunk]:
        """Yield the rows of all chunks by ascending id."""
        last = -1
        while page := self._stored_page(last):
            for *columns, embedded, row in page:
                yield StoredChunk(Chunk(*columns), embedded, row)
            last = page[-1][0]

    def stored_documents(self) -> Iterator[Document]:
        """Yield all documents by id with their source texts, without blocks."""
        sql = (
            f"select d.id, d.sha256, d.fields, t.raw from {self._reader.tables.name('texts')} t {self._join('t.number')} "
            f"where {self._reader.lives('t')} and d.id = any(%s)"
        )
        ids = self.document_ids()
        for start in range(0, len(ids), 256):
            rows = self._reader.rows(sql, (list(ids[start : start + 256]),))
            for row in sorted(rows):
                yield document_from_columns(*row)

    def verify(self) -> dict[str, Any]:
        """Compare every chunk with the hash of its row, and the counts of the record with the rows.

        Returns:
            The type of the vectors, and how they are searched.

        Raises:
            BadInput: naming the damage.
        """
        shown, chunks = self._pool.address.shown, 0
        last = -1
        while page := self._stored_page(last):
            for *columns, embedded, row in page:
                if store_row(Chunk(*columns), embedded).sha256 != row:
                    raise BadInput(
                        f"{shown} is damaged: chunk {columns[0]} differs from its hash", "rebuild it"
                    )
            chunks += len(page)
            last = page[-1][0]
        vectors = self._reader.tables.name("vectors")
        counted = self._reader.rows(
            f"select count(*) from {vectors} v where {self._reader.vector_lives('v')}"
        )
        documents = self._reader.rows(f"select count(*) from {self._documents_sql}")
        counts = (documents[0][0], chunks, counted[0][0])
        if counts != (self.facts.documents, self.facts.chunks, self.facts.chunks):
            raise BadInput(
                f"{shown} is damaged: it has {counts[0]} documents, {chunks} chunks and {counts[2]} vectors, "
                f"and records {self.facts.documents}, {self.facts.chunks} and {self.facts.chunks}",
                "rebuild it",
            )
        body: dict[str, Any] = {"vectors": self._record.vectors, "search": "exact"}
        if self._record.indexed:
            size = hnsw_bytes(self.facts.chunks, self.facts.dimension, self._record.vectors)
            body |= {"search": "hnsw", "index_mib": round(size / (1 << 20), 1)}
        return body

    @property
    def _documents_sql(self) -> str:
        return f"{self._reader.tables.name('documents')} d where {self._reader.lives('d')}"

    def _stored_page(self, last: int) -> list[Any]:
        sql = (
            f"select {_CHUNK_SQL}, c.embedded, c.row from {self._reader.tables.name('chunks')} c {self._join('c.doc')} "
            f"where {self._reader.lives('c')} and c.id > %s order by c.id limit {ROWS_AT_ONCE}"
        )
        return self._reader.rows(sql, (last,))

    def _join(self, column: str) -> str:
        """Return the join with the documents ``d``, whose number is in ``column``."""
        return f"join {self._reader.tables.name('documents')} d on d.number = {column} and {self._reader.lives('d')}"

    def _chunks(
        self, condition: str, values: Sequence[Any], tail: str = "", documents: bool = False
    ) -> list[Chunk]:
        """Return chunks; ``documents`` reads the metadata of their documents along, which a search asks for next."""
        fields = ", d.fields" if documents else ""
        sql = (
            f"select {_CHUNK_SQL}{fields} from {self._reader.tables.name('chunks')} c {self._join('c.doc')} "
            f"where {self._reader.lives('c')} and {condition} {tail}"
        )
        rows = self._reader.rows(sql, values)
        if not documents:
            return [Chunk(*row) for row in rows]
        chunks = [Chunk(*columns) for *columns, _ in rows]
        for chunk, row in zip(chunks, rows, strict=True):
            if chunk.doc not in self._documents:
                self._remember(chunk.doc, row[-1])
        return chunks

    def _remember(self, document: str, fields: str) -> Mapping[str, Any]:
        """Hold a document's metadata, in place of the oldest if there are many."""
        if len(self._documents) >= CACHED_DOCUMENTS:
            self._documents.popitem(last=False)
        metadata: Mapping[str, Any] = json.loads(fields)["metadata"]
        self._documents[document] = metadata
        return metadata

    def _nearest(self, vector: np.ndarray, depth: int, selection: ChunkSelection) -> np.ndarray:
        """Return the ids nearest to one vector, by HNSW if that can fill up the depth, else by a scan."""
        if depth < 1:
            return np.empty(0, dtype=np.int64)
        rows = max(MIN_EF_SEARCH, math.ceil(OVERFETCH * depth * self.facts.chunks / selection.count))
        filtered = bool(selection.allowed.documents.clauses)
        few = filtered and selection.count <= min(self._exact_chunks, SCANNED_FOR_ONE * rows)
        if self._indexed and not few:
            while rows <= min(MAX_HNSW_ROWS, self.facts.chunks):
                ids = self._by_hnsw(vector, depth, selection.allowed, rows)
                if len(ids) >= depth:
                    return ids
                rows *= 4
        return self._by_scan(vector, depth, selection, filtered and selection.count <= self._exact_chunks)

    def _by_hnsw(self, vector: np.ndarray, depth: int, allowed: _Allowed, rows: int) -> np.ndarray:
        """Return the allowed ids among the nearest ``rows`` of HNSW."""
        distance = f"v.embedding <#> %s::{self._record.vectors}"
        condition, values = allowed.condition("n.doc")
        join = self._join("n.doc") if allowed.documents.clauses else ""
        sql = (
            f"with n as materialized (select v.id, v.doc, v.born, {distance} as distance "
            f"from {self._reader.tables.name('vectors')} v order by {distance} limit %s) "
            f"select n.id from n {join} where {self._reader.vector_lives('n')}{condition} "
            f"order by n.distance, n.id limit %s"
        )
        settings = (
            ("hnsw.ef_search", str(min(rows, MAX_EF_SEARCH))),
            ("hnsw.iterative_scan", "relaxed_order"),
            ("hnsw.max_scan_tuples", str(2 * rows + 20_000)),
        )
        bound = (vector, vector, rows, *values, depth)
        result = self._reader.rows(sql, bound, binary=True, settings=settings)
        return np.array([id for (id,) in result], dtype=np.int64)

    def _by_scan(self, vector: np.ndarray, depth: int, selection: ChunkSelection, few: bool) -> np.ndarray:
        """Return the nearest allowed ids exactly; the planner must not use HNSW, hence the materialised part."""
        vectors, allowed = self._reader.tables.name("vectors"), selection.allowed
        sql = f"select v.id, v.embedding <#> %s::{self._record.vectors} as distance from {vectors} v "
        values: list[Any] = [vector]
        if few:
            sql += f"where {self._reader.vector_lives('v')} and v.doc = any(%s)"
            hidden = set(allowed.hidden)
            values.append([n for n in self._document_numbers(allowed.documents) if n not in hidden])
        else:
            condition, more = allowed.condition("v.doc")
            sql += self._join("v.doc") if allowed.documents.clauses else ""
            sql += f" where {self._reader.vector_lives('v')}{condition}"
            values += more
        sql = f"with a as materialized ({sql}) select id from a order by distance, id limit %s"
        result = self._reader.rows(sql, (*values, depth), binary=True)
        return np.array([id for (id,) in result], dtype=np.int64)

    def _document_numbers(self, documents: AllowedDocuments) -> list[int]:
        """Return the numbers of the documents that a filter allows, held as long as the filter is."""
        numbers = self._numbers.get(documents)
        if numbers is None:
            sql = f"select d.number from {self._documents_sql}{documents.sql}"
            rows = self._reader.rows(sql, documents.values, binary=True)
            numbers = self._numbers[documents] = [number for (number,) in rows]
        return numbers

    def _best_allowed(
        self, ids: np.ndarray, scores: np.ndarray, depth: int, selection: ChunkSelection
    ) -> np.ndarray:
        """Return the ids with the best scores among those that are allowed, at most ``depth``, best first."""
        allowed: _Allowed = selection.allowed
        if allowed.everything or not len(ids):
            return ids[best_rows(scores, depth)]
        if selection.count <= self._exact_chunks and not allowed.hidden:
            if (permitted := self._ids.get(allowed.documents)) is None:
                permitted = self._ids[allowed.documents] = self.allowed_ids(selection)
            inside = np.isin(ids, permitted)
            return ids[inside][best_rows(scores[inside], depth)]
        count = OVERFETCH * depth
        while True:
            best = ids[best_rows(scores, count)]
            permitted = self._permitted(best, allowed)
            if len(permitted) >= depth or len(best) == len(ids):
                return permitted[:depth]
            count *= 4

    def _permitted(self, ids: np.ndarray, allowed: _Allowed) -> np.ndarray:
        """Return those of some ids whose documents are allowed, in their order."""
        condition, values = allowed.condition("d.number")
        sql = (
            f"select v.id from {self._reader.tables.name('vectors')} v {self._join('v.doc')} "
            f"where v.id = any(%s){condition}"
        )
        rows = self._reader.rows(sql, (ids.tolist(), *values), binary=True)
        permitted = np.array([id for (id,) in rows], dtype=np.int64)
        return ids[np.isin(ids, permitted)]

"""The backend of this machine: a vector store and BM25 over files or memory, chunks from a list or from SQLite."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from rag.search.backend import ChunkSelection, IndexFacts, WordMatches
from rag.search.documents import DocumentIndex, DocumentSelection
from rag.search.query import Query
from rag.stores.base import VectorStore
from rag.stores.bm25 import BM25Index
from rag.stores.segments import SegmentedWords
from rag.types import Chunk

MAX_POST_FILTERED = 256
"""If the filters leave out at most this many chunks, they are searched too and dropped from the results."""


class ChunkLookup(Protocol):
    """The chunks of one generation, by id and by document."""

    @property
    def ids(self) -> np.ndarray:
        """Ids of all chunks, ascending, int64 [chunks]."""

    def chunks(self, ids: Sequence[int]) -> list[Chunk]:
        """Return chunks by their ids, in that order; KeyError for an unknown id."""

    def ids_of(self, documents: Collection[str]) -> np.ndarray:
        """Return the ids of the chunks of documents, in any order, int64; unknown documents have none."""

    def chunks_of(self, document: str) -> list[Chunk]:
        """Return a document's chunks in the order of its text."""

    def all_chunks(self) -> Iterator[Chunk]:
        """Yield all chunks by ascending id."""


class ChunkList:
    """Chunks held in memory."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        """Take all chunks, sorted by id."""
        self._chunks = chunks
        self._ids = np.array([chunk.id for chunk in chunks], dtype=np.int64)

    @property
    def ids(self) -> np.ndarray:
        """Ids of all chunks, ascending."""
        return self._ids

    def chunks(self, ids: Sequence[int]) -> list[Chunk]:
        """Return chunks by their ids."""
        rows = np.searchsorted(self._ids, np.asarray(ids, dtype=np.int64))
        present = rows < len(self._ids)
        present[present] = self._ids[rows[present]] == np.asarray(ids)[present]
        if not present.all():
            raise KeyError(f"no chunk has the id {np.asarray(ids)[~present][0]}")
        return [self._chunks[row] for row in rows.tolist()]

    def ids_of(self, documents: Collection[str]) -> np.ndarray:
        """Return the ids of the chunks of documents."""
        ids = [chunk.id for document in documents for chunk in self._by_document.get(document, ())]
        return np.array(ids, dtype=np.int64)

    def chunks_of(self, document: str) -> list[Chunk]:
        """Return a document's chunks in the order of its text."""
        return self._by_document.get(document, [])

    def all_chunks(self) -> Iterator[Chunk]:
        """Yield all chunks by ascending id."""
        yield from self._chunks

    @cached_property
    def _by_document(self) -> dict[str, list[Chunk]]:
        chunks: defaultdict[str, list[Chunk]] = defaultdict(list)
        for chunk in self._chunks:
            chunks[chunk.doc].append(chunk)
        return {doc: sorted(rows, key=lambda chunk: chunk.ordinal) for doc, rows in chunks.items()}


@dataclass(frozen=True, slots=True)
class _AllowedRows:
    """Which rows may be returned; a row is a position in the ascending list of chunk ids."""

    selection: DocumentSelection
    mask: np.ndarray | None
    """Of the conditions and dates, bool [chunks], None for all; shared by equal queries."""
    hidden: np.ndarray
    """Rows of the documents that this query alone leaves out, int64."""


class LocalBackend:
    """One generation of an index whose vectors and words this process searches itself."""

    def __init__(
        self,
        facts: IndexFacts,
        chunks: ChunkLookup,
        documents: DocumentIndex,
        store: VectorStore,
        lexical: BM25Index | SegmentedWords,
        raw: Callable[[str], str | None],
    ) -> None:
        """Take the parts.

        Args:
            facts: of the generation.
            chunks: all chunks; the words of ``lexical`` are in the order of their ids.
            documents: metadata of their documents.
            store: vectors of all chunks under the chunks' ids.
            lexical: BM25 of all chunks.
            raw: returns a document's source text by its id.
        """
        self.facts = facts
        self.documents = documents
        self.store = store
        self._chunks = chunks
        self._lexical = lexical
        self._raw = raw
        self._ids = chunks.ids
        self._masks: dict[int, tuple[DocumentSelection, np.ndarray | None]] = {}

    def current_generation(self) -> int:
        """Return the number of this generation: nothing publishes another one here."""
        return self.facts.generation

    def select(self, query: Query, today: date) -> ChunkSelection:
        """Return the chunks that a query allows."""
        selection = self.documents.select(query, today)
        mask = self._mask(selection)
        hidden = self._rows_of(query.without)
        count = len(self._ids) if mask is None else int(mask.sum())
        count -= len(hidden) if mask is None else int(mask[hidden].sum())
        return ChunkSelection(count, _AllowedRows(selection, mask, hidden), selection.notes)

    def by_vector(
        self, vectors: np.ndarray, depth: int, selections: Sequence[ChunkSelection]
    ) -> list[np.ndarray]:
        """Return the ids nearest to each vector.

        If few chunks are not allowed, that many more are requested; else the store gets the list of allowed ids.
        """
        # equal filters give the same cached mask, so their queries are searched together in one call
        groups: defaultdict[int, list[int]] = defaultdict(list)
        for n, selection in enumerate(selections):
            groups[id(selection.allowed.selection)].append(n)
        nearest: dict[int, np.ndarray] = {}
        for members in groups.values():
            mask = selections[members[0]].allowed.mask
            left_out = 0 if mask is None else int((~mask).sum())
            among = self._ids[mask] if mask is not None and left_out > MAX_POST_FILTERED else None
            extra = max(len(selections[n].allowed.hidden) for n in members)
            extra += left_out if among is None else 0
            ids, _ = self.store.search(vectors[members], depth + extra, among)
            for n, row in zip(members, ids, strict=True):
                nearest[n] = self._permitted(row, selections[n].allowed)[:depth]
        return [nearest[n] for n in range(len(selections))]

    def by_words(self, question: str, depth: int, selection: ChunkSelection) -> WordMatches:
        """Return the chunks with the best BM25 scores; equal scores are in the order of their ids."""
        rows, scores = self._lexical.matches(question)
        all_rows, all_scores = rows, scores
        if selection.allowed.mask is not None:
            inside = selection.allowed.mask[rows]
            rows, scores = rows[inside], scores[inside]
        if len(selection.allowed.hidden):
            inside = ~np.isin(rows, selection.allowed.hidden)
            rows, scores = rows[inside], scores[inside]
        best = np.argsort(-scores, kind="stable")[:depth]

        def scores_of(ids: np.ndarray) -> np.ndarray:
            wanted = np.searchsorted(self._ids, ids)
            positions = np.minimum(np.searchsorted(all_rows, wanted), max(len(all_rows) - 1, 0))
            result = np.zeros(len(ids), dtype=np.float32)
            if len(all_rows):
                matching = all_rows[positions] == wanted
                result[matching] = all_scores[positions[matching]]
            return result

        return WordMatches(self._ids[rows[best]], scores_of)

    def allowed_ids(self, selection: ChunkSelection) -> np.ndarray:
        """Return the ids of all chunks that a selection allows."""
        return self._permitted(self._ids, selection.allowed)

    def vectors(self, ids: np.ndarray) -> np.ndarray:
        """Return the stored vectors of chunks."""
        return self.store.vectors(np.asarray(ids, dtype=np.int64))

    def chunks(self, ids: Sequence[int]) -> list[Chunk]:
        """Return chunks by their ids."""
        return self._chunks.chunks(ids)

    def chunks_of(self, document: str) -> list[Chunk]:
        """Return a document's chunks in the order of its text."""
        return self._chunks.chunks_of(document)

    def all_chunks(self) -> Iterator[Chunk]:
        """Yield all chunks by ascending id."""
        return self._chunks.all_chunks()

    def document_ids(self) -> tuple[str, ...]:
        """Return the ids of all documents."""
        return self.documents.ids

    def metadata(self, document: str) -> Mapping[str, Any]:
        """Return a document's metadata."""
        return self.documents.metadata(document)

    def raw(self, document: str) -> str | None:
        """Return a document's source text."""
        return self._raw(document)

    def close(self) -> None:
        """Do nothing: files are mapped, and unmapped with the last reference."""

    def _mask(self, selection: DocumentSelection) -> np.ndarray | None:
        """Return the rows of allowed documents, bool [chunks], None for all; the same array for the same selection."""
        if selection.allowed is None:
            return None
        known = self._masks.get(id(selection))
        # the selection is kept beside the array, so that its id cannot be given to another one
        if known is None or known[0] is not selection:
            if len(self._masks) >= 64:
                self._masks.clear()
            known = self._masks[id(selection)] = selection, self._built_mask(selection.allowed)
        return known[1]

    def _built_mask(self, allowed: frozenset[str]) -> np.ndarray:
        """Return the mask from whichever of the allowed and the other documents are fewer."""
        all_ids = self.documents.ids
        few_allowed = 2 * len(allowed) <= len(all_ids)
        mask = np.full(len(self._ids), not few_allowed, dtype=bool)
        listed = allowed if few_allowed else [doc for doc in all_ids if doc not in allowed]
        mask[self._rows_of(listed)] = few_allowed
        return mask

    def _permitted(self, ids: np.ndarray, allowed: _AllowedRows) -> np.ndarray:
        """Return those of the ids that may be returned, in their order."""
        if allowed.mask is None and not len(allowed.hidden):
            return ids
        rows = np.searchsorted(self._ids, ids)
        inside = np.ones(len(rows), dtype=bool) if allowed.mask is None else allowed.mask[rows]
        return ids[inside & ~np.isin(rows, allowed.hidden)]

    def _rows_of(self, documents: Collection[str]) -> np.ndarray:
        """Return the rows of the chunks of documents, int64."""
        if not documents:
            return np.empty(0, dtype=np.int64)
        return np.searchsorted(self._ids, self._chunks.ids_of(set(documents)))

"""The protocol of a backend: where a search gets its candidates from.

A backend holds the chunks of one index with their vectors and words. :class:`rag.search.searcher.Searcher` asks it for the
chunks nearest to a vector and for those that match words, under the filters of a query, and does the rest (fusion,
reranking, arranging) itself, so that every backend ranks by the same rules. :mod:`rag.backends` has the implementations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Protocol

import numpy as np

from rag.indexing.encoding import RECORD
from rag.search.query import Query
from rag.settings import IndexSettings
from rag.types import Chunk


@dataclass(frozen=True, slots=True)
class IndexFacts:
    """What a backend records of the generation that it answers from."""

    generation: int
    """Grows by one with every published change."""
    embedder: str
    """Name of the embedder that the vectors were computed with."""
    fingerprint: str
    """Its fingerprint; vectors of another fingerprint cannot be compared with those of the index."""
    dimension: int
    settings: IndexSettings
    documents: int
    chunks: int
    encoding: Mapping[str, Any] = field(default_factory=dict)
    """Path, prompts and dimensions of the embedder: :meth:`rag.embedding.protocol.Configurable.description`."""

    @classmethod
    def of_record(cls, facts: Mapping[str, Any], generation: int, documents: int, chunks: int) -> IndexFacts:
        """Return what :func:`rag.indexing.writer.index_facts` recorded, as a generation's manifest or a database has it."""
        return cls(
            generation=generation,
            embedder=str(facts["embedder"]),
            fingerprint=str(facts["fingerprint"]),
            dimension=int(facts["dimension"]),
            settings=IndexSettings.from_json(facts["settings"]),
            documents=documents,
            chunks=chunks,
            encoding=dict(facts.get(RECORD) or {}),
        )

    def manifest(self) -> dict[str, Any]:
        """Return the facts under the keys of a generation's manifest, as :mod:`rag.indexing.encoding` reads them."""
        return {
            "embedder": self.embedder,
            "fingerprint": self.fingerprint,
            "dimension": self.dimension,
            "settings": self.settings.to_json(),
            RECORD: dict(self.encoding),
        }


@dataclass(frozen=True, slots=True)
class ChunkSelection:
    """The chunks that a query may return."""

    count: int
    """How many chunks are allowed."""
    allowed: Any
    """Which ones, in the form that the backend that returned the selection understands."""
    notes: tuple[str, ...] = ()
    """What was left out and why, one sentence each."""


@dataclass(frozen=True, slots=True)
class WordMatches:
    """The chunks that match the words of a question."""

    ids: np.ndarray
    """Ids of the best, best first, int64 [at most depth]; only chunks that contain a word of the question."""
    scores_of: Callable[[np.ndarray], np.ndarray]
    """Returns the BM25 scores of any chunks by their ids, float32 [ids]; 0 where no word of the question occurs."""


class Backend(Protocol):
    """The chunks of one index, found by vector, by words or by id.

    Chunk ids are int64, unique in an index and never used again. Errors of a server or a disk are raised as
    :class:`rag.errors.CannotRun` with one clear line; damage, and an index that is not there, as
    :class:`rag.errors.BadInput`.
    """

    @property
    def facts(self) -> IndexFacts:
        """What is recorded of the generation that answers."""

    def current_generation(self) -> int:
        """Return the number of the newest published generation, which may be newer than :attr:`facts`."""

    def select(self, query: Query, today: date) -> ChunkSelection:
        """Return the chunks that a query's conditions, dates and ``without`` allow, with notes on what is left out."""

    def by_vector(
        self, vectors: np.ndarray, depth: int, selections: Sequence[ChunkSelection]
    ) -> list[np.ndarray]:
        """Return the ids of the allowed chunks nearest to each vector by inner product, int64 [at most depth], best first.

        Args:
            vectors: unit vectors, float32 [queries, dimension].
            depth: number of ids for each; fewer only if no more are allowed.
            selections: one for each query, of :meth:`select`.
        """

    def by_words(self, question: str, depth: int, selection: ChunkSelection) -> WordMatches:
        """Return the allowed chunks with the best BM25 scores; see :mod:`rag.stores.bm25` for words and formula."""

    def allowed_ids(self, selection: ChunkSelection) -> np.ndarray:
        """Return the ids of all chunks that a selection allows, ascending, int64 [selection.count]."""

    def vectors(self, ids: np.ndarray) -> np.ndarray:
        """Return the stored vectors of chunks, float32 [ids, dimension]; KeyError for an unknown id."""

    def chunks(self, ids: Sequence[int]) -> list[Chunk]:
        """Return chunks by their ids, in that order; KeyError for an unknown id."""

    def chunks_of(self, document: str) -> list[Chunk]:
        """Return a document's chunks in the order of its text; [] for an unknown document."""

    def all_chunks(self) -> Iterator[Chunk]:
        """Yield all chunks by ascending id, without holding them all in memory."""

    def document_ids(self) -> tuple[str, ...]:
        """Return the ids of all documents, sorted."""

    def metadata(self, document: str) -> Mapping[str, Any]:
        """Return a document's metadata (``Document.metadata``); KeyError for an unknown document."""

    def raw(self, document: str) -> str | None:
        """Return a document's source text, which all offsets refer to; None if there is no such document."""

    def close(self) -> None:
        """Give back connections and files."""

"""The front class: build, update, open, search and check an index."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rag import build, generations
from rag.build import Wish
from rag.check import Repair, check, repair
from rag.documents import Documents
from rag.encoder import Encoder
from rag.errors import BadInput
from rag.lexical import Lexical
from rag.publish import LEXICAL
from rag.query import Query
from rag.report import BuildReport
from rag.rerank import Scorer
from rag.search import Parts, Searcher
from rag.settings import IndexSettings
from rag.stores.base import VectorStore, store_class
from rag.stores.database import REBUILD
from rag.stores.text import TextStore
from rag.types import Chunk, Hit, OnEvent, Results

__all__ = ["BuildReport", "Index", "IndexSettings", "Replaced"]


class Replaced(BadInput):
    """No kept generation holds the text that was asked for."""


class Index:
    """One verified generation of an index, pinned: later updates do not change what it answers."""

    def __init__(
        self,
        folder: Path,
        generation: generations.Generation,
        chunks: tuple[Chunk, ...],
        documents: Documents,
    ) -> None:
        """Put the parts together; use ``open``."""
        self.folder = folder
        self.chunks = chunks
        """All chunks, by id."""
        self.documents = documents
        """What is known of the documents besides their text."""
        self.generation = generation.number
        self.settings = IndexSettings.from_json(generation.manifest["settings"])
        self._manifest = generation.manifest
        self._searcher: Searcher | None = None
        self._store: VectorStore | None = None

    @classmethod
    def build(
        cls,
        folder: Path | str,
        documents: Path | str,
        embedder: Encoder,
        settings: IndexSettings | None = None,
        on_event: OnEvent | None = None,
        *,
        only: Collection[str] | None = None,
    ) -> BuildReport:
        """Build the index of a documents path, replacing what the folder held.

        ``only`` names the documents to index, None for all. Raises BadInput for documents that cannot be loaded, or
        a folder that holds something else.
        """
        settings = settings or IndexSettings()
        return build.build(Path(folder), Path(documents), embedder, settings, on_event, only)

    @classmethod
    def update(
        cls,
        folder: Path | str,
        documents: Path | str,
        embedder: Encoder,
        on_event: OnEvent | None = None,
        *,
        purge: bool = False,
        trust_mtime: bool = False,
    ) -> BuildReport:
        """Bring an index to what the documents are now; only changed chunks are embedded.

        ``purge`` also deletes what was removed or changed from the generation before, the text store's file
        and the vector cache. ``trust_mtime`` skips files whose size and time are as they were, unread.
        Raises BadInput when there is no index, or when the embedder is not the one it was built with.
        """
        wish = Wish(purge=purge, trust_mtime=trust_mtime)
        return build.update(Path(folder), Path(documents), embedder, on_event, wish)

    @classmethod
    def open(
        cls, folder: Path | str, embedder: Encoder | None = None, reranker: Scorer | None = None
    ) -> Index:
        """Open the current generation, verified; without an embedder it can be read but not searched.

        With a reranker (see ``rerank.Reranker``) the best candidates of every search are put into its order.
        Raises BadInput when something is missing, damaged, or made with another embedder.
        """
        folder = Path(folder)
        while True:
            number = generations.current(folder)
            if not number:
                raise BadInput(f"{folder} is not an index: it has no {generations.CURRENT}", "build it first")
            try:
                return cls._opened(folder, number, embedder, reranker)
            except (BadInput, OSError):
                if generations.current(folder) == number:
                    raise
                # two updates were published meanwhile and swept this generation away: take the new one

    @classmethod
    def _opened(cls, folder: Path, number: int, embedder: Encoder | None, reranker: Scorer | None) -> Index:
        generation = generations.verified(folder, number)
        manifest = generation.manifest
        with TextStore(folder) as text:
            chunks = tuple(row.chunk for row in text.chunks(number))
            documents = Documents(text.abouts(number), chunks)
            if text.digest(number) != manifest["text_sha256"]:
                raise BadInput(
                    f"{folder} is damaged: its texts do not belong to {generations.name(number)}", REBUILD
                )
        index = cls(folder, generation, chunks, documents)
        if embedder is not None:
            build.same_embedder(folder, manifest, embedder)
            kind = store_class(manifest["store"])
            mapped = os.name == "posix"  # elsewhere a mapped file could not be swept away
            store = kind.load(generation.path, manifest["dimension"], mapped=mapped)
            lexical = Lexical.load(generation.path / LEXICAL, len(chunks))
            index._searcher = Searcher(
                Parts(chunks, documents, embedder, store, lexical, index.raw, reranker)
            )
        return index

    def find(self, question: str, query: Query | None = None) -> Results:
        """Search for one question: the best chunks with what was left out, why, and where the time went."""
        return self.find_many([question], query)[0]

    def find_many(
        self, questions: Sequence[str], query: Query | Sequence[Query] | None = None
    ) -> list[Results]:
        """Search for many questions at once, under one query or one each; see ``query.Query``.

        Raises BadInput when the index was opened without an embedder.
        """
        if self._searcher is None:
            raise BadInput("this index was opened without an embedder, so it cannot be searched")
        queries = [query or Query()] * len(questions) if query is None or isinstance(query, Query) else query
        return self._searcher.find(questions, queries, self.settings)

    def search(self, question: str, k: int = 5, without: Collection[str] = ()) -> list[Hit]:
        """Return the k best chunks for a question, best first; ``without`` names documents to leave out."""
        return self.search_many([question], k, [without])[0]

    def search_many(
        self, questions: Sequence[str], k: int = 5, without: Sequence[Collection[str]] | None = None
    ) -> list[list[Hit]]:
        """Return the k best chunks for each question; ``without`` names documents to leave out of each."""
        queries = [Query(k=k, without=docs) for docs in without or [()] * len(questions)]
        return [list(found.hits) for found in self.find_many(questions, queries)]

    @property
    def embedder(self) -> str:
        """The name of the embedder that the index was built with."""
        return str(self._manifest["embedder"])

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the embedder that the index was built with."""
        return str(self._manifest["fingerprint"])

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        return int(self._manifest["dimension"])

    def vectors(self, ids: Sequence[int]) -> np.ndarray:
        """Return the vectors of chunks as they are searched, float32 [len(ids), dimension]; KeyError for a stranger."""
        if self._store is None:
            kind = store_class(self._manifest["store"])
            place = self.folder / generations.name(self.generation)
            self._store = kind.load(place, self.dimension, mapped=os.name == "posix")
        return self._store.vectors(np.array(ids, dtype=np.int64))

    def raw(self, document: str) -> str | None:
        """Return a document's decoded source text, which all offsets refer to; None when it is not here.

        Raises Replaced when the text was changed or removed so long ago that no kept generation holds it.
        """
        with TextStore(self.folder) as text:
            found = text.document(document, self.generation)
            if found is None and document in self.documents:
                raise Replaced(
                    f"generation {self.generation} of {self.folder} has been replaced twice: "
                    f"it no longer holds the text of {document!r}",
                    "open the index again",
                )
        return found.raw if found else None

    def check(self) -> dict[str, Any]:
        """Verify everything again, older generations and documents included.

        Returns counts, or raises BadInput naming the damage.
        """
        return check(self.folder)

    @classmethod
    def repair(
        cls, folder: Path | str, embedder: Callable[[], Encoder], on_event: OnEvent | None = None
    ) -> Repair:
        """Find damage and make the derived files again from the text.

        ``embedder`` is called only when vectors are lost and not in the cache either. Raises BadInput when
        the text itself is damaged: then the index must be built again.
        """
        return repair(Path(folder), embedder, on_event)

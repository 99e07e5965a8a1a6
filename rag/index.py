"""The front class: build, update, open, search and check an index.

Keep an index in step with its documents by looking again and again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rag.embedding.protocol import Encoder
from rag.embedding.reranker import Scorer
from rag.errors import BadInput
from rag.indexing import build, generations
from rag.indexing.build import BuildReport, UpdateOptions
from rag.indexing.repair import RepairReport, check_index, repair_index
from rag.indexing.writer import LEXICAL_FOLDER
from rag.search.documents import DocumentIndex
from rag.search.query import Query
from rag.search.searcher import IndexParts, Searcher
from rag.settings import IndexSettings
from rag.stores.base import VectorStore, store_class
from rag.stores.bm25 import BM25Index
from rag.stores.sqlite import REBUILD_HINT
from rag.stores.text import TextStore
from rag.types import Chunk, Hit, OnEvent, Results


class GenerationReplaced(BadInput):
    """No kept generation holds the text that was asked for."""


class Index:
    """One verified generation of an index, pinned: later updates do not change what it answers."""

    def __init__(
        self,
        folder: Path,
        generation: generations.Generation,
        chunks: tuple[Chunk, ...],
        documents: DocumentIndex,
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
        return build.build_index(Path(folder), Path(documents), embedder, settings, on_event, only)

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
        wish = UpdateOptions(purge=purge, trust_mtime=trust_mtime)
        return build.update_index(Path(folder), Path(documents), embedder, on_event, wish)

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
            number = generations.current_generation(folder)
            if not number:
                raise BadInput(
                    f"{folder} is not an index: it has no {generations.CURRENT_POINTER}", "build it first"
                )
            try:
                return cls._opened(folder, number, embedder, reranker)
            except (BadInput, OSError):
                if generations.current_generation(folder) == number:
                    raise
                # two updates were published meanwhile and swept this generation away: take the new one

    @classmethod
    def _opened(cls, folder: Path, number: int, embedder: Encoder | None, reranker: Scorer | None) -> Index:
        generation = generations.open_verified(folder, number)
        manifest = generation.manifest
        with TextStore(folder) as text:
            chunks = tuple(row.chunk for row in text.chunks(number))
            documents = DocumentIndex(text.document_fields(number), chunks)
            if text.digest(number) != manifest["text_sha256"]:
                raise BadInput(
                    f"{folder} is damaged: its texts do not belong to {generations.generation_name(number)}",
                    REBUILD_HINT,
                )
        index = cls(folder, generation, chunks, documents)
        if embedder is not None:
            build.require_same_embedder(folder, manifest, embedder)
            kind = store_class(manifest["store"])
            mapped = os.name == "posix"  # elsewhere a mapped file could not be swept away
            store = kind.load(generation.path, manifest["dimension"], mapped=mapped)
            lexical = BM25Index.load(generation.path / LEXICAL_FOLDER, len(chunks))
            index._searcher = Searcher(
                IndexParts(chunks, documents, embedder, store, lexical, index.raw, reranker)
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
            place = self.folder / generations.generation_name(self.generation)
            self._store = kind.load(place, self.dimension, mapped=os.name == "posix")
        return self._store.vectors(np.array(ids, dtype=np.int64))

    def raw(self, document: str) -> str | None:
        """Return a document's decoded source text, which all offsets refer to; None when it is not here.

        Raises Replaced when the text was changed or removed so long ago that no kept generation holds it.
        """
        with TextStore(self.folder) as text:
            found = text.document(document, self.generation)
            if found is None and document in self.documents:
                raise GenerationReplaced(
                    f"generation {self.generation} of {self.folder} has been replaced twice: "
                    f"it no longer holds the text of {document!r}",
                    "open the index again",
                )
        return found.raw if found else None

    def check(self) -> dict[str, Any]:
        """Verify everything again, older generations and documents included.

        Returns counts, or raises BadInput naming the damage.
        """
        return check_index(self.folder)

    @classmethod
    def repair(
        cls, folder: Path | str, embedder: Callable[[], Encoder], on_event: OnEvent | None = None
    ) -> RepairReport:
        """Find damage and make the derived files again from the text.

        ``embedder`` is called only when vectors are lost and not in the cache either. Raises BadInput when
        the text itself is damaged: then the index must be built again.
        """
        return repair_index(Path(folder), embedder, on_event)


WATCH_SECONDS = 10.0


def watch_documents(
    folder: Path | str,
    documents: Path | str,
    embedder: Encoder,
    hear: Callable[[BuildReport | BadInput], bool],
    *,
    every: float = WATCH_SECONDS,
    trust_mtime: bool = False,
    on_event: OnEvent | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Update the index every ``every`` seconds until ``hear`` returns False.

    ``hear`` gets every report, also of a look that changed nothing, or the reason why one failed: documents
    that are being written may be unreadable for a moment, and another writer may hold the index. Damage and a
    full disk end the watch.
    """
    Index.open(folder, embedder)
    while True:
        outcome: BuildReport | BadInput
        try:
            outcome = Index.update(folder, documents, embedder, on_event, trust_mtime=trust_mtime)
        except BadInput as error:
            Index.open(folder, embedder)
            outcome = error
        if not hear(outcome):
            return
        sleep(every)

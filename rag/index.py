"""The public class of an index: build, update, open, search, check and repair; and a loop that keeps one up to date."""

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
from rag.indexing.build import BuildEngine, BuildReport, UpdateOptions
from rag.indexing.encoding import RECORD, recorded_encoder
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

WATCH_SECONDS = 10.0
"""Default interval of :func:`watch_documents`."""


class GenerationReplaced(BadInput):
    """No retained generation contains the text that was asked for."""


class Index:
    """One verified generation of an index, pinned: later updates do not change its results."""

    def __init__(
        self,
        folder: Path,
        generation: generations.Generation,
        chunks: tuple[Chunk, ...],
        documents: DocumentIndex,
    ) -> None:
        """Assemble the parts; use :meth:`open`."""
        self.folder = folder
        self.chunks = chunks
        """All chunks, by id."""
        self.documents = documents
        """The documents' metadata."""
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
        engine: BuildEngine | None = None,
    ) -> BuildReport:
        """Build the index of a documents path, replacing what the folder contained.

        Args:
            folder: of the index.
            documents: a folder of documents, or one file; with an engine also a URL that it reads.
            embedder: embeds the chunks.
            settings: None for the defaults.
            on_event: receives progress events.
            only: ids of the documents to index, None for all.
            engine: reads, cuts and embeds in other processes, with the same result; None does it in this one. See
                :class:`rag.indexing.sharded.engine.ShardedBuild`.

        Raises:
            BadInput: if the documents cannot be loaded, or the folder contains something else.
        """
        settings = settings or IndexSettings()
        return build.build_index(Path(folder), documents, embedder, settings, on_event, only, engine)

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
        """Update an index to the present documents; only changed chunks are embedded.

        Args:
            folder: of the index.
            documents: as given to :meth:`build`.
            embedder: the one that the index was built with.
            on_event: receives progress events.
            purge: also delete what was removed or changed from the previous generation, the text store's file and the
                vector cache.
            trust_mtime: do not read files whose size and modification time are unchanged.

        Raises:
            BadInput: if there is no index, or the embedder is not the one it was built with.
        """
        options = UpdateOptions(purge=purge, trust_mtime=trust_mtime)
        return build.update_index(Path(folder), Path(documents), embedder, on_event, options)

    @classmethod
    def open(
        cls, folder: Path | str, embedder: Encoder | None = None, reranker: Scorer | None = None
    ) -> Index:
        """Open the current generation, verified.

        Args:
            folder: of the index.
            embedder: the one that the index was built with; None opens the index for reading, not for searching.
            reranker: puts the best candidates of every search into its order; see
                :class:`rag.embedding.reranker.Reranker`.

        Raises:
            BadInput: if a part is missing or damaged, or the index was built with another embedder.
        """
        folder = Path(folder)
        while True:
            number = generations.current_generation(folder)
            if not number:
                raise BadInput(
                    f"{folder} is not an index: it has no {generations.CURRENT_POINTER}", "build it first"
                )
            try:
                return cls._open_generation(folder, number, embedder, reranker)
            except (BadInput, OSError):
                if generations.current_generation(folder) == number:
                    raise
                # two updates were published meanwhile and removed this generation: take the new one

    @classmethod
    def _open_generation(
        cls, folder: Path, number: int, embedder: Encoder | None, reranker: Scorer | None
    ) -> Index:
        """Verify a generation and load what the arguments of :meth:`open` need."""
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
            embedder = recorded_encoder(folder, manifest, embedder)
            store_type = store_class(manifest["store"])
            mapped = os.name == "posix"  # elsewhere a mapped file could not be deleted
            store = store_type.load(generation.path, manifest["dimension"], mapped=mapped)
            lexical = BM25Index.load(generation.path / LEXICAL_FOLDER, len(chunks))
            index._searcher = Searcher(
                IndexParts(chunks, documents, embedder, store, lexical, index.raw, reranker)
            )
        return index

    def find(self, question: str, query: Query | None = None) -> Results:
        """Search for one question and return the best chunks, with notes on what was left out and the time of each stage."""
        return self.find_many([question], query)[0]

    def find_many(
        self, questions: Sequence[str], query: Query | Sequence[Query] | None = None
    ) -> list[Results]:
        """Search for many questions at once, under one query or one for each; see :class:`rag.search.query.Query`.

        Raises:
            BadInput: if the index was opened without an embedder.
        """
        if self._searcher is None:
            raise BadInput("this index was opened without an embedder, so it cannot be searched")
        queries = [query or Query()] * len(questions) if query is None or isinstance(query, Query) else query
        return self._searcher.find(questions, queries, self.settings)

    def search(self, question: str, k: int = 5, without: Collection[str] = ()) -> list[Hit]:
        """Return the k best chunks for a question, best first.

        Args:
            question: in natural language.
            k: number of chunks.
            without: ids of documents to leave out.
        """
        return self.search_many([question], k, [without])[0]

    def search_many(
        self, questions: Sequence[str], k: int = 5, without: Sequence[Collection[str]] | None = None
    ) -> list[list[Hit]]:
        """Return the k best chunks for each question; ``without`` has the documents to leave out for each."""
        queries = [Query(k=k, without=docs) for docs in without or [()] * len(questions)]
        return [list(results.hits) for results in self.find_many(questions, queries)]

    def rerank(self, scorer: Scorer, question: str, hits: Sequence[Hit], depth: int) -> list[Hit]:
        """Return hits of a search with the first ``depth`` of them in the order of a reranker's scores.

        Raises:
            BadInput: if the index was opened without an embedder.
        """
        if self._searcher is None:
            raise BadInput("this index was opened without an embedder, so it cannot be searched")
        return self._searcher.rerank(scorer, question, hits, depth, self.settings)

    @property
    def encoder(self) -> Encoder:
        """The embedder as the index uses it, with its prompts and dimensions; BadInput if it was opened without one."""
        if self._searcher is None:
            raise BadInput("this index was opened without an embedder, so it cannot be searched")
        return self._searcher.encoder

    @property
    def embedder(self) -> str:
        """The name of the embedder that the index was built with."""
        return str(self._manifest["embedder"])

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the embedder that the index was built with."""
        return str(self._manifest["fingerprint"])

    @property
    def encoding(self) -> dict[str, Any]:
        """What the index records of its embedder: path, prompts, dimensions kept; empty for earlier versions."""
        return dict(self._manifest.get(RECORD) or {})

    @property
    def dimension(self) -> int:
        """The number of dimensions of a vector."""
        return int(self._manifest["dimension"])

    def vectors(self, ids: Sequence[int]) -> np.ndarray:
        """Return the stored vectors of chunks, float32 [len(ids), dimension]; KeyError for an unknown id."""
        if self._store is None:
            store_type = store_class(self._manifest["store"])
            path = self.folder / generations.generation_name(self.generation)
            self._store = store_type.load(path, self.dimension, mapped=os.name == "posix")
        return self._store.vectors(np.array(ids, dtype=np.int64))

    def raw(self, document: str) -> str | None:
        """Return a document's decoded source text, which all offsets refer to; None if the index has no such document.

        Raises:
            GenerationReplaced: if the text was changed or removed so long ago that no retained generation contains it.
        """
        with TextStore(self.folder) as text:
            stored = text.document(document, self.generation)
            if stored is None and document in self.documents:
                raise GenerationReplaced(
                    f"generation {self.generation} of {self.folder} has been replaced twice: "
                    f"it no longer holds the text of {document!r}",
                    "open the index again",
                )
        return stored.raw if stored else None

    def check(self) -> dict[str, Any]:
        """Verify all files and rows again, older generations and documents included.

        Returns:
            Counts of generations, documents, chunks and files.

        Raises:
            BadInput: naming the damage.
        """
        return check_index(self.folder)

    @classmethod
    def repair(
        cls, folder: Path | str, embedder: Callable[[], Encoder], on_event: OnEvent | None = None
    ) -> RepairReport:
        """Find damage and rebuild the derived files from the text.

        Args:
            folder: of the index.
            embedder: called only if vectors are lost and not in the cache either.
            on_event: receives progress events.

        Raises:
            BadInput: if the text itself is damaged; then the index must be built again.
        """
        return repair_index(Path(folder), embedder, on_event)


def watch_documents(
    folder: Path | str,
    documents: Path | str,
    embedder: Encoder,
    on_report: Callable[[BuildReport | BadInput], bool],
    *,
    every: float = WATCH_SECONDS,
    trust_mtime: bool = False,
    on_event: OnEvent | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Update the index repeatedly until ``on_report`` returns False.

    Args:
        folder: of the index.
        documents: as given to :meth:`Index.build`.
        embedder: the one that the index was built with.
        on_report: receives every report, also of an update that changed nothing, or the error of one that failed:
            documents that are being written may be unreadable for a moment, and another process may be writing the index.
            Damage and a full disk end the loop.
        every: seconds between updates.
        trust_mtime: see :meth:`Index.update`.
        on_event: receives progress events.
        sleep: waits for a number of seconds; replaced in tests.
    """
    Index.open(folder, embedder)
    while True:
        outcome: BuildReport | BadInput
        try:
            outcome = Index.update(folder, documents, embedder, on_event, trust_mtime=trust_mtime)
        except BadInput as error:
            Index.open(folder, embedder)
            outcome = error
        if not on_report(outcome):
            return
        sleep(every)

"""The public class of an index: build, update, open, search, check and repair; and a loop that keeps one up to date.

An index is named by its folder, or by the URL of a database: see :data:`rag.backends.base.BACKENDS`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rag.backends.base import backend_class, is_backend_url, shown_url
from rag.backends.build import build_at, check_backend, update_at
from rag.backends.consent import index_location, stored_url
from rag.backends.files import FilesBackend
from rag.embedding.protocol import Encoder
from rag.embedding.reranker import Scorer
from rag.errors import BadInput, UsageProblem
from rag.indexing import build, generations
from rag.indexing.build import BuildEngine, BuildReport, UpdateOptions
from rag.indexing.encoding import recorded_encoder
from rag.indexing.repair import RepairReport, check_index, repair_index
from rag.search.backend import Backend
from rag.search.query import Query
from rag.search.searcher import Searcher
from rag.settings import IndexSettings
from rag.types import Chunk, Hit, OnEvent, Results

WATCH_SECONDS = 10.0
"""Default interval of :func:`watch_documents`."""


class Index:
    """One verified generation of an index, pinned: later updates do not change its results."""

    def __init__(
        self, location: Path | str, backend: Backend, encoder: Encoder | None, reranker: Scorer | None
    ) -> None:
        """Assemble the parts; use :meth:`open`."""
        self.location = location
        """Folder of the index, or URL."""
        self.backend = backend
        self.generation = backend.facts.generation
        self.settings = backend.facts.settings
        self._searcher = Searcher(backend, encoder, reranker) if encoder is not None else None

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
            folder: of the index, or URL.
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
        if is_backend_url(str(folder)):
            return build_at(str(folder), Path(documents), embedder, settings, on_event, only)
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
            folder: of the index, or URL.
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
        location = index_location(folder)
        if isinstance(location, str):
            return update_at(location, Path(documents), embedder, on_event, options)
        return build.update_index(Path(folder), Path(documents), embedder, on_event, options)

    @classmethod
    def open(
        cls, folder: Path | str, embedder: Encoder | None = None, reranker: Scorer | None = None
    ) -> Index:
        """Open the current generation, verified.

        Args:
            folder: of the index, or URL, or a folder that stands for a URL.
            embedder: the one that the index was built with; None opens the index for reading, not for searching.
            reranker: puts the best candidates of every search into its order; see
                :class:`rag.embedding.reranker.Reranker`.

        Raises:
            BadInput: if a part is missing or damaged, the index was built with another embedder, or the folder stands for
                a URL at a host that the user has not allowed (:mod:`rag.backends.consent`).
            CannotRun: if the database cannot be reached.
        """
        location = index_location(folder)
        if isinstance(location, str):
            return cls._open_url(location, embedder, reranker)
        folder = Path(folder)
        while True:
            number = generations.current_generation(folder)
            if not number:
                raise BadInput(
                    f"{folder} is not an index: it has no {generations.CURRENT_POINTER}", "build it first"
                )
            try:
                backend = FilesBackend.open(folder, number)
                encoder = None
                if embedder is not None:
                    encoder = recorded_encoder(folder, backend.facts.manifest(), embedder)
                return cls(folder, backend, encoder, reranker)
            except (BadInput, OSError):
                if generations.current_generation(folder) == number:
                    raise
                # two updates were published meanwhile and removed this generation: take the new one

    @classmethod
    def _open_url(cls, url: str, embedder: Encoder | None, reranker: Scorer | None) -> Index:
        backend = backend_class(url).open(url)
        try:
            encoder = None
            if embedder is not None:
                encoder = recorded_encoder(shown_url(url), backend.facts.manifest(), embedder)
            return cls(url, backend, encoder, reranker)
        except BaseException:
            backend.close()
            raise

    def close(self) -> None:
        """Give back the connections of an index at a URL; an index in a folder holds none."""
        self.backend.close()

    @cached_property
    def chunks(self) -> tuple[Chunk, ...]:
        """All chunks, by id: read at the first use and held from then on, about 1 kB each."""
        return tuple(self.backend.all_chunks())

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

    def read(self, reader: Scorer, question: str, hits: Sequence[Hit], depth: int) -> list[Hit]:
        """Return hits of a search in their order, the first ``depth`` with the log odds that they answer the question.

        Args:
            reader: the answerability model (:mod:`rag.embedding.answerability`).
            question: the question.
            hits: of its search, best first.
            depth: how many are read.

        Raises:
            BadInput: if the index was opened without an embedder.
        """
        if self._searcher is None:
            raise BadInput("this index was opened without an embedder, so it cannot be searched")
        return self._searcher.read(reader, question, hits, depth, self.settings)

    @property
    def folder(self) -> Path:
        """The folder of an index of files; BadInput if the index is in a database."""
        if is_backend_url(str(self.location)):
            raise BadInput(f"{shown_url(str(self.location))} is in a database, not in a folder")
        return Path(self.location)

    @property
    def encoder(self) -> Encoder:
        """The embedder as the index uses it, with its prompts and dimensions; BadInput if it was opened without one."""
        if self._searcher is None:
            raise BadInput("this index was opened without an embedder, so it cannot be searched")
        return self._searcher.encoder

    @property
    def embedder(self) -> str:
        """The name of the embedder that the index was built with."""
        return self.backend.facts.embedder

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the embedder that the index was built with."""
        return self.backend.facts.fingerprint

    @property
    def encoding(self) -> dict[str, Any]:
        """What the index records of its embedder: path, prompts, dimensions kept; empty for one without these."""
        return dict(self.backend.facts.encoding)

    @property
    def dimension(self) -> int:
        """The number of dimensions of a vector."""
        return self.backend.facts.dimension

    def vectors(self, ids: Sequence[int]) -> np.ndarray:
        """Return the stored vectors of chunks, float32 [len(ids), dimension]; KeyError for an unknown id."""
        return self.backend.vectors(np.array(ids, dtype=np.int64))

    def raw(self, document: str) -> str | None:
        """Return a document's decoded source text, which all offsets refer to; None if the index has no such document.

        Raises:
            GenerationReplaced: if the text was changed or removed so long ago that no retained generation contains it.
        """
        return self.backend.raw(document)

    def check(self) -> dict[str, Any]:
        """Verify all files and rows again, older generations and documents included.

        Returns:
            Counts of generations, documents, chunks and files.

        Raises:
            BadInput: naming the damage.
        """
        if is_backend_url(str(self.location)):
            return check_backend(self.backend, shown_url(str(self.location)))
        return check_index(Path(self.location))

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
            UsageProblem: for an index at a URL.
        """
        url = str(folder) if is_backend_url(str(folder)) else stored_url(folder)
        if url is not None:
            raise UsageProblem(
                f"{shown_url(url)} is in a database, which has no derived files to repair",
                "build it again",
            )
        return repair_index(Path(folder), embedder, on_event)


def newest_generation(folder: Path | str) -> int:
    """Return the number of the newest published generation of an index in a folder or at a URL; 0 if there is none."""
    location = index_location(folder)
    if isinstance(location, Path):
        return generations.current_generation(location)
    backend = backend_class(location).open(location)
    try:
        return backend.current_generation()
    finally:
        backend.close()


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
        folder: of the index, or URL.
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
    Index.open(folder, embedder).close()
    while True:
        outcome: BuildReport | BadInput
        try:
            outcome = Index.update(folder, documents, embedder, on_event, trust_mtime=trust_mtime)
        except BadInput as error:
            Index.open(folder, embedder).close()
            outcome = error
        if not on_report(outcome):
            return
        sleep(every)

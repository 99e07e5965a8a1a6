"""The backend of an index folder: FAISS and BM25 files of one generation, texts in SQLite."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from rag.backends.local import ChunkList, ChunkLookup, LocalBackend
from rag.errors import BadInput
from rag.indexing import generations
from rag.indexing.segments import is_delta, load_base_store, load_store, load_words
from rag.search.backend import IndexFacts
from rag.search.documents import DocumentIndex
from rag.stores.sqlite import REBUILD_HINT
from rag.stores.text import TextStore
from rag.types import Chunk

_CACHED_DOCUMENTS = 1024


class GenerationReplaced(BadInput):
    """No retained generation contains the text that was asked for."""


class FilesBackend(LocalBackend):
    """One generation of an index folder, verified and pinned: later updates do not change its results."""

    folder: Path

    @classmethod
    def open(cls, folder: Path, number: int) -> FilesBackend:
        """Open a generation.

        Raises:
            BadInput: if a part is missing or damaged.
        """
        generation = generations.open_verified(folder, number)
        manifest = generation.manifest
        store = load_store(generation.path, manifest)
        chunks: ChunkLookup
        if not generations.is_large(manifest):
            with TextStore(folder) as text:
                chunks = ChunkList(tuple(row.chunk for row in text.chunks(number)))
                documents = DocumentIndex(text.document_fields(number))
                if not text.has_digest(number, str(manifest["text_sha256"])):
                    raise BadInput(
                        f"{folder} is damaged: its texts do not belong to {generations.generation_name(number)}",
                        REBUILD_HINT,
                    )
            count = len(documents.ids)
        else:
            chunks = StoredChunks(folder, number, store.ids)
            fields = StoredFields(folder, number)
            documents = DocumentIndex(fields)
            count = len(fields)
        facts = IndexFacts.of_record(manifest, number, count, len(chunks.ids))
        if len(chunks.ids) != int(manifest["chunks"]):
            raise BadInput(
                f"{folder} is damaged: it has {len(chunks.ids)} of {manifest['chunks']} chunks",
                generations.REPAIR_HINT,
            )
        base = load_base_store(generation.path, manifest) if is_delta(manifest) else store
        words = load_words(generation.path, manifest, base.ids)
        backend = cls(facts, chunks, documents, store, words, lambda document: None)
        backend.folder = folder
        return backend

    def current_generation(self) -> int:
        """Return the number that the folder's pointer names."""
        return generations.current_generation(self.folder)

    def raw(self, document: str) -> str | None:
        """Return a document's decoded source text; None if the index has no such document.

        Raises:
            GenerationReplaced: if the text was changed or removed so long ago that no retained generation contains it.
        """
        generation = self.facts.generation
        with TextStore(self.folder) as text:
            stored = text.document(document, generation)
            # the documents of a large index are not all in memory: then the record of its generation says whether it stands
            if stored is None and (document in self.documents or text.record(generation) is None):
                raise self._replaced(f"the text of {document!r}")
        return stored.raw if stored else None

    def chunks(self, ids: Sequence[int]) -> list[Chunk]:
        """Return chunks by their ids.

        Raises:
            GenerationReplaced: if no retained generation contains one of them any more.
        """
        try:
            return super().chunks(ids)
        except KeyError as error:
            with TextStore(self.folder) as text:
                if text.record(self.facts.generation) is None:
                    raise self._replaced("its passages") from error
            raise BadInput(f"{self.folder} is damaged: {error.args[0]}", REBUILD_HINT) from error

    def _replaced(self, what: str) -> GenerationReplaced:
        return GenerationReplaced(
            f"generation {self.facts.generation} of {self.folder} has been replaced twice: it no longer has {what}",
            "open the index again",
        )


class _Connections:
    """One read-only connection to a text store for each thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._of_thread = threading.local()

    def text(self) -> TextStore:
        """Return the connection of this thread, opened at its first use."""
        text: TextStore | None = getattr(self._of_thread, "text", None)
        if text is None:
            text = self._of_thread.text = TextStore(self._folder)
        return text


class StoredChunks:
    """The chunks of a generation, read from its text store when they are asked for, each verified against its hash."""

    def __init__(self, folder: Path, number: int, ids: np.ndarray) -> None:
        """Take the ids of the generation's vectors; nothing is read yet."""
        self._connections = _Connections(folder)
        self._number = number
        self._ids = ids

    @property
    def ids(self) -> np.ndarray:
        """Ids of all chunks, ascending."""
        return self._ids

    def chunks(self, ids: Sequence[int]) -> list[Chunk]:
        """Return chunks by their ids."""
        chunks = self._connections.text().chunks_by_id(self._number, list(ids))
        if missing := next((id for id in ids if id not in chunks), None):
            raise KeyError(f"no chunk has the id {missing}")
        return [chunks[id] for id in ids]

    def ids_of(self, documents: Collection[str]) -> np.ndarray:
        """Return the ids of the chunks of documents."""
        return np.array(self._connections.text().ids_of(self._number, documents), dtype=np.int64)

    def chunks_of(self, document: str) -> list[Chunk]:
        """Return a document's chunks in the order of its text."""
        return self._connections.text().chunks_of(self._number, document)

    def all_chunks(self) -> Iterator[Chunk]:
        """Yield all chunks by ascending id."""
        return self._connections.text().iter_chunks(self._number)


class StoredFields(Mapping[str, Mapping[str, Any]]):
    """The fields of a generation's documents, each read when it is asked for; all of them once they are iterated."""

    def __init__(self, folder: Path, number: int) -> None:
        """Count the documents; nothing else is read yet."""
        self._connections = _Connections(folder)
        self._number = number
        self._count = self._connections.text().count_documents(number)
        self._all: dict[str, dict[str, Any]] | None = None
        self._one: Callable[[str], dict[str, Any] | None] = lru_cache(_CACHED_DOCUMENTS)(self._read)

    def __len__(self) -> int:
        """Return the number of documents."""
        return self._count

    def __contains__(self, document: object) -> bool:
        """Return whether there is a document of this id."""
        return isinstance(document, str) and self._fields(document) is not None

    def __getitem__(self, document: str) -> Mapping[str, Any]:
        """Return a document's fields; KeyError for an unknown document."""
        fields = self._fields(document)
        if fields is None:
            raise KeyError(document)
        return fields

    def __iter__(self) -> Iterator[str]:
        """Read the fields of all documents and yield their ids, sorted."""
        if self._all is None:
            self._all = self._connections.text().document_fields(self._number)
        return iter(self._all)

    def may_have(self, key: str) -> bool:
        """Return whether any document may have a key in its metadata; false only if none has."""
        return self._connections.text().has_metadata(self._number, key)

    def _fields(self, document: str) -> dict[str, Any] | None:
        return self._all.get(document) if self._all is not None else self._one(document)

    def _read(self, document: str) -> dict[str, Any] | None:
        return self._connections.text().document_fields(self._number, document).get(document)

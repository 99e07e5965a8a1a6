"""The backend of an index folder: FAISS and BM25 files of one generation, texts in SQLite."""

from __future__ import annotations

import os
from pathlib import Path

from rag.backends.local import ChunkList, LocalBackend
from rag.errors import BadInput
from rag.indexing import generations
from rag.indexing.encoding import RECORD
from rag.indexing.writer import LEXICAL_FOLDER
from rag.search.backend import IndexFacts
from rag.search.documents import DocumentIndex
from rag.settings import IndexSettings
from rag.stores.base import store_class
from rag.stores.bm25 import BM25Index
from rag.stores.sqlite import REBUILD_HINT
from rag.stores.text import TextStore


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
        with TextStore(folder) as text:
            chunks = tuple(row.chunk for row in text.chunks(number))
            documents = DocumentIndex(text.document_fields(number))
            if text.digest(number) != manifest["text_sha256"]:
                raise BadInput(
                    f"{folder} is damaged: its texts do not belong to {generations.generation_name(number)}",
                    REBUILD_HINT,
                )
        facts = IndexFacts(
            generation=number,
            embedder=str(manifest["embedder"]),
            fingerprint=str(manifest["fingerprint"]),
            dimension=int(manifest["dimension"]),
            settings=IndexSettings.from_json(manifest["settings"]),
            documents=len(documents.ids),
            chunks=len(chunks),
            encoding=dict(manifest.get(RECORD) or {}),
        )
        mapped = os.name == "posix"  # elsewhere a mapped file could not be deleted
        store = store_class(manifest["store"]).load(generation.path, facts.dimension, mapped=mapped)
        lexical = BM25Index.load(generation.path / LEXICAL_FOLDER, len(chunks))
        backend = cls(facts, ChunkList(chunks), documents, store, lexical, lambda document: None)
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
            if stored is None and document in self.documents:
                raise GenerationReplaced(
                    f"generation {generation} of {self.folder} has been replaced twice: "
                    f"it no longer holds the text of {document!r}",
                    "open the index again",
                )
        return stored.raw if stored else None

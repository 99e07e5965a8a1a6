"""The front class: build, update, open, search and check an index."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rag import build, fuse, generations
from rag.build import Wish
from rag.check import Repair, check, repair
from rag.encoder import Encoder, OnEvent
from rag.errors import BadInput
from rag.lexical import Lexical
from rag.publish import LEXICAL
from rag.report import BuildReport
from rag.settings import IndexSettings
from rag.stores.base import VectorStore, store_class
from rag.stores.database import REBUILD
from rag.stores.text import TextStore
from rag.types import Chunk, Hit

__all__ = ["BuildReport", "Index", "IndexSettings"]


class Index:
    """One verified generation of an index, pinned: later updates do not change what it answers."""

    def __init__(
        self,
        folder: Path,
        generation: generations.Generation,
        chunks: tuple[Chunk, ...],
        parts: tuple[Encoder, VectorStore, Lexical] | None,
    ) -> None:
        """Put the parts together; use ``open``."""
        self.folder = folder
        self.chunks = chunks
        """All chunks, by id."""
        self.generation = generation.number
        self.settings = IndexSettings.from_json(generation.manifest["settings"])
        self._manifest = generation.manifest
        self._parts = parts

    @classmethod
    def build(
        cls,
        folder: Path | str,
        documents: Path | str,
        embedder: Encoder,
        settings: IndexSettings | None = None,
        on_event: OnEvent | None = None,
    ) -> BuildReport:
        """Build the index of a documents path, replacing what the folder held.

        Raises BadInput for documents that cannot be loaded, or a folder that holds something else.
        """
        return build.build(Path(folder), Path(documents), embedder, settings or IndexSettings(), on_event)

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
    def open(cls, folder: Path | str, embedder: Encoder | None = None) -> Index:
        """Open the current generation, verified; without an embedder it can be read but not searched.

        Raises BadInput when something is missing, damaged, or made with another embedder.
        """
        folder = Path(folder)
        while True:
            number = generations.current(folder)
            if not number:
                raise BadInput(f"{folder} is not an index: it has no {generations.CURRENT}", "build it first")
            try:
                return cls._opened(folder, number, embedder)
            except (BadInput, OSError):
                if generations.current(folder) == number:
                    raise
                # two updates were published meanwhile and swept this generation away: take the new one

    @classmethod
    def _opened(cls, folder: Path, number: int, embedder: Encoder | None) -> Index:
        generation = generations.verified(folder, number)
        manifest = generation.manifest
        with TextStore(folder) as text:
            rows = text.chunks(number)
            if text.digest(number) != manifest["text_sha256"]:
                raise BadInput(
                    f"{folder} is damaged: its texts do not belong to {generations.name(number)}", REBUILD
                )
        parts = None
        if embedder is not None:
            build.same_embedder(folder, manifest, embedder)
            kind = store_class(manifest["store"])
            mapped = os.name == "posix"  # elsewhere a mapped file could not be swept away
            store = kind.load(generation.path, manifest["dimension"], mapped=mapped)
            parts = embedder, store, Lexical.load(generation.path / LEXICAL, len(rows))
        return cls(folder, generation, tuple(row.chunk for row in rows), parts)

    def search(self, question: str, k: int = 5, without: Collection[str] = ()) -> list[Hit]:
        """Return the k best chunks for a question, best first; ``without`` names documents to leave out."""
        return self.search_many([question], k, [without])[0]

    def search_many(
        self, questions: Sequence[str], k: int = 5, without: Sequence[Collection[str]] | None = None
    ) -> list[list[Hit]]:
        """Return the k best chunks for each question; ``without`` names documents to leave out of each."""
        if self._parts is None:
            raise BadInput("this index was opened without an embedder, so it cannot be searched")
        if k < 1:
            raise BadInput(f"k is {k}, but at least one hit must be asked for")
        if not questions:
            return []
        vectors = self._parts[0].encode(questions, query=True)
        left_out = (
            [self._ids_of(docs) for docs in without] if without else [frozenset[int]()] * len(questions)
        )
        deepest = max(k, self.settings.pool) + max(map(len, left_out))
        near, _ = self._parts[1].search(vectors, deepest)
        return [
            self._fused(question, vector, ids, k, hidden)
            for question, vector, ids, hidden in zip(questions, vectors, near, left_out, strict=True)
        ]

    def _fused(
        self, question: str, vector: np.ndarray, near: np.ndarray, k: int, hidden: frozenset[int]
    ) -> list[Hit]:
        """Join both searches for one question: candidates of either side, both scores exact for each."""
        assert self._parts is not None
        pool = max(k, self.settings.pool)
        scores = self._parts[2].scores(question)
        matching = np.flatnonzero(scores > 0)
        by_words = matching[np.argsort(-scores[matching], kind="stable")][: pool + len(hidden)]
        worded = [id for id in self._ids[by_words].tolist() if id not in hidden][:pool]
        meant = [id for id in near.tolist() if id not in hidden][:pool]
        ids = np.array(sorted({*worded, *meant}), dtype=np.int64)
        if not len(ids):
            return []
        dense = self._parts[1].vectors(ids) @ vector
        rows = np.searchsorted(self._ids, ids)
        lexical = scores[rows]
        join = fuse.convex if self.settings.fusion == "convex" else fuse.rrf
        fused = join(dense, lexical, self.settings.lexical_weight)
        best = np.argsort(-fused, kind="stable")[:k]
        return [
            Hit(self.chunks[rows[n]], float(fused[n]), float(dense[n]), float(lexical[n]))
            for n in best.tolist()
        ]

    @cached_property
    def _ids(self) -> np.ndarray:
        return np.array([chunk.id for chunk in self.chunks], dtype=np.int64)

    @cached_property
    def _by_document(self) -> dict[str, frozenset[int]]:
        found: dict[str, set[int]] = {}
        for chunk in self.chunks:
            found.setdefault(chunk.doc, set()).add(chunk.id)
        return {doc: frozenset(ids) for doc, ids in found.items()}

    def _ids_of(self, documents: Collection[str]) -> frozenset[int]:
        return frozenset[int]().union(*(self._by_document.get(doc, frozenset()) for doc in documents))

    def raw(self, document: str) -> str | None:
        """Return a document's decoded source text, which all offsets refer to; None when it is not here.

        Raises BadInput when the text was changed or removed so long ago that no kept generation holds it.
        """
        with TextStore(self.folder) as text:
            found = text.document(document, self.generation)
            if found is None and document in self._by_document:
                raise BadInput(
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

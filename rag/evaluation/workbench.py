"""Documents cut, embedded and searched under other settings, in memory, with the search of the real index.

Vectors come from the index's cache and go into it, so what was tried once is not embedded again, and an index
built with the settings that were chosen embeds nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from rag.embedding.protocol import Encoder
from rag.embedding.reranker import Scorer
from rag.files import sha256_text
from rag.indexing import vectors
from rag.indexing.chunking import Chunker
from rag.indexing.vectors import KnownVectors
from rag.search.documents import DocumentIndex
from rag.search.searcher import IndexParts, Searcher
from rag.settings import IndexSettings
from rag.stores.bm25 import BM25Index
from rag.stores.exact import ExactStore
from rag.stores.vector_cache import VectorCache
from rag.types import Chunk, Document, OnEvent


class Workbench:
    """The documents of one corpus and what is needed to search them in many ways."""

    def __init__(
        self,
        documents: Sequence[Document],
        encoder: Encoder,
        cache: VectorCache,
        reranker: Scorer | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        """Keep the parts; nothing is cut or embedded yet."""
        self._documents = documents
        self._encoder = cast(Encoder, _Remembering(encoder))
        self._cache = cache
        self._reranker = _Judging(reranker) if reranker else None
        self._tell = on_event or (lambda event: None)
        self.embedded = 0
        """Texts embedded so far."""

    @property
    def window(self) -> int:
        """Tokens of a text that the embedder sees."""
        return self._encoder.max_tokens

    def cut(self, settings: IndexSettings) -> tuple[Chunk, ...]:
        """Return the documents' chunks under these settings, numbered from 1."""
        chunker = Chunker(self._encoder, settings)
        chunks = (chunk for document in self._documents for chunk in chunker.chunks(document))
        return tuple(replace(chunk, id=n) for n, chunk in enumerate(chunks, start=1))

    def searcher(
        self, chunks: Sequence[Chunk], settings: IndexSettings, *, reranked: bool = False
    ) -> Searcher:
        """Return a search over chunks that ``cut`` returned; what nobody embedded yet is embedded now."""
        chunker = Chunker(self._encoder, settings)
        texts = [chunker.embedded_text(chunk) for chunk in chunks]
        keys = [sha256_text(text) for text in texts]
        wanted = dict(zip(keys, texts, strict=True))
        found = vectors.resolve_vectors(
            wanted, KnownVectors({}, None), self._cache, lambda: self._encoder, self._tell
        )
        self.embedded += found.embedded
        store = ExactStore(self._encoder.dimension)
        ids = np.array([chunk.id for chunk in chunks], dtype=np.int64)
        store.add(ids, np.stack([found.vectors[key] for key in keys]))
        abouts = {
            d.id: {"title": d.title, "media": d.media, "source": d.source, "metadata": d.metadata}
            for d in self._documents
        }
        raws = {document.id: document.raw for document in self._documents}
        lexical = BM25Index.build(texts, settings.k1, settings.b)
        documents = DocumentIndex(abouts, chunks)
        scorer = self._reranker if reranked else None
        return Searcher(IndexParts(chunks, documents, self._encoder, store, lexical, raws.get, scorer))


class _Remembering:
    """An encoder that embeds the questions once, though every candidate asks them."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._asked: dict[tuple[str, ...], np.ndarray] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode(
        self, texts: Sequence[str], *, query: bool = False, on_event: OnEvent | None = None
    ) -> np.ndarray:
        if not query:
            return self._encoder.encode(texts, on_event=on_event)
        if (key := tuple(texts)) not in self._asked:
            self._asked[key] = self._encoder.encode(texts, query=True)
        return self._asked[key]


class _Judging:
    """A reranker that reads a pair of question and text once."""

    def __init__(self, reranker: Scorer) -> None:
        self._reranker = reranker
        self._known: dict[tuple[str, str], float] = {}

    @property
    def truncated(self) -> int:
        return self._reranker.truncated

    def scores(self, question: str, texts: Sequence[str]) -> np.ndarray:
        missing = [text for text in dict.fromkeys(texts) if (question, text) not in self._known]
        if missing:
            found = self._reranker.scores(question, missing)
            self._known |= {
                (question, text): float(score) for text, score in zip(missing, found, strict=True)
            }
        return np.array([self._known[question, text] for text in texts], dtype=np.float32)

"""An in-memory index over a corpus, for trying other chunking and search settings with the search of the real index.

Vectors come from the index's cache and go into it, so texts that were tried once are not embedded again, and an index
that is then built with the chosen settings embeds nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from rag.backends.local import ChunkList, LocalBackend
from rag.embedding.protocol import Encoder
from rag.embedding.reranker import Scorer
from rag.files import sha256_text
from rag.indexing import vectors
from rag.indexing.chunking import Chunker
from rag.indexing.vectors import KnownVectors
from rag.search.backend import IndexFacts
from rag.search.documents import DocumentIndex
from rag.search.searcher import Searcher
from rag.settings import IndexSettings
from rag.stores.bm25 import BM25Index
from rag.stores.exact import ExactStore
from rag.stores.vector_cache import VectorCache
from rag.types import Chunk, Document, OnEvent


class Workbench:
    """The documents of one corpus, to be cut, embedded and searched under many settings."""

    def __init__(
        self,
        documents: Sequence[Document],
        encoder: Encoder,
        cache: VectorCache,
        reranker: Scorer | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        """Store the parts; nothing is cut or embedded yet.

        Args:
            documents: the corpus.
            encoder: embeds chunks and questions.
            cache: where vectors are looked up and stored, by the hash of their text.
            reranker: used by searchers that are asked for with ``reranked=True``.
            on_event: receives the events of embedding.
        """
        self._documents = documents
        self._encoder = cast(Encoder, _CachedEncoder(encoder))
        self._cache = cache
        self._reranker = _CachedReranker(reranker) if reranker else None
        self._tell = on_event or (lambda event: None)
        self.embedded = 0
        """Texts embedded so far."""

    @property
    def window(self) -> int:
        """The embedder's context window in tokens; longer texts are truncated."""
        return self._encoder.max_tokens

    def cut(self, settings: IndexSettings) -> tuple[Chunk, ...]:
        """Return the documents' chunks under these settings, with ids from 1."""
        chunker = Chunker(self._encoder, settings)
        chunks = (chunk for document in self._documents for chunk in chunker.chunks(document))
        return tuple(replace(chunk, id=n) for n, chunk in enumerate(chunks, start=1))

    def searcher(
        self, chunks: Sequence[Chunk], settings: IndexSettings, *, reranked: bool = False
    ) -> Searcher:
        """Return a searcher over chunks that :meth:`cut` returned; texts that are not in the cache are embedded now."""
        chunker = Chunker(self._encoder, settings)
        texts = [chunker.embedded_text(chunk) for chunk in chunks]
        keys = [sha256_text(text) for text in texts]
        text_by_key = dict(zip(keys, texts, strict=True))
        resolved = vectors.resolve_vectors(
            text_by_key,
            KnownVectors({}, None),
            self._cache,
            lambda: self._encoder,
            self._tell,
            unit_chars=settings.unit_chars,
        )
        self.embedded += resolved.embedded
        store = ExactStore(self._encoder.dimension)
        ids = np.array([chunk.id for chunk in chunks], dtype=np.int64)
        store.add(ids, np.stack([resolved.vectors[key] for key in keys]))
        fields = {
            d.id: {"title": d.title, "media": d.media, "source": d.source, "metadata": d.metadata}
            for d in self._documents
        }
        raws = {document.id: document.raw for document in self._documents}
        lexical = BM25Index.build(texts, settings.k1, settings.b)
        encoder = self._encoder
        facts = IndexFacts(
            generation=1,
            embedder=encoder.name,
            fingerprint=encoder.fingerprint,
            dimension=encoder.dimension,
            settings=settings,
            documents=len(fields),
            chunks=len(chunks),
        )
        backend = LocalBackend(facts, ChunkList(chunks), DocumentIndex(fields), store, lexical, raws.get)
        return Searcher(backend, encoder, self._reranker if reranked else None)


class _CachedEncoder:
    """An encoder that embeds a batch of questions once, though every candidate searches for them."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._query_vectors: dict[tuple[str, ...], np.ndarray] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode(
        self, texts: Sequence[str], *, query: bool = False, on_event: OnEvent | None = None
    ) -> np.ndarray:
        if not query:
            return self._encoder.encode(texts, on_event=on_event)
        if (key := tuple(texts)) not in self._query_vectors:
            self._query_vectors[key] = self._encoder.encode(texts, query=True)
        return self._query_vectors[key]


class _CachedReranker:
    """A reranker that scores each pair of question and text once."""

    def __init__(self, reranker: Scorer) -> None:
        self._reranker = reranker
        self._scores: dict[tuple[str, str], float] = {}

    @property
    def truncated(self) -> int:
        return self._reranker.truncated

    def scores(self, question: str, texts: Sequence[str]) -> np.ndarray:
        missing = [text for text in dict.fromkeys(texts) if (question, text) not in self._scores]
        if missing:
            scores = self._reranker.scores(question, missing)
            self._scores |= {
                (question, text): float(score) for text, score in zip(missing, scores, strict=True)
            }
        return np.array([self._scores[question, text] for text in texts], dtype=np.float32)

"""Choose the documents that the knowledge probe indexes when embedding all of them would take too long.

:func:`sample_within_budget` measures the speed of the embedder and keeps every document that answers a dev question, and
as many others as the budget allows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from rag.files import sha256_text
from rag.types import Chunk, Document

if TYPE_CHECKING:
    from rag.embedding.protocol import Encoder
    from rag.settings import IndexSettings

TRIAL_PASSAGES = 64
"""Passages whose embedding is timed."""
PASSAGE_CHARS = 1_000
"""Characters of a passage that is cut without a tokenizer: about 250 tokens, as an index cuts them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingBudget:
    """How much of a corpus is embedded for a probe."""

    seconds: float = 90.0
    """What embedding may take of the four minutes of a probe; the model's answers need the rest."""
    small_chars: int = 100_000
    """Characters up to which a corpus is indexed whole, without timing: about a hundred passages."""


DEFAULT_BUDGET = EmbeddingBudget()


@dataclass(frozen=True, slots=True)
class DocumentSample:
    """The documents of a corpus that are indexed, and how many there are in all."""

    documents: int
    """Number of documents that are indexed."""
    of: int
    """Number of documents in the corpus."""
    gold: int
    """Number of documents with the answer to a dev question; all of them are indexed."""
    seconds: float
    """Estimated time to embed the whole corpus, from the speed measured on a few passages."""
    ids: tuple[str, ...]
    """Ids of the documents that are indexed, sorted."""

    @property
    def text(self) -> str:
        """A sentence that says what was left out, and how that affects the retrieval score."""
        return (
            f"indexed {self.documents:,} of {self.of:,} documents, with every one that answers a dev question "
            f"({self.gold:,}): embedding all would take about {_minutes(self.seconds)}. Among fewer documents the right "
            "one is found more easily, so the retrieved share is an upper bound"
        )

    def to_json(self) -> dict[str, Any]:
        """Return counts and seconds as JSON values."""
        return {key: value for key, value in asdict(self).items() if key != "ids"}


def sample_within_budget(
    documents: Sequence[Document],
    gold: Callable[[], Collection[str]],
    encoder: Encoder,
    settings: IndexSettings,
    seed: int,
    budget: EmbeddingBudget = DEFAULT_BUDGET,
) -> DocumentSample | None:
    """Return the documents to index within the time budget; None when all of them fit into it.

    The speed is measured on the first passages of the documents in the seed's order.

    Args:
        documents: the corpus.
        gold: returns the ids of the documents that must be indexed; called only for a corpus over the budget. When
            these alone take longer than the budget, nothing else is indexed.
        encoder: the embedder.
        settings: settings of the index, which decide the passages.
        seed: seed of the documents' order.
        budget: time for embedding.
    """
    size = sum(len(document.raw) for document in documents)
    if size <= budget.small_chars:
        return None
    speed = characters_per_second(shuffled_documents(documents, seed), encoder, settings)
    seconds = size / speed
    if seconds <= budget.seconds:
        return None
    gold_ids = frozenset(gold())
    ids = sample_documents(shuffled_documents(documents, seed), gold_ids, round(speed * budget.seconds))
    return DocumentSample(len(ids), len(documents), len(gold_ids.intersection(ids)), round(seconds, 1), ids)


def sample_documents(
    documents: Iterable[Document], gold: Collection[str], characters: int
) -> tuple[str, ...]:
    """Return the sorted ids of all gold documents, and of others in the order given while they fit.

    Args:
        documents: the corpus, in the order in which documents are taken.
        gold: ids that are always included.
        characters: total length of the documents to take.
    """
    candidates = list(documents)
    gold_ids = set(gold)
    left = characters - sum(len(document.raw) for document in candidates if document.id in gold_ids)
    chosen = [document.id for document in candidates if document.id in gold_ids]
    for document in candidates:
        if document.id not in gold_ids and len(document.raw) <= left:
            chosen.append(document.id)
            left -= len(document.raw)
    return tuple(sorted(chosen))


def shuffled_documents(documents: Iterable[Document], seed: int) -> list[Document]:
    """Return the documents in an order that depends on the seed and their ids alone."""
    return sorted(documents, key=lambda document: sha256_text(f"{seed}\0portion\0{document.id}"))


def characters_per_second(documents: Iterable[Document], encoder: Encoder, settings: IndexSettings) -> float:
    """Return the speed of the embedder on the first passages of these documents, after four passages of warm-up."""
    texts = list(_passages(documents, encoder, settings))
    encoder.encode(texts[:4])
    started = time.perf_counter()
    encoder.encode(texts)
    return sum(map(len, texts)) / max(time.perf_counter() - started, 1e-9)


def _passages(documents: Iterable[Document], encoder: Encoder, settings: IndexSettings) -> Iterator[str]:
    """Yield the text of passages as it is embedded, at most an eighth of :data:`TRIAL_PASSAGES` per document."""
    from rag.indexing.chunking import Chunker

    chunker = Chunker(encoder, settings)
    count = 0
    for document in documents:
        for chunk in chunker.chunks(document)[: TRIAL_PASSAGES // 8]:
            yield chunker.embedded_text(chunk)
            count += 1
        if count >= TRIAL_PASSAGES:
            return


def block_texts(documents: Iterable[Document]) -> list[Chunk]:
    """Return every block of every document as a chunk of its own."""
    return [
        Chunk(0, document.id, document.title, number, block.text, block.start, block.end, block.heading)
        for document in documents
        for number, block in enumerate(document.blocks)
    ]


def packed_texts(documents: Iterable[Document], most_chars: int = PASSAGE_CHARS) -> list[Chunk]:
    """Return documents as passages without a tokenizer: neighbouring blocks under one heading, up to so many characters."""
    passages: list[Chunk] = []
    for block in block_texts(documents):
        last = passages[-1] if passages else None
        if (
            last is not None
            and (last.doc, last.heading) == (block.doc, block.heading)
            and len(last.text) + len(block.text) < most_chars
        ):
            passages[-1] = replace(last, text=f"{last.text}\n{block.text}", end=block.end)
        else:
            passages.append(replace(block, ordinal=len(passages)))
    return passages


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"

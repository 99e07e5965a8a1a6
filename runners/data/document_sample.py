"""Which documents a probe indexes where embedding all of them would take too long: those with the answers, and others."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rag.files import sha256_text
from rag.types import Chunk, Document

if TYPE_CHECKING:
    from rag.embedding.protocol import Encoder
    from rag.settings import IndexSettings

BUDGET_SECONDS = 90.0
"""What embedding may take of the four minutes of a probe; the model's answers need the rest."""
TRIAL_PASSAGES = 64
"""Passages whose embedding is timed."""
SMALL_CORPUS_CHARS = 100_000
"""Characters that are not worth a trial: some hundred passages."""


@dataclass(frozen=True, slots=True)
class DocumentSample:
    """A part of a corpus, and what it stands for."""

    documents: int
    """How many are indexed."""
    of: int
    gold: int
    """Those that hold the answer to a dev question; all of them are indexed."""
    seconds: float
    """What embedding all would take, as measured on a few passages."""
    ids: tuple[str, ...]

    @property
    def text(self) -> str:
        """Say what was left out, and what that does to the figures."""
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
) -> DocumentSample | None:
    """Return the documents to index within the budget; None when all of them fit into it.

    The speed is measured on the first passages of documents in the seed's order. ``gold`` finds the documents that
    must be there; where these alone take longer than the budget, they are all that is indexed.
    """
    size = sum(len(document.raw) for document in documents)
    if size <= SMALL_CORPUS_CHARS:
        return None
    pace = characters_per_second(shuffled_documents(documents, seed), encoder, settings)
    seconds = size / pace
    if seconds <= BUDGET_SECONDS:
        return None
    wanted = frozenset(gold())
    ids = sample_documents(shuffled_documents(documents, seed), wanted, round(pace * BUDGET_SECONDS))
    return DocumentSample(len(ids), len(documents), len(wanted.intersection(ids)), round(seconds, 1), ids)


def sample_documents(
    documents: Iterable[Document], gold: Collection[str], characters: int
) -> tuple[str, ...]:
    """Return the ids of the gold documents and of as many others, in the order given, as ``characters`` have room for."""
    given, wanted = list(documents), set(gold)
    left = characters - sum(len(document.raw) for document in given if document.id in wanted)
    taken = [document.id for document in given if document.id in wanted]
    for document in given:
        if document.id not in wanted and len(document.raw) <= left:
            taken.append(document.id)
            left -= len(document.raw)
    return tuple(sorted(taken))


def shuffled_documents(documents: Iterable[Document], seed: int) -> list[Document]:
    """Return the documents in an order that the seed and their ids alone decide."""
    return sorted(documents, key=lambda document: sha256_text(f"{seed}\0portion\0{document.id}"))


def characters_per_second(documents: Iterable[Document], encoder: Encoder, settings: IndexSettings) -> float:
    """Return how fast the embedder takes the first passages of these documents, after a few to warm it up."""
    texts = list(_passages(documents, encoder, settings))
    encoder.encode(texts[:4])
    started = time.perf_counter()
    encoder.encode(texts)
    return sum(map(len, texts)) / max(time.perf_counter() - started, 1e-9)


def _passages(documents: Iterable[Document], encoder: Encoder, settings: IndexSettings) -> Iterator[str]:
    """Yield the first passages of the documents, as they are embedded, from each document at most a few."""
    from rag.indexing.chunking import Chunker

    chunker, count = Chunker(encoder, settings), 0
    for document in documents:
        for chunk in chunker.chunks(document)[: TRIAL_PASSAGES // 8]:
            yield chunker.embedded_text(chunk)
            count += 1
        if count >= TRIAL_PASSAGES:
            return


def block_texts(documents: Iterable[Document]) -> list[Chunk]:
    """Return every block of every document as a passage of its own."""
    return [
        Chunk(0, document.id, document.title, number, block.text, block.start, block.end, block.heading)
        for document in documents
        for number, block in enumerate(document.blocks)
    ]


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"

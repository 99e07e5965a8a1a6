"""Passages drawn evenly over the documents, and over the length of each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rag.files import sha256_text
from rag.text.words import content_words
from rag.types import Chunk

MIN_PASSAGE_WORDS = 4
"""Content words of a passage; fewer (a heading, a line of links) state too little to ask about."""


@dataclass(frozen=True, slots=True)
class Draw:
    """One passage to ask about, and the style of its question."""

    id: str
    """Of the passage and the style; equal documents and settings give equal ids."""
    passage: Chunk
    style: int
    """Index of the question style, see :data:`runners.synthesis.teacher.QUESTION_STYLES`."""


def usable_passages(chunks: Sequence[Chunk]) -> list[Chunk]:
    """Return the passages that state enough to ask about."""
    return [chunk for chunk in chunks if len(set(content_words(chunk.text))) >= MIN_PASSAGE_WORDS]


def draw_passages(chunks: Sequence[Chunk], styles: int, seed: int) -> Iterator[Draw]:
    """Yield passages to ask about: one of each document in turn, spread over its length, until each style was used.

    The order of documents and of the styles depends on the seed alone. A document of n passages is visited n times before
    any passage is asked about again, then in another style.

    Args:
        chunks: the passages that may be asked about.
        styles: number of question styles.
        seed: of the order.
    """
    by_document: defaultdict[str, list[Chunk]] = defaultdict(list)
    for chunk in chunks:
        by_document[chunk.doc].append(chunk)
    documents = sorted(by_document, key=lambda doc: sha256_text(f"{seed}\0{doc}"))
    spread = {
        doc: _spread(sorted(by_document[doc], key=lambda chunk: (chunk.start, chunk.end)), seed)
        for doc in documents
    }
    longest = max(map(len, spread.values()), default=0)
    for repetition in range(styles):
        for turn in range(longest):
            for doc in documents:
                if turn < len(spread[doc]):
                    chunk = spread[doc][turn]
                    first = int(sha256_text(f"{seed}\0{doc}\0{chunk.start}")[:8], 16)
                    style = (first + repetition) % styles
                    id = sha256_text(f"{doc}\0{chunk.start}\0{chunk.end}\0{chunk.text}\0{style}")[:16]
                    yield Draw(id, chunk, style)


def _spread(chunks: Sequence[Chunk], seed: int) -> list[Chunk]:
    """Return a document's passages in an order whose every beginning is spread over the whole document.

    By the van der Corput sequence: the positions' binary digits in reverse, from an offset that depends on the document.
    """
    if not chunks:
        return []
    offset = int(sha256_text(f"{seed}\0{chunks[0].doc}\0offset")[:8], 16) % len(chunks)
    bits = max(1, (len(chunks) - 1).bit_length())
    order = [
        position
        for number in range(1 << bits)
        if (position := int(f"{number:0{bits}b}"[::-1], 2)) < len(chunks)
    ]
    return [chunks[(position + offset) % len(chunks)] for position in order]

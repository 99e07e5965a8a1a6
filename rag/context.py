"""The passages of a prompt: numbered as the hits are, what repeats taken out, within a budget of tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rag.chunk import prefix
from rag.types import Chunk, Hit
from rag.words import sentence_spans


@dataclass(frozen=True, slots=True)
class Passage:
    """A hit as the prompt shows it."""

    n: int
    """Its number: the hit's position in the list given, from 1, which citations use too."""
    hit: Hit
    text: str
    """The chunk's text without what an earlier passage already shows."""

    def __str__(self) -> str:
        """Return "[n] title > heading" on one line and the text below."""
        return f"[{self.n}] {prefix(self.hit.chunk.title, self.hit.chunk.heading)}\n{self.text}"


def passages(hits: Sequence[Hit], max_tokens: int, count: Callable[[str], int]) -> str:
    """Return the numbered passages of a prompt in the order given (best first), within ``max_tokens``.

    ``count`` counts tokens as the answering model does. See ``select`` for what is left out.
    """
    return "\n\n".join(str(passage) for passage in select(hits, max_tokens, count))


def select(hits: Sequence[Hit], max_tokens: int, count: Callable[[str], int]) -> list[Passage]:
    """Return the passages that fit: repeats and overlaps taken out, the rest whole or not at all.

    Only a first passage that is too long by itself is cut, after its last whole sentence that fits.
    """
    shown: list[Passage] = []
    left = max_tokens
    for n, hit in enumerate(hits, start=1):
        passage = Passage(n, hit, _unseen(hit.chunk, [p.hit.chunk for p in shown]))
        if not passage.text:
            continue
        size = count(f"{passage}\n\n")
        if size > left and not shown:
            passage = _cut(passage, left, count)
            size = left
        if passage.text and size <= left:
            shown.append(passage)
            left -= size
    return shown


def _unseen(chunk: Chunk, seen: Sequence[Chunk]) -> str:
    """Return what a chunk adds: nothing for a repeat, the rest where an earlier chunk overlaps it."""
    start, end = chunk.start, chunk.end
    exact = len(chunk.text) == end - start
    for other in seen:
        if " ".join(other.text.split()) == " ".join(chunk.text.split()) and other.title == chunk.title:
            return ""
        if other.doc != chunk.doc or other.end <= start or end <= other.start:
            continue
        if other.start <= start and end <= other.end:
            return ""
        if exact and other.start <= start:
            start = other.end
        elif exact and end <= other.end:
            end = other.start
    return chunk.text[start - chunk.start : end - chunk.start].strip() if exact else chunk.text


def _cut(passage: Passage, room: int, count: Callable[[str], int]) -> Passage:
    for _, end in reversed(sentence_spans(passage.text)):
        shorter = Passage(passage.n, passage.hit, passage.text[:end])
        if count(f"{shorter}\n\n") <= room:
            return shorter
    return Passage(passage.n, passage.hit, "")

"""Which ranked chunks become hits: what adds nothing joins the hit above it, no document takes every place.

Join a hit with the chunks around it in its document.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from rag.indexing.chunking import chunk_prefix
from rag.search.query import Query
from rag.text.numbers import numbers_agree
from rag.types import Chunk, Hit

_TOKEN = re.compile(r"\w+(?:[.,:'’]\w+)*")
_RUN = 3
MIN_OWN_WORDS = 25
"""A text of fewer words is about its title, so that the same words under another title say something else. Chosen
by reading, not by score: on the public sets it changes no hit@5."""


def arrange_hits(ranked: Iterable[Hit], query: Query) -> list[Hit]:
    """Return the first ``query.k`` hits of a ranked list, after collapsing and capping.

    A chunk that adds nothing to a hit above it is named in that hit's ``same``; one that stands inside what
    ``query.neighbours`` will join to a hit above it is shown there and is no hit of its own.
    """
    chosen: list[_Chosen] = []
    taken: Counter[str] = Counter()
    for hit in ranked:
        if len(chosen) == query.k:
            break
        if any(other.will_show(hit.chunk, query.neighbours) for other in chosen):
            continue
        coming = _Chosen(hit, _Print.of(hit.chunk) if query.collapse else None, [])
        twin = next((other for other in chosen if other.holds(coming, query.collapse)), None)
        if twin is not None:
            twin.same.append(hit.chunk)
        elif not query.per_source or taken[hit.chunk.doc] < query.per_source:
            chosen.append(coming)
            taken[hit.chunk.doc] += 1
    return [replace(each.hit, same=tuple(each.same)) if each.same else each.hit for each in chosen]


def is_redundant(lower: Chunk, upper: Chunk, share: float = 1.0) -> bool:
    """Return whether ``share`` of the three-word runs of the lower chunk's text stand in the upper one's.

    Letter case, white space and punctuation do not count. A short text must have the same title and heading.
    With a share below 1, a number, a capitalised word or a denial that only one of them has keeps them apart.
    """
    return _Print.of(upper).holds(_Print.of(lower), share)


def is_repeat(lower: Chunk, upper: Chunk) -> bool:
    """Return whether the lower chunk adds nothing and says word for word, under the same title, what the upper says.

    A prompt leaves such a chunk out whatever :attr:`Query.collapse` is. Chunks that only add nothing are still shown:
    where gold is one of several like places, leaving them out costs evidence (see :attr:`Query.collapse`).
    """
    same = lower.title == upper.title and lower.text.split() == upper.text.split()
    return same and is_redundant(lower, upper)


@dataclass(frozen=True, slots=True)
class _Print:
    """What is compared of a chunk."""

    about: str
    text: str
    words: frozenset[str]
    runs: frozenset[tuple[str, ...]]
    length: int

    @classmethod
    def of(cls, chunk: Chunk) -> _Print:
        words = _TOKEN.findall(chunk.text)
        small = [word.lower() for word in words]
        runs = frozenset(zip(*(small[n:] for n in range(_RUN)), strict=False)) or frozenset([tuple(small)])
        return cls(
            chunk_prefix(chunk.title, chunk.heading).casefold(),
            chunk.text,
            frozenset(words),
            runs,
            len(words),
        )

    def holds(self, lower: _Print, share: float) -> bool:
        if self.about != lower.about and lower.length < MIN_OWN_WORDS:
            return False
        if len(self.runs & lower.runs) < share * len(lower.runs):
            return False
        return lower.runs <= self.runs or (
            not any(word[0].isupper() for word in lower.words - self.words)
            and numbers_agree(lower.text, self.text)
        )


@dataclass(frozen=True, slots=True)
class _Chosen:
    hit: Hit
    mark: _Print | None
    same: list[Chunk]

    def holds(self, other: _Chosen, share: float) -> bool:
        return self.mark is not None and other.mark is not None and self.mark.holds(other.mark, share)

    def will_show(self, chunk: Chunk, neighbours: int) -> bool:
        here = self.hit.chunk
        return (
            neighbours > 0
            and (here.doc, here.page) == (chunk.doc, chunk.page)
            and abs(here.ordinal - chunk.ordinal) <= neighbours
        )


def with_neighbours(
    middle: Chunk, chunks: Sequence[Chunk], neighbours: int, shown: Collection[int]
) -> list[Chunk]:
    """Return a chunk with up to ``neighbours`` chunks before and after it.

    ``chunks`` are all chunks of its document in order. The run ends before a chunk whose id is ``shown``, for
    a hit above holds it, and at the end of the page.
    """
    first = last = next(n for n, chunk in enumerate(chunks) if chunk.id == middle.id)
    least, most = max(0, first - neighbours), min(len(chunks) - 1, last + neighbours)
    while first > least and _belongs(chunks[first - 1], middle, shown):
        first -= 1
    while last < most and _belongs(chunks[last + 1], middle, shown):
        last += 1
    return list(chunks[first : last + 1])


def join_chunks(run: Sequence[Chunk], middle: Chunk, raw: str) -> Chunk:
    """Return neighbouring chunks as one, with the id, the heading and the ordinal of ``middle``.

    Its span covers them all. Its text is the exact slice of the document where all of theirs are and only
    white space stands between them; else their texts, each under its heading where that changes, and then the
    length differs from the span's, by which an inexact text is known.
    """
    start, end = min(c.start for c in run), max(c.end for c in run)
    text = _slice(run, start, end, raw) or _stacked(run)
    if len(text) == end - start and text != raw[start:end]:
        text += "\n"
    return replace(
        middle, text=text, start=start, end=end, line_start=run[0].line_start, line_end=run[-1].line_end
    )


def _belongs(chunk: Chunk, middle: Chunk, shown: Collection[int]) -> bool:
    return chunk.id not in shown and chunk.page == middle.page


def _slice(run: Sequence[Chunk], start: int, end: int, raw: str) -> str:
    """Return ``raw[start:end]``, or nothing where something that no chunk shows would come with it."""
    if any(raw[chunk.start : chunk.end] != chunk.text for chunk in run):
        return ""
    reached = start
    for chunk in run:
        if raw[reached : max(reached, chunk.start)].strip():
            return ""
        reached = max(reached, chunk.end)
    return raw[start:end]


def _stacked(run: Sequence[Chunk]) -> str:
    """Return the texts one below the other, what a text repeats of the one before left out."""
    parts = [run[0].text]
    for before, chunk in pairwise(run):
        if chunk.heading != before.heading and (head := chunk.heading.rpartition(" > ")[2]):
            parts.append(head)
        parts.append(_unrepeated(before.text, chunk.text) if chunk.start < before.end else chunk.text)
    return "\n\n".join(part for part in parts if part)


def _unrepeated(before: str, text: str) -> str:
    """Return the text without the longest beginning that the text before ends with."""
    most = min(len(before), len(text))
    return next((text[n:] for n in range(most, 0, -1) if before.endswith(text[:n])), text).strip()

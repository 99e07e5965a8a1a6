"""Which ranked chunks become hits: what adds nothing joins the hit above it, no document takes every place."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from rag.chunk import prefix
from rag.facts import agree
from rag.query import Query
from rag.types import Chunk, Hit

_TOKEN = re.compile(r"\w+(?:[.,:'’]\w+)*")
_RUN = 3
STANDS_ALONE = 25
"""A text of fewer words is about its title, so that the same words under another title say something else. Chosen
by reading, not by score: on the public sets it changes no hit@5."""


def arrange(ranked: Iterable[Hit], query: Query) -> list[Hit]:
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


def adds_nothing(lower: Chunk, upper: Chunk, share: float = 1.0) -> bool:
    """Return whether ``share`` of the three-word runs of the lower chunk's text stand in the upper one's.

    Letter case, white space and punctuation do not count. A short text must have the same title and heading.
    With a share below 1, a number, a capitalised word or a denial that only one of them has keeps them apart.
    """
    return _Print.of(upper).holds(_Print.of(lower), share)


def repeats(lower: Chunk, upper: Chunk) -> bool:
    """Return whether the lower chunk adds nothing and says word for word, under the same title, what the upper says.

    A prompt leaves such a chunk out whatever :attr:`Query.collapse` is. Chunks that only add nothing are still shown:
    where gold is one of several like places, leaving them out costs evidence (see :attr:`Query.collapse`).
    """
    same = lower.title == upper.title and lower.text.split() == upper.text.split()
    return same and adds_nothing(lower, upper)


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
            prefix(chunk.title, chunk.heading).casefold(), chunk.text, frozenset(words), runs, len(words)
        )

    def holds(self, lower: _Print, share: float) -> bool:
        if self.about != lower.about and lower.length < STANDS_ALONE:
            return False
        if len(self.runs & lower.runs) < share * len(lower.runs):
            return False
        return lower.runs <= self.runs or (
            not any(word[0].isupper() for word in lower.words - self.words) and agree(lower.text, self.text)
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

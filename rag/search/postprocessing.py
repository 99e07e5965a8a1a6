"""From ranked chunks to hits: collapse redundant chunks, limit hits per document, join neighbouring chunks.

:func:`arrange_hits` selects the hits, :func:`with_neighbours` and :func:`join_chunks` extend a hit by the chunks
around it in its document.
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
_SHINGLE_WORDS = 3
"""Words of a run; texts are compared by the share of runs they have in common (shingling, Broder 1997)."""
MIN_OWN_WORDS = 25
"""A shorter text depends on its title, so that the same words under another title say something else. Chosen
by reading, not by score: on the public sets it changes no hit@5."""


def arrange_hits(ranked: Iterable[Hit], query: Query) -> list[Hit]:
    """Return the first ``query.k`` hits of a ranked list, after collapsing and limiting hits per document.

    A chunk that adds nothing to a higher hit is listed in that hit's ``same``. A chunk that ``query.neighbours`` will
    join to a higher hit is shown there and is not a hit of its own.
    """
    chosen: list[_SelectedHit] = []
    hits_of_document: Counter[str] = Counter()
    for hit in ranked:
        if len(chosen) == query.k:
            break
        if any(higher.will_show(hit.chunk, query.neighbours) for higher in chosen):
            continue
        candidate = _SelectedHit(hit, _Fingerprint.of(hit.chunk) if query.collapse else None, [])
        duplicate_of = next((higher for higher in chosen if higher.contains(candidate, query.collapse)), None)
        if duplicate_of is not None:
            duplicate_of.same.append(hit.chunk)
        elif not query.per_source or hits_of_document[hit.chunk.doc] < query.per_source:
            chosen.append(candidate)
            hits_of_document[hit.chunk.doc] += 1
    return [
        replace(selected.hit, same=tuple(selected.same)) if selected.same else selected.hit
        for selected in chosen
    ]


def is_redundant(lower: Chunk, upper: Chunk, share: float = 1.0) -> bool:
    """Return whether at least ``share`` of the three-word runs of the lower chunk's text occur in the upper one's.

    Letter case, white space and punctuation do not count. A short text must have the same title and heading. With a
    share below 1, a number, a capitalised word or a negation that only one of them has keeps them apart.
    """
    return _Fingerprint.of(upper).contains(_Fingerprint.of(lower), share)


def is_repeat(lower: Chunk, upper: Chunk) -> bool:
    """Return whether the lower chunk adds nothing and is word for word, under the same title, what the upper one is.

    A prompt leaves such a chunk out whatever :attr:`Query.collapse` is. Chunks that only add nothing are still shown:
    if gold is one of several similar places, leaving them out loses evidence (see :attr:`Query.collapse`).
    """
    same = lower.title == upper.title and lower.text.split() == upper.text.split()
    return same and is_redundant(lower, upper)


def with_neighbours(
    middle: Chunk, chunks: Sequence[Chunk], neighbours: int, shown: Collection[int]
) -> list[Chunk]:
    """Return a chunk with up to ``neighbours`` chunks before and after it.

    Args:
        middle: the chunk of the hit.
        chunks: all chunks of its document in order.
        neighbours: chunks to add on each side at most.
        shown: ids of chunks in higher hits; the run ends before one of them, and at the end of the page.
    """
    first = last = next(n for n, chunk in enumerate(chunks) if chunk.id == middle.id)
    lowest, highest = max(0, first - neighbours), min(len(chunks) - 1, last + neighbours)
    while first > lowest and _belongs(chunks[first - 1], middle, shown):
        first -= 1
    while last < highest and _belongs(chunks[last + 1], middle, shown):
        last += 1
    return list(chunks[first : last + 1])


def join_chunks(run: Sequence[Chunk], middle: Chunk, raw: str) -> Chunk:
    """Return neighbouring chunks as one, with the id, the heading and the ordinal of ``middle``.

    Its span covers them all. Its text is the exact slice of the source if all of theirs are and only white space is
    between them; else their texts, each below its heading where that changes. The length of such an inexact text
    differs from the span's, which marks it as inexact.
    """
    start, end = min(c.start for c in run), max(c.end for c in run)
    text = _slice(run, start, end, raw) or _stacked(run)
    if len(text) == end - start and text != raw[start:end]:
        text += "\n"  # an inexact text must not have the length of its span by chance
    return replace(
        middle, text=text, start=start, end=end, line_start=run[0].line_start, line_end=run[-1].line_end
    )


@dataclass(frozen=True, slots=True)
class _Fingerprint:
    """The parts of a chunk that are compared."""

    about: str
    """Title and heading path, in lower case."""
    text: str
    words: frozenset[str]
    """In their letter case."""
    runs: frozenset[tuple[str, ...]]
    """Three-word runs in lower case; the whole text if it has fewer words."""
    length: int
    """Number of words."""

    @classmethod
    def of(cls, chunk: Chunk) -> _Fingerprint:
        words = _TOKEN.findall(chunk.text)
        lower_words = [word.lower() for word in words]
        runs = frozenset(zip(*(lower_words[n:] for n in range(_SHINGLE_WORDS)), strict=False)) or frozenset(
            [tuple(lower_words)]
        )
        return cls(
            chunk_prefix(chunk.title, chunk.heading).casefold(),
            chunk.text,
            frozenset(words),
            runs,
            len(words),
        )

    def contains(self, lower: _Fingerprint, share: float) -> bool:
        """Return whether a lower ranked chunk is redundant, see :func:`is_redundant`."""
        if self.about != lower.about and lower.length < MIN_OWN_WORDS:
            return False
        if len(self.runs & lower.runs) < share * len(lower.runs):
            return False
        return lower.runs <= self.runs or (
            not any(word[0].isupper() for word in lower.words - self.words)
            and numbers_agree(lower.text, self.text)
        )


@dataclass(frozen=True, slots=True)
class _SelectedHit:
    """A hit with the redundant chunks that it stands for."""

    hit: Hit
    fingerprint: _Fingerprint | None
    """None if nothing is collapsed."""
    same: list[Chunk]

    def contains(self, other: _SelectedHit, share: float) -> bool:
        """Return whether the other hit is redundant to this one."""
        if self.fingerprint is None or other.fingerprint is None:
            return False
        return self.fingerprint.contains(other.fingerprint, share)

    def will_show(self, chunk: Chunk, neighbours: int) -> bool:
        """Return whether a chunk will be joined to this hit as a neighbour."""
        own = self.hit.chunk
        return (
            neighbours > 0
            and (own.doc, own.page) == (chunk.doc, chunk.page)
            and abs(own.ordinal - chunk.ordinal) <= neighbours
        )


def _belongs(chunk: Chunk, middle: Chunk, shown: Collection[int]) -> bool:
    return chunk.id not in shown and chunk.page == middle.page


def _slice(run: Sequence[Chunk], start: int, end: int, raw: str) -> str:
    """Return ``raw[start:end]``, or "" if it would contain text that no chunk shows."""
    if any(raw[chunk.start : chunk.end] != chunk.text for chunk in run):
        return ""
    covered_to = start
    for chunk in run:
        if raw[covered_to : max(covered_to, chunk.start)].strip():
            return ""
        covered_to = max(covered_to, chunk.end)
    return raw[start:end]


def _stacked(run: Sequence[Chunk]) -> str:
    """Return the texts one below the other, each without the overlap with the one before."""
    parts = [run[0].text]
    for before, chunk in pairwise(run):
        if chunk.heading != before.heading and (head := chunk.heading.rpartition(" > ")[2]):
            parts.append(head)
        parts.append(_unrepeated(before.text, chunk.text) if chunk.start < before.end else chunk.text)
    return "\n\n".join(part for part in parts if part)


def _unrepeated(before: str, text: str) -> str:
    """Return the text without its longest beginning that the text before ends with."""
    longest = min(len(before), len(text))
    return next((text[n:] for n in range(longest, 0, -1) if before.endswith(text[:n])), text).strip()

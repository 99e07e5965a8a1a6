"""Sources that contradict each other: found among the passages of one answer, to be shown side by side.

Two sentences of different documents conflict when one says the same as the other, perhaps with a few words more, but
for a number, a date or a denial. The test is meant to be right when it speaks: where each has words that the other
lacks ("an adult single", "a child single"), or the question tells their titles apart, they are left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from rag.claim import Claim
from rag.statement import Statement, alike, differs, particles
from rag.types import Hit, location
from rag.words import content_words, sentence_spans, words

ASKED, ASKED_ELSEWHERE = 0.5, 0.8
"""Share of the question's content words that each must hold, with its title: under one title, and under two."""
SHOWN = 2
"""Conflicts of one pair of documents, the nearest to the question first."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of two sentences that contradict each other."""

    n: int
    """The hit's number, as citations count."""
    doc: str
    title: str
    date: str
    valid_until: str
    line_start: int
    line_end: int
    quote: str
    """An exact substring of the chunk."""

    def location(self) -> str:
        """Return the document with its lines, as :func:`rag.types.location` formats them."""
        return location(self.doc, None, self.line_start, self.line_end)


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two sentences of different documents that cannot both be right."""

    about: str
    """numbers, dates, names or denial."""
    sides: tuple[Side, Side]
    """The better ranked first."""
    newer: int | None
    """Which of the two comes from the later document (its ``n``); None when that is not known."""

    def to_json(self) -> dict[str, Any]:
        """Return the conflict as ``ask --json`` prints it."""
        sides = [{name: getattr(side, name) for name in Side.__slots__} for side in self.sides]
        return {"about": self.about, "sides": sides, "newer": self.newer}


def conflicts(question: str, hits: Sequence[Hit]) -> tuple[Conflict, ...]:
    """Return the conflicts among the hits that bear on the question, at most two for each pair of documents."""
    asked = alike(content_words(question))
    spoken = [_Spoken(n, hit) for n, hit in enumerate(hits, start=1)]
    found: dict[frozenset[str], list[tuple[float, Conflict]]] = {}
    for a, b in combinations(spoken, 2):
        pair = frozenset((a.hit.chunk.doc, b.hit.chunk.doc))
        if len(pair) == 2:
            found.setdefault(pair, []).extend(_between(a, b, asked))
    best = [sorted(each, key=lambda one: -one[0])[:SHOWN] for each in found.values()]
    return tuple(conflict for each in best for _, conflict in each)


class _Spoken:
    """A hit's sentences with what each claims, worked out once."""

    def __init__(self, n: int, hit: Hit) -> None:
        self.n, self.hit = n, hit
        self.title = alike(content_words(f"{hit.chunk.title} {hit.chunk.heading}"))
        self.all = self.title | alike(words(hit.chunk.text))
        self.sentences = [
            Statement(start, end, claim, alike(claim.words), particles(text))
            for start, end in sentence_spans(hit.chunk.text)
            for text in [hit.chunk.text[start:end]]
            for claim in [Claim.of(text)]
        ]

    def side(self, said: Statement) -> Side:
        chunk = self.hit.chunk
        exact = len(chunk.text) == chunk.end - chunk.start
        first = chunk.line_start + chunk.text.count("\n", 0, said.start) if exact else chunk.line_start
        last = first + chunk.text.count("\n", said.start, said.end) if exact else chunk.line_end
        quote = chunk.text[said.start : said.end]
        return Side(self.n, chunk.doc, chunk.title, self.hit.date, self.hit.valid_until, first, last, quote)


def _between(a: _Spoken, b: _Spoken, asked: frozenset[str]) -> Iterator[tuple[float, Conflict]]:
    """Yield the conflicts of two hits, each with the share of the question that both sentences hold."""
    beyond_a, beyond_b = b.title - a.all, a.title - b.all
    if (beyond_a | beyond_b) & asked:
        return  # the question tells the titles apart
    needed = ASKED_ELSEWHERE if beyond_a and beyond_b else ASKED
    for one in a.sentences:
        for other in b.sentences:
            about, twins = differs(one, other, a.title, b.title, asked)
            held = min(_share(asked, one.words | a.title), _share(asked, other.words | b.title))
            if about and (held >= needed or (twins and a.title == b.title)):
                yield held, Conflict(about, (a.side(one), b.side(other)), _newer(a, b))


def _newer(a: _Spoken, b: _Spoken) -> int | None:
    """Return the number of the hit with the later date; ISO dates compare as text."""
    first, second = a.hit.date, b.hit.date
    if not first[:4].isdigit() or not second[:4].isdigit() or first == second:
        return None
    return a.n if first > second else b.n


def _share(asked: frozenset[str], there: frozenset[str]) -> float:
    return len(asked & there) / len(asked) if asked else 0.0

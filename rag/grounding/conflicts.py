"""Sources that contradict each other: found among the passages of one answer, to be shown side by side.

Two sentences of different documents conflict when one says the same as the other, perhaps with a few words more, but
for a number, a date or a denial. The test is meant to be right when it speaks: where each has words that the other
lacks ("an adult single", "a child single"), or the question tells their titles apart, they are left alone.

Sentences compared with each other: whether two say the same of one thing, but for what they contradict.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from rag.grounding.claims import Claim
from rag.grounding.evidence import contains_opposite
from rag.text.dates import dates_within
from rag.text.words import content_words, sentence_spans, words
from rag.types import Hit, location

MIN_SHARED_WORDS = 2
"""Content words that both must hold, titles and numbers left out."""
MIN_SHARED_WORDS_UNNAMED = 3
"""Words that one may have beyond the other."""
_SAME = {
    word: words[0]
    for words in (
        ("cost", "pric", "charg", "fee", "fare", "pay", "paid"),
        ("open", "start", "begin"),
        ("clos", "end", "shut"),
        ("leav", "depart", "go"),
        ("allow", "permit", "welcom", "may"),
        ("euro", "eur"),
        ("pound", "gbp"),
        ("dollar", "usd"),
        ("maximum", "most", "max"),
        ("minimum", "least", "min"),
    )
    for word in words
}
"""Words that say the same of a price, a time or a permission."""
_PARTICLES = frozenset(
    ("out", "off", "up", "down", "before", "after", "over", "under", "above", "below", "until", "without")
)
"""Stop words that turn a statement into another one: check in, check out."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence of a passage as it is compared with others."""

    start: int
    end: int
    claim: Claim
    words: frozenset[str]
    """Content words, those that say the same as one."""
    particles: frozenset[str]


def with_synonyms(found: Iterable[str]) -> frozenset[str]:
    """Return words with those that say the same as one."""
    return frozenset(_SAME.get(word, word) for word in found)


def particles(text: str) -> frozenset[str]:
    """Return the particles of a text."""
    return _PARTICLES & set(words(text))


def contradiction(
    one: Statement, other: Statement, a: frozenset[str], b: frozenset[str], asked: frozenset[str]
) -> tuple[str, bool]:
    """Return what two sentences about the same thing differ in, "" when they do not or speak of different things.

    Also whether they are word for word the same otherwise. ``a`` and ``b`` are the words of their titles, ``asked``
    those of the question.
    """
    more, beyond = one.words - other.words - b, other.words - one.words - a
    shared = (one.words & other.words) - a - b
    first, second = one.claim, other.claim
    if (
        len(shared) < MIN_SHARED_WORDS
        or one.particles != other.particles
        or len(more | beyond) > MIN_SHARED_WORDS_UNNAMED
    ):
        return "", False
    if len(more) == len(beyond) == 1 and contains_opposite(more, beyond):
        return "denial", True
    if (more | beyond) & asked:
        return "", False
    if more and beyond:
        named = more <= first.names and beyond <= second.names and len(shared) > MIN_SHARED_WORDS and a == b
        return ("names", True) if named else ("", False)
    twins = not (more or beyond)
    if first.denies != second.denies:
        # Denying a narrower thing contradicts nothing.
        return ("", False) if (more if first.denies else beyond) else ("denial", twins)
    if contains_opposite(one.words, other.words) or contains_opposite(other.words, one.words):
        return "denial", twins
    if (
        first.dates
        and second.dates
        and not (dates_within(first.dates, second.dates) or dates_within(second.dates, first.dates))
    ):
        return "dates", twins
    apart = not (first.numbers <= second.numbers or second.numbers <= first.numbers)
    return ("numbers", twins) if first.numbers and second.numbers and apart else ("", False)


ASKED, ASKED_ELSEWHERE = 0.5, 0.8
"""Share of the question's content words that each must hold, with its title: under one title, and under two."""
MAX_CONFLICTS_SHOWN = 2
"""Conflicts of one pair of documents, the nearest to the question first."""


@dataclass(frozen=True, slots=True)
class ConflictSide:
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
    sides: tuple[ConflictSide, ConflictSide]
    """The better ranked first."""
    newer: int | None
    """Which of the two comes from the later document (its ``n``); None when that is not known."""

    def to_json(self) -> dict[str, Any]:
        """Return the conflict as ``ask --json`` prints it."""
        sides = [{name: getattr(side, name) for name in ConflictSide.__slots__} for side in self.sides]
        return {"about": self.about, "sides": sides, "newer": self.newer}


def find_conflicts(question: str, hits: Sequence[Hit]) -> tuple[Conflict, ...]:
    """Return the conflicts among the hits that bear on the question, at most two for each pair of documents."""
    asked = with_synonyms(content_words(question))
    spoken = [_Spoken(n, hit) for n, hit in enumerate(hits, start=1)]
    found: dict[frozenset[str], list[tuple[float, Conflict]]] = {}
    for a, b in combinations(spoken, 2):
        pair = frozenset((a.hit.chunk.doc, b.hit.chunk.doc))
        if len(pair) == 2:
            found.setdefault(pair, []).extend(_between(a, b, asked))
    best = [sorted(each, key=lambda one: -one[0])[:MAX_CONFLICTS_SHOWN] for each in found.values()]
    return tuple(conflict for each in best for _, conflict in each)


class _Spoken:
    """A hit's sentences with what each claims, worked out once."""

    def __init__(self, n: int, hit: Hit) -> None:
        self.n, self.hit = n, hit
        self.title = with_synonyms(content_words(f"{hit.chunk.title} {hit.chunk.heading}"))
        self.all = self.title | with_synonyms(words(hit.chunk.text))
        self.sentences = [
            Statement(start, end, claim, with_synonyms(claim.words), particles(text))
            for start, end in sentence_spans(hit.chunk.text)
            for text in [hit.chunk.text[start:end]]
            for claim in [Claim.of(text)]
        ]

    def side(self, said: Statement) -> ConflictSide:
        chunk = self.hit.chunk
        exact = len(chunk.text) == chunk.end - chunk.start
        first = chunk.line_start + chunk.text.count("\n", 0, said.start) if exact else chunk.line_start
        last = first + chunk.text.count("\n", said.start, said.end) if exact else chunk.line_end
        quote = chunk.text[said.start : said.end]
        return ConflictSide(
            self.n, chunk.doc, chunk.title, self.hit.date, self.hit.valid_until, first, last, quote
        )


def _between(a: _Spoken, b: _Spoken, asked: frozenset[str]) -> Iterator[tuple[float, Conflict]]:
    """Yield the conflicts of two hits, each with the share of the question that both sentences hold."""
    beyond_a, beyond_b = b.title - a.all, a.title - b.all
    if (beyond_a | beyond_b) & asked:
        return  # the question tells the titles apart
    needed = ASKED_ELSEWHERE if beyond_a and beyond_b else ASKED
    for one in a.sentences:
        for other in b.sentences:
            about, twins = contradiction(one, other, a.title, b.title, asked)
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

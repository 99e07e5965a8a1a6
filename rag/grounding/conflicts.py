"""Find contradictions between the sources of one answer, to be shown side by side.

:func:`find_conflicts` compares the sentences of all pairs of hits from different documents, :func:`contradiction` two
sentences. They conflict if one says the same as the other, perhaps with a few words more, except for a number, a date
or a negation. Precision is preferred to recall: if each sentence has words that the other lacks ("an adult single", "a
child single"), or if the question distinguishes their titles, no conflict is reported.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from rag.quantities.comparing import are_among
from rag.sentences.claims import Claim
from rag.text.dates import dates_within
from rag.text.words import content_words, sentence_spans, words
from rag.types import Hit, location

MIN_SHARED_WORDS = 2
"""Content words that both sentences must contain, without those of titles and without numbers."""
MAX_EXTRA_WORDS = 3
"""Words that the sentences may have beyond each other."""
_SYNONYMS = {
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
"""Stems that mean the same about a price, a time or a permission, each with the one that stands for all."""
_OPPOSITES = (
    ("open", "clos"),
    ("before", "after"),
    ("arriv", "depart"),
    ("inside", "outside"),
    ("rise", "fall"),
    ("first", "last"),
    ("cheap", "expensive"),
    ("allow", "forbid"),
    ("allow", "ban"),
    ("summer", "winter"),
)
"""Stems of words that reverse a statement without a "not"."""
_PARTICLES = frozenset(
    ("out", "off", "up", "down", "before", "after", "over", "under", "above", "below", "until", "without")
)
"""Stop words that make a different statement: check in, check out."""
MIN_ASKED_SAME_TITLE = 0.5
"""Share of the question's content words that each sentence must contain, with its title, if the titles do not differ."""
MIN_ASKED_OTHER_TITLE = 0.8
"""The same share if each title has words that the other document lacks."""
MAX_CONFLICTS_SHOWN = 2
"""Conflicts of one pair of documents, the nearest to the question first."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence of a passage in the form in which sentences are compared."""

    start: int
    end: int
    claim: Claim
    words: frozenset[str]
    """Content words, synonyms as one word."""
    particles: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConflictSide:
    """One of two sentences that contradict each other, with its place."""

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
    """Two sentences of different documents that cannot both be true."""

    about: str
    """numbers, dates, names or denial."""
    sides: tuple[ConflictSide, ConflictSide]
    """The side of the better ranked hit first."""
    newer: int | None
    """The ``n`` of the side whose document is dated later; None if that is unknown."""

    def to_json(self) -> dict[str, Any]:
        """Return the conflict as ``ask --json`` prints it."""
        sides = [{name: getattr(side, name) for name in ConflictSide.__slots__} for side in self.sides]
        return {"about": self.about, "sides": sides, "newer": self.newer}


def with_synonyms(stems: Iterable[str]) -> frozenset[str]:
    """Return stemmed words with synonyms replaced by one word."""
    return frozenset(_SYNONYMS.get(word, word) for word in stems)


def particles(text: str) -> frozenset[str]:
    """Return the particles of a text, see ``_PARTICLES``."""
    return _PARTICLES & set(words(text))


def contradiction(
    one: Statement, other: Statement, a: frozenset[str], b: frozenset[str], asked: frozenset[str]
) -> tuple[str, bool]:
    """Return how two sentences of different documents contradict each other.

    Args:
        one: a sentence.
        other: a sentence of another document.
        a: words of the title and heading of ``one``.
        b: words of the title and heading of ``other``.
        asked: words of the question.

    Returns:
        numbers, dates, names or denial, or "" if they agree or are about different things; and whether they are
        otherwise the same word for word.
    """
    only_one = one.words - other.words - b
    only_other = other.words - one.words - a
    shared = (one.words & other.words) - a - b
    first = one.claim
    second = other.claim
    if (
        len(shared) < MIN_SHARED_WORDS
        or one.particles != other.particles
        or len(only_one | only_other) > MAX_EXTRA_WORDS
    ):
        return "", False
    if len(only_one) == len(only_other) == 1 and contains_opposite(only_one, only_other):
        return "denial", True
    if (only_one | only_other) & asked:
        return "", False
    if only_one and only_other:
        are_names = (
            only_one <= first.names
            and only_other <= second.names
            and len(shared) > MIN_SHARED_WORDS
            and a == b
        )
        return ("names", True) if are_names else ("", False)
    same_words = not (only_one or only_other)
    if first.denies != second.denies:
        # "no dogs in the lounge" does not contradict "dogs are allowed": the negated sentence is the narrower one
        return ("", False) if (only_one if first.denies else only_other) else ("denial", same_words)
    if contains_opposite(one.words, other.words) or contains_opposite(other.words, one.words):
        return "denial", same_words
    if (
        first.dates
        and second.dates
        and not (dates_within(first.dates, second.dates) or dates_within(second.dates, first.dates))
    ):
        return "dates", same_words
    if first.labels != second.labels or not (first.quantities and second.quantities):
        return "", False  # "line 4" and "line 12" are two things
    same = are_among(first.quantities, second.quantities) or are_among(second.quantities, first.quantities)
    return ("", False) if same else ("numbers", same_words)


def contains_opposite(claim: Collection[str], sentence: Collection[str]) -> bool:
    """Return whether ``sentence`` contains the opposite of a word of ``claim``, and not the word itself."""
    pairs = (*_OPPOSITES, *((b, a) for a, b in _OPPOSITES))
    return any(a in claim and a not in sentence and b in sentence for a, b in pairs)


def find_conflicts(question: str, hits: Sequence[Hit]) -> tuple[Conflict, ...]:
    """Return the conflicts among the hits that matter for the question, at most two for each pair of documents."""
    asked = with_synonyms(content_words(question))
    passages = [_ComparedHit(n, hit) for n, hit in enumerate(hits, start=1)]
    by_pair: dict[frozenset[str], list[tuple[float, Conflict]]] = {}
    for a, b in combinations(passages, 2):
        pair = frozenset((a.hit.chunk.doc, b.hit.chunk.doc))
        if len(pair) == 2:
            by_pair.setdefault(pair, []).extend(_between(a, b, asked))
    best = [
        sorted(conflicts, key=lambda scored: -scored[0])[:MAX_CONFLICTS_SHOWN]
        for conflicts in by_pair.values()
    ]
    return tuple(conflict for conflicts in best for _, conflict in conflicts)


class _ComparedHit:
    """A hit with the claims of its sentences, computed once."""

    def __init__(self, n: int, hit: Hit) -> None:
        self.n = n
        self.hit = hit
        self.title = with_synonyms(content_words(f"{hit.chunk.title} {hit.chunk.heading}"))
        self.words = self.title | with_synonyms(words(hit.chunk.text))
        self.sentences = [
            Statement(start, end, claim, with_synonyms(claim.words), particles(text))
            for start, end in sentence_spans(hit.chunk.text)
            for text in [hit.chunk.text[start:end]]
            for claim in [Claim.of(text)]
        ]

    def side(self, statement: Statement) -> ConflictSide:
        chunk = self.hit.chunk
        exact = len(chunk.text) == chunk.end - chunk.start
        first = chunk.line_start + chunk.text.count("\n", 0, statement.start) if exact else chunk.line_start
        last = first + chunk.text.count("\n", statement.start, statement.end) if exact else chunk.line_end
        quote = chunk.text[statement.start : statement.end]
        return ConflictSide(
            n=self.n,
            doc=chunk.doc,
            title=chunk.title,
            date=self.hit.date,
            valid_until=self.hit.valid_until,
            line_start=first,
            line_end=last,
            quote=quote,
        )


def _between(a: _ComparedHit, b: _ComparedHit, asked: frozenset[str]) -> Iterator[tuple[float, Conflict]]:
    """Yield the conflicts of two hits, each with the share of the question's words that both sentences contain."""
    only_in_b_title = b.title - a.words
    only_in_a_title = a.title - b.words
    if (only_in_b_title | only_in_a_title) & asked:
        return  # the question asks about one of the titles
    needed = MIN_ASKED_OTHER_TITLE if only_in_b_title and only_in_a_title else MIN_ASKED_SAME_TITLE
    for one in a.sentences:
        for other in b.sentences:
            about, same_words = contradiction(one, other, a.title, b.title, asked)
            coverage = min(_share(asked, one.words | a.title), _share(asked, other.words | b.title))
            if about and (coverage >= needed or (same_words and a.title == b.title)):
                yield coverage, Conflict(about, (a.side(one), b.side(other)), _newer(a, b))


def _newer(a: _ComparedHit, b: _ComparedHit) -> int | None:
    """Return the number of the hit with the later date; ISO dates compare as text."""
    first = a.hit.date
    second = b.hit.date
    if not first[:4].isdigit() or not second[:4].isdigit() or first == second:
        return None
    return a.n if first > second else b.n


def _share(asked: frozenset[str], present: frozenset[str]) -> float:
    return len(asked & present) / len(asked) if asked else 0.0

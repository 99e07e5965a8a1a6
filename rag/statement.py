"""Sentences compared with each other: whether two say the same of one thing, but for what they contradict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rag.claim import Claim
from rag.dates import within
from rag.evidence import opposed
from rag.words import words

LEAST = 2
"""Content words that both must hold, titles and numbers left out."""
MORE = 3
"""Words that one may have beyond the other."""
_SAME = {
    word: words[0]
    for words in (
        ("cost", "pric", "charg", "fee", "fare", "pay", "paid"), ("open", "start", "begin"), ("clos", "end", "shut"),
        ("leav", "depart", "go"), ("allow", "permit", "welcom", "may"), ("euro", "eur"), ("pound", "gbp"),
        ("dollar", "usd"), ("maximum", "most", "max"), ("minimum", "least", "min"),
    )
    for word in words
}  # fmt: skip
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


def alike(found: Iterable[str]) -> frozenset[str]:
    """Return words with those that say the same as one."""
    return frozenset(_SAME.get(word, word) for word in found)


def particles(text: str) -> frozenset[str]:
    """Return the particles of a text."""
    return _PARTICLES & set(words(text))


def differs(
    one: Statement, other: Statement, a: frozenset[str], b: frozenset[str], asked: frozenset[str]
) -> tuple[str, bool]:
    """Return what two sentences about the same thing differ in, "" when they do not or speak of different things.

    Also whether they are word for word the same otherwise. ``a`` and ``b`` are the words of their titles, ``asked``
    those of the question.
    """
    more, beyond = one.words - other.words - b, other.words - one.words - a
    shared = (one.words & other.words) - a - b
    first, second = one.claim, other.claim
    if len(shared) < LEAST or one.particles != other.particles or len(more | beyond) > MORE:
        return "", False
    if len(more) == len(beyond) == 1 and opposed(more, beyond):
        return "denial", True
    if (more | beyond) & asked:
        return "", False
    if more and beyond:
        named = more <= first.names and beyond <= second.names and len(shared) > LEAST and a == b
        return ("names", True) if named else ("", False)
    twins = not (more or beyond)
    if first.denies != second.denies:
        # Denying a narrower thing contradicts nothing.
        return ("", False) if (more if first.denies else beyond) else ("denial", twins)
    if opposed(one.words, other.words) or opposed(other.words, one.words):
        return "denial", twins
    if (
        first.dates
        and second.dates
        and not (within(first.dates, second.dates) or within(second.dates, first.dates))
    ):
        return "dates", twins
    apart = not (first.numbers <= second.numbers or second.numbers <= first.numbers)
    return ("numbers", twins) if first.numbers and second.numbers and apart else ("", False)

"""A sentence of a passage with what it must be read with, and which of its clauses has given words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rag.quantities.comparing import Quantity, agree
from rag.quantities.units import UNITS
from rag.sentences import lexicon
from rag.sentences.clauses import (
    Clause,
    is_covered,
)
from rag.sentences.lexicon import FILLERS
from rag.sentences.statements import ParsedStatement


@dataclass(frozen=True, slots=True)
class Source:
    """One sentence of a passage with what it must be read with."""

    statement: ParsedStatement
    before: tuple[ParsedStatement, ...]
    """The sentences before it, where it begins with a pronoun, the nearest first."""
    above: ParsedStatement
    """Title and heading."""
    elsewhere: frozenset[str]
    """All words of the passage."""
    window: frozenset[str]
    """Words of the sentence, of those before it, and of title and heading."""
    previous: tuple[Quantity, ...] = ()
    """Years of the sentence before it, from which "two years later" counts."""
    beside: frozenset[str] = frozenset()
    """Words of the sentence before it and of the one after it."""

    @property
    def subject(self) -> tuple[str, ...]:
        """The content words of its subject; of the sentence before, where it begins with a pronoun."""
        return self.before[-1].leading if self.before else self.statement.leading

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """The quantities of the sentence, of those before it, and of title and heading."""
        return sum((other.quantities for other in (self.statement, *self.before, self.above)), ())

    @property
    def clauses(self) -> Iterator[Clause]:
        """The clauses of the sentence, then those before it."""
        for statement in (self.statement, *self.before):
            yield from statement.clauses


def checked_words(content: frozenset[str], source: Source, counted: bool) -> list[str]:
    """Return the content words that are in the sentence, and neither in those before it or above it nor fillers.

    Units neither, where something is counted: "17 euros an hour".
    """
    before = source.above.words.union(*(other.words for other in source.before))
    plain = [word for word in content if word not in FILLERS and not (counted and word in UNITS)]
    own = source.statement.words
    return [
        word
        for word in plain
        if not is_covered(word, before) and (is_covered(word, own) or has_opposite(word, own))
    ]


def fits(clause: Clause, words: Sequence[str], part: Clause, source: Source) -> bool:
    """Return whether one clause of the sentence has these words, or their opposites, and the claim's quantities."""
    whole = part.words | part.subject | part.context
    quantities = source.statement.quantities
    return all(is_covered(word, whole) or has_opposite(word, whole) for word in words) and all(
        any(agree(q, other) and f"#{n}" in whole for n, other in enumerate(quantities))
        for q in clause.quantities
        if any(agree(q, other) for other in quantities)
    )


def missing_words(content: frozenset[str], source: Source) -> frozenset[str]:
    """Return the content words of which the sentence has neither themselves, nor one of the same meaning or the opposite."""
    return frozenset(
        word
        for word in content
        if not is_covered(word, source.window) and not has_opposite(word, source.window)
    )


def has_opposite(word: str, words: frozenset[str]) -> bool:
    """Return whether the opposite of a stem is among words."""
    return any(lexicon.are_opposite(word, other) for other in words)

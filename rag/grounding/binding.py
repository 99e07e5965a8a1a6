"""Whether a source says a quantity of the same thing as a claim, and no other quantity of it is nearer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rag.grounding.source import Source, checked_words, fits
from rag.quantities.comparing import BY, FROM, Quantity, agree, ends_of_range, same_unit
from rag.quantities.derived import is_derived
from rag.sentences.clauses import (
    Clause,
    is_covered,
)
from rag.sentences.lexicon import RELATIONS
from rag.sentences.statements import ParsedStatement
from rag.text.words import stem

_NEIGHBOURS = 3
"""Words on each side of a quantity that are compared."""
_MAX_GAP = 6
"""Characters between a quantity and the word for what is counted: "10 of the rooms"."""
_FORMERLY = frozenset(map(stem, ("formerly", "previously", "initially", "originally")))


def quantities_agree(clause: Clause, content: frozenset[str], claim: ParsedStatement, source: Source) -> bool:
    """Return whether the source says each quantity of a clause of the same thing."""
    formerly = not _FORMERLY.isdisjoint(clause.words)
    for quantity in clause.quantities:
        if any(agree(quantity, other) for other in source.above.quantities):
            continue
        if quantity.is_year and any(q.year == quantity.value for q in clause.quantities):
            continue  # compared with the amount of that year
        if _is_article(quantity, source):
            continue
        if formerly and not quantity.change:
            quantity = replace(quantity, change=FROM)
        places = [own for own in source.clauses if any(agree(quantity, other) for other in own.quantities)]
        if (
            quantity.is_year
            and _has_later(source.statement.quantities)
            and not any(agree(quantity, other) for other in source.statement.quantities)
        ):
            places = []  # the year of another sentence, from which this one counts on
        is_said = any(_is_bound(quantity, clause, content, own, claim, source) for own in places)
        if not is_said and not is_derived(quantity, clause.words, (*source.quantities, *source.previous)):
            return False
    return True


def _is_article(quantity: Quantity, source: Source) -> bool:
    """Return whether a "one" stands for "a": the source has what is counted and no number of it."""
    return (
        quantity.value == "1"
        and bool(quantity.counted)
        and not quantity.bound
        and quantity.counted not in (other.counted for other in source.quantities)
    )


def _has_later(quantities: Sequence[Quantity]) -> bool:
    return any(q.kind == "duration" and q.counted in ("later", "earlier") for q in quantities)


def _is_bound(
    quantity: Quantity,
    clause: Clause,
    content: frozenset[str],
    own: Clause,
    claim: ParsedStatement,
    source: Source,
) -> bool:
    """Return whether no other quantity of the source is nearer to what the claim says of this one.

    Compared are the words beside it, and those of the clause, unless the claim repeats all of the clause.
    """
    beside = _beside(clause, quantity)
    same = [other for other in own.quantities if agree(quantity, other)]
    if any(quantity.year and quantity.year == other.year for other in same):
        return True
    if any(_is_placed(quantity, other) for other in same) and not any(
        _is_placed(quantity, rival) and not agree(quantity, rival) for rival in source.statement.quantities
    ):
        return True
    here = max(_shared(beside, _beside(own, other)) for other in own.quantities if agree(quantity, other))
    words = own.words | own.subject
    whole = all(is_covered(word, claim.words) for word in own.content)
    around = sum(is_covered(word, words) for word in content)
    checked = checked_words(content, source, bool(clause.quantities))
    fitting = fits(clause, checked, own, source)
    rest = replace(clause, quantities=())
    for rival_clause in source.clauses:
        if fitting and rival_clause is not own and not fits(rest, checked, rival_clause, source):
            continue
        for rival in rival_clause.quantities:
            if rival.value == quantity.value and same_unit(quantity, rival):
                continue
            if ends_of_range(quantity, rival):
                continue
            if rival.change in (BY, FROM) and quantity.change != rival.change:
                continue
            if rival.counted and any(
                agree(q, rival) and q.counted == rival.counted for q in clause.quantities
            ):
                continue
            if rival.timed != quantity.timed or (
                quantity.unit and quantity.unit != rival.unit and rival.value != quantity.value
            ):
                continue
            if any(agree(q, rival) for q in clause.quantities) and _same_order(
                quantity, rival, clause, rival_clause
            ):
                continue
            if _names_other(quantity, rival, clause, own, rival_clause):
                return False
            there = _shared(beside, _beside(rival_clause, rival))
            rival_words = rival_clause.words | rival_clause.subject
            rival_around = sum(is_covered(word, rival_words) for word in content)
            if there > here and rival_around >= around:
                return False
            rival_whole = all(is_covered(word, claim.words) for word in rival_clause.content)
            if not whole and rival_clause is not own and rival_around >= around + (not rival_whole):
                return False
    return True


def _is_placed(quantity: Quantity, other: Quantity) -> bool:
    """Return whether two quantities are for each of the same thing, or count the same."""
    return not quantity.per.isdisjoint(other.per) or bool(
        quantity.counted and quantity.counted == other.counted
    )


def _names_other(quantity: Quantity, rival: Quantity, clause: Clause, own: Clause, other: Clause) -> bool:
    """Return whether what is counted by a claimed quantity is what the source counts by a rival, and not by the same one."""
    counted = _after(clause, quantity)
    same = {_after(own, q) for q in own.quantities if agree(quantity, q)}
    return bool(counted) and counted not in same and counted == _after(other, rival)


def _after(clause: Clause, quantity: Quantity) -> str:
    """Return the content word right after a quantity."""
    token = next((token for token in clause.tokens if token.start >= quantity.end and token.content), None)
    return token.key if token and token.start <= quantity.through + _MAX_GAP else ""


def _same_order(quantity: Quantity, rival: Quantity, clause: Clause, own: Clause) -> bool:
    """Return whether two quantities that are both claimed stand in the source's order."""
    other = next(q for q in clause.quantities if agree(q, rival))
    same = next((q for q in own.quantities if agree(quantity, q)), None)
    return same is None or (quantity.start < other.start) == (same.start < rival.start)


def _beside(clause: Clause, quantity: Quantity) -> frozenset[str]:
    """Return the content and relation words next to a quantity."""
    words = [
        token for token in clause.tokens if token.content or token.key in RELATIONS or token.key[0] == "#"
    ]
    at = next((n for n, token in enumerate(words) if token.start == quantity.start), None)
    if at is None:
        return frozenset()
    near = words[max(0, at - _NEIGHBOURS) : at] + words[at + 1 : at + 1 + _NEIGHBOURS]
    return frozenset(token.key for token in near if token.key[0] != "#")


def _shared(one: frozenset[str], other: frozenset[str]) -> int:
    return sum(is_covered(word, other) for word in one)

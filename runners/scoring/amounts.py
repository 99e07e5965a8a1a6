"""Whether an answer has the amounts of a fact: in the same or another unit, for the same, and of the thing asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from rag.quantities.comparing import ENDS, STARTS, Quantity, same_amount, same_unit, unbounded
from rag.quantities.reading import read_quantities
from rag.quantities.units import PERIODS, dimension_of
from runners.scoring.statements import content_tokens, shared_tokens

_TIMES_FOR = PERIODS | {"season", "term", "semester", "weekend", "lesson", "session", "evening", "visit"}
_PEOPLE_FOR = frozenset(
    ("person", "adult", "child", "guest", "group", "family", "famili", "couple", "coupl", "student")
)
_CLAUSE = re.compile(r"[;:]\s|,\s|\.\s|\b(?:and|but|while|plus|whereas)\b")
_SENTENCE = re.compile(r"(?<=[.;!])\s")
_WHOLE = re.compile(
    r"\b(?:in total|in all|altogether|overall|however many|no matter how many|for the whole)\b", re.I
)
_THERE_IS_NONE = re.compile(
    r"\b(?:there (?:is|are)|there['’]s|(?:we|you) (?:have|charge|set|need)) no (?P<thing>\w+(?: \w+){0,2})"
    r"(?=[;,.:!]|\s*$| and\b| but\b)",
    re.I,
)
_PARTS_ASKED = re.compile(r"\band\b|[,;?]", re.I)


@lru_cache(maxsize=16384)
def amounts_of(text: str) -> tuple[Quantity, ...]:
    """Return the amounts and bare numbers of a text, without its times and dates."""
    return tuple(q for q in read_quantities(text) if not q.timed)


def is_equal(wanted: Quantity, given: Quantity) -> bool:
    """Return whether a given amount is a wanted one, also in another unit; for each hour is not for each day."""
    if (
        given.bound in (STARTS, ENDS)
        and not given.unit
        and wanted.unit
        and wanted.bound not in (STARTS, ENDS)
    ):
        return False  # "open from 10 to 4" is not 10 days
    for kind in (_TIMES_FOR, _PEOPLE_FOR):
        ours, theirs = wanted.per & kind, given.per & kind
        if ours and theirs and ours.isdisjoint(theirs):
            return False
    if {wanted.unit, given.unit} in ({"degree", "celsius"}, {"degree", "fahrenheit"}):
        return wanted.value == given.value
    return same_unit(wanted, given) and same_amount(unbounded(wanted), unbounded(given))


def has_equal(number: str, wanted: Sequence[Quantity], given: Sequence[Quantity]) -> bool:
    """Return whether a wanted amount of this number is among given ones, in whatever unit."""
    return any(q.value == number and is_equal(q, other) for q in wanted for other in given)


def counts_something_else(number: str, known: Sequence[Quantity], given: Sequence[Quantity]) -> bool:
    """Return whether an answer has the number of known amounts, but with a unit that none of them has."""
    ours = [q for q in known if q.value == number and (q.unit or q.counted)]
    theirs = [q for q in given if q.value == number]
    return bool(ours and theirs) and not any(is_equal(q, other) for q in ours for other in given)


def is_no_time(number: str, given: Sequence[Quantity]) -> bool:
    """Return whether an answer has the hour of a time only as the number of something: "7 degrees" for 19:00."""
    hours = {str(int(number[:2])), str(int(number[:2]) % 12)} if number.endswith(":00") else set()
    same = [q for q in given if q.value in hours]
    return bool(same) and all(q.unit or q.counted for q in same)


def is_measured(number: str, given: Sequence[Quantity]) -> bool:
    """Return whether a text has a number only with a unit: 12 hours."""
    same = [q for q in given if q.value == number]
    return bool(same) and all(q.unit for q in same)


def is_of_the_whole(wanted: Sequence[Quantity], given: str) -> bool:
    """Return whether an answer has an amount for all together that the fact has for each: "40 in total" for "40 a boat"."""
    each = [q for q in wanted if q.per and not q.per & _TIMES_FOR]
    clauses = [clause for clause in _SENTENCE.split(given) if _WHOLE.search(clause)]
    return any(
        q.value == other.value and not other.per
        for clause in clauses
        for q in each
        for other in amounts_of(clause)
    )


def denies_the_thing(asked: Sequence[str], sentences: Sequence[str], language: str) -> bool:
    """Return whether a sentence says that there is none of what is asked for: "There is no minimum order; ..."."""
    things = [match["thing"] for sentence in sentences for match in _THERE_IS_NONE.finditer(sentence)]
    return any(shared_tokens(asked, content_tokens(thing, language)) for thing in things)


def is_of_another(
    wanted: Sequence[Quantity],
    known: Sequence[Quantity],
    asked: Sequence[str],
    sentences: Sequence[str],
    language: str,
) -> bool:
    """Return whether the clause that is nearest to the question has another amount of the fact's kind.

    "Spare parts have a guarantee of 24 months. For repairs it is 12 months", asked for repairs, is not 24 months.
    """
    measured = [q for q in wanted if q.unit]
    near: dict[bool, int] = {}
    clauses = [clause for sentence in sentences for clause in _CLAUSE.split(sentence)]
    for at, clause in enumerate(clauses):
        here = [q for q in amounts_of(clause) if not q.counted]
        alike = [q for q in here if any(_one_kind(q, other) or not q.unit for other in measured)]
        if alike and (_any_equal(measured, alike) or not _any_equal(known, alike)):
            stated = any(is_equal(q, other) for q in measured for other in alike)
            tokens = content_tokens(clause, language)
            # An amount alone in front is the reply itself: "4 hours. A full day is 8."
            share = len(asked) if at == 0 and len(tokens) <= 1 else len(shared_tokens(asked, tokens))
            near[stated] = max(near.get(stated, 0), share)
    return True in near and near.get(False, 0) > near[True]


def are_swapped(parts: Sequence[str], question: str, sentences: Sequence[str], language: str) -> bool:
    """Return whether an answer gives the amount of one part for another: 40 an hour and 12 as deposit for the reverse."""
    amounts = [read_quantities(part) for part in parts]
    words = _words_of_parts(parts, question, language)
    for clause in (clause for sentence in sentences for clause in _CLAUSE.split(sentence)):
        tokens = content_tokens(clause, language)
        meant = [n for n in range(len(parts)) if shared_tokens(words[n], tokens)]
        if len(meant) != 1:
            continue
        here = read_quantities(clause)
        own = [q for q in here if any(_one_kind(q, other) for other in amounts[meant[0]])]
        others = [q for n, each in enumerate(amounts) if n != meant[0] for q in each]
        if own and not _any_equal(amounts[meant[0]], own) and _any_equal(others, own):
            return True
    return False


def _any_equal(wanted: Sequence[Quantity], given: Sequence[Quantity]) -> bool:
    return any(is_equal(q, other) for q in wanted for other in given if _one_kind(q, other))


def _one_kind(one: Quantity, other: Quantity) -> bool:
    return one.timed == other.timed and dimension_of(one.unit) == dimension_of(other.unit)


def _words_of_parts(parts: Sequence[str], question: str, language: str) -> list[set[str]]:
    """Return the words that tell each part from the others: its own, and those of its half of the question."""
    own = [set(content_tokens(part, language)) | set(_per_words(part)) for part in parts]
    asked = [
        set(tokens) for piece in _PARTS_ASKED.split(question) if (tokens := content_tokens(piece, language))
    ]
    if len(asked) == len(parts):
        own = [mine | half for mine, half in zip(own, asked, strict=True)]
    return [
        mine - set().union(*(other for m, other in enumerate(own) if m != n)) for n, mine in enumerate(own)
    ]


def _per_words(part: str) -> Iterator[str]:
    for quantity in read_quantities(part):
        yield from quantity.per

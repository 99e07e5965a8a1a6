"""The quantities of a text: each number, amount, time and date with its unit, its bound and what it is per."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise

from rag.quantities.bounds import CONTEXT, bound_of, change_of, inner_bound
from rag.quantities.comparing import (
    DOWN,
    ENDS,
    FROM,
    LESS,
    MORE,
    OF,
    STARTS,
    TO,
    UP,
    YEAR,
    Quantity,
    are_among,
    unbounded,
)
from rag.quantities.labels import without_labels
from rag.quantities.phrases import _FRACTION, _FREQUENCY, _PART_OF_UNIT, _SPOKEN_TIME, _fraction, _spoken_time
from rag.quantities.units import MONEY, PERIODS, PHRASES, UNITS, dimension_of, size_of
from rag.quantities.years import with_years
from rag.text.dates import Date, find_dates
from rag.text.numbers import NUMBER_WORDS, find_numbers
from rag.text.words import STOP_WORDS, stem

_BETWEEN = re.compile(r"\b(?:between|zwischen|entre)\s*[$£€¥]?\s*$", re.I)
_TO_BETWEEN = re.compile(r"\s*(?:-|–|—|to|until|till|bis|a|hasta)\s*[$£€¥]?\s*", re.I)
_AND = re.compile(r"\s*(?:and|und|y)\s*[$£€¥]?\s*", re.I)
_WORD_AFTER = re.compile(
    r"\s*-?\s*(?:(?:more|additional|extra|further|full|whole|consecutive|working|business|calendar|long|short|US) )?"
    r"([^\W\d_][\w'’/²³]*|[%°″¢€$£](?:[CF]\b)?)"
)
_PHRASE_AFTER = re.compile(
    r"\s*-?\s*(" + "|".join(sorted(map(re.escape, PHRASES), key=len, reverse=True)) + r")s?\b", re.I
)
_CURRENCY = re.compile(r"([$£€¥₹]|\b(?:USD|EUR|GBP|JPY|CHF))\s*$")
_SMALL_UNITS = frozenset(("s", "h", "d", "m", "g", "l", "b", "t", "v", "w", "p", "in", "min"))
"""Abbreviations that are also words or letters: units only right after digits."""
_NOT_COUNTED = frozenset(
    [
        "last",
        "next",
        "ago",
        "later",
        "earlier",
        "old",
        "high",
        "wide",
        "deep",
        "long",
        "tall",
        "thick",
        "away",
        "each",
        "daily",
        "weekly",
        "monthly",
        "yearly",
        "extra",
        "fewer",
        "less",
        "compared",
        "respectively",
        "altogether",
        "total",
        "within",
    ]
)
_PER = re.compile(
    r"\s*(?:(?:each|in total) )?(?:/\s*|(?:(?:for|in|on) )?(?:per|each|every|a|an|pro|por|je)\s+)(?P<of>[^\W\d_]+)"
    r"|\s*(?P<ly>daily|hourly|weekly|monthly|yearly|annually|nightly)\b|\s*(?P<head>each|apiece|a head)\b",
    re.I,
)
_NO_PER = frozenset(
    (
        *NUMBER_WORDS,
        "hundred",
        "thousand",
        "total",
        "minimum",
        "maximum",
        "few",
        "half",
        "quarter",
        "further",
        "year's",
        "day's",
    )
)
_PER_BEFORE = re.compile(
    r"\b(daily|hourly|weekly|monthly|yearly|annual|nightly)\s+(?:[a-z]+\s+){1,2}?(?:of|is|was|are)\s+[$£€]?$",
    re.I,
)
_AND_PER = re.compile(r"\s+and\s+(?P<of>[^\W\d_]+)", re.I)
_PER_WORDS = {
    "daily": "day",
    "hourly": "hour",
    "weekly": "week",
    "monthly": "month",
    "yearly": "year",
    "annually": "year",
    "annum": "year",
    "annual": "year",
    "nightly": "night",
}
_BEFORE_YEAR = re.compile(r"\b(?:in|since|during|until|before|after|year|early|late|mid)\s+$", re.I)
_TIME_WORD = re.compile(r"\b(?:after|since|following|before|prior to)\s*[$£€]?\s*(?:only |just )?$", re.I)
_THAN_THE = re.compile(r"\bthan the\s*[$£€]?\s*$", re.I)
_CASE = re.compile(
    r"(?:\b(?:child|boy|girl|person|rider|member|student|pupil|guest|visitor|passenger|group|party|someone"
    r"|anyone|family) of|\baged) #"
    r"|#-years?-old|# years? old|(?:^|\s)#-person|#-strong",
    re.I,
)
_POINT_TIME = re.compile(r"(?:[01]?\d|2[0-4])[.][0-5]\d")
_BEFORE_TIME = re.compile(
    r"(?:\b(?:at|from|until|till|to|by|before|after|between|and|is|closes|opens)|\d\.\d\d\s*[–-])\s*$", re.I
)
_JOINED_DURATION = re.compile(r"\s*(?:and|,)?\s*", re.I)


def read_quantities(text: str) -> tuple[Quantity, ...]:
    """Return the quantities of a text in their order."""
    places: list[tuple[str, Date | None, int, int]] = []
    plain = text
    for date, start, end in find_dates(text):
        places.append(("", date, start, end))
        # an equally long gap, so that the offsets of the other numbers stay
        plain = plain[:start] + " " * (end - start) + plain[end:]
    whole: list[Quantity] = []
    for pattern in (_SPOKEN_TIME, _PART_OF_UNIT, _FRACTION, _FREQUENCY):
        for match in pattern.finditer(plain):
            quantity = _spoken_time(match) if pattern is _SPOKEN_TIME else _fraction(match)
            if quantity is not None:
                whole.append(quantity)
                plain = (
                    plain[: quantity.start]
                    + " " * (quantity.through - quantity.start)
                    + plain[quantity.through :]
                )
    places += [(value, None, start, end) for value, start, end in find_numbers(plain)]
    places = without_labels(text, sorted(places, key=lambda place: place[2:]))
    quantities = [
        _quantity(text, value, date, start, end, places[n - 1][3] if n else 0)
        for n, (value, date, start, end) in enumerate(places)
    ]
    quantities = sorted([*quantities, *whole], key=lambda q: (q.start, q.end))
    quantities = _joined_durations(text, quantities)
    quantities = [
        _in_context(text, q, quantities[n - 1].through if n else 0) for n, q in enumerate(quantities)
    ]
    for n, (one, other) in enumerate(pairwise(quantities)):
        one = quantities[n]
        alike = one.timed == other.timed or ":" in one.value + other.value
        if (
            alike
            and not one.change
            and not other.change
            and _TO_BETWEEN.fullmatch(text[one.through : other.start])
        ):
            quantities[n] = replace(one, bound=one.bound or STARTS, unit=one.unit or other.unit)
            quantities[n + 1] = replace(other, bound=ENDS)
        if _BETWEEN.search(text[: one.start]) and _AND.fullmatch(text[one.through : other.start]):
            quantities[n] = replace(one, bound=STARTS if one.timed else UP, unit=one.unit or other.unit)
            quantities[n + 1] = replace(other, bound=ENDS if other.timed else DOWN)
    for n, (one, other) in enumerate(pairwise(quantities)):
        if one.change == FROM and other.change == TO and not one.unit:
            quantities[n] = replace(one, unit=other.unit)
    return with_years(text, quantities)


def _quantity(text: str, value: str, date: Date | None, start: int, end: int, previous: int) -> Quantity:
    before, after = text[max(previous, start - 40) : start], text[end : end + 40]
    unit, through, timed = "", end, date is not None or ":" in value
    if (
        not timed
        and _POINT_TIME.fullmatch(text[start:end])
        and _BEFORE_TIME.search(text[max(0, start - CONTEXT) : start])
    ):
        word = _WORD_AFTER.match(after)
        if not word or (UNITS.get(word[1].lower(), "") == "" and not _PHRASE_AFTER.match(after)):
            hour, _, minute = text[start:end].partition(".")
            value, timed = f"{int(hour) % 24:02d}:{minute}", True
    if not timed:
        unit, length = _unit(before, after, text[start:end])
        through += length
    counted = ""
    year = YEAR.fullmatch(text[start:end]) and _BEFORE_YEAR.search(text[max(0, start - CONTEXT) : start])
    if not unit and not timed and not year and (word := _WORD_AFTER.match(after)) and after[:1].isspace():
        form = word[1].lower()
        plain = (
            form.isalpha() and form not in STOP_WORDS and (word[1].islower() or text[:start].strip() == "")
        )
        counted = (
            stem(form) if plain and form not in _NOT_COUNTED and after[: word.start(1)].isspace() else ""
        )
    return Quantity(
        value=value, date=date, unit=unit, bound="", counted=counted, start=start, end=end, through=through
    )


def _in_context(text: str, quantity: Quantity, previous: int) -> Quantity:
    """Return a quantity with its bound, its part in a change, and what it is per."""
    start, end, timed = quantity.start, quantity.end, quantity.timed
    before, after = text[max(previous, start - 40) : start], text[end : end + 40]
    bound = bound_of(before, after, text[quantity.through : quantity.through + 30], timed)
    change = ""
    if not timed:
        change = change_of(text, quantity, before)
        if change or bound == ENDS:
            to = bound == ENDS and re.search(r"\bto\s*[$£€¥]?\s*$", before, re.I)
            plain = "" if bound in (STARTS, ENDS) else bound
            bound = (inner_bound(before) or plain) if change or to else bound
        if bound in (STARTS, ENDS) and quantity.kind != "duration" and _TIME_WORD.search(before):
            bound = ""
        if bound in (LESS, MORE) and _THAN_THE.search(before):
            bound = ""
        if not bound and _CASE.search(text[max(0, start - 20) : start] + "#" + text[end : end + 10]):
            bound = OF
    if timed:
        return replace(quantity, bound=bound)
    later = re.match(r"\s+(later|earlier|ago|after|before)\b", text[quantity.through :], re.I)
    counted = later[1].lower() if later and quantity.kind == "duration" else quantity.counted
    per = _all_per(text, quantity.through)
    if not per and (front := _PER_BEFORE.search(text[max(0, start - CONTEXT) : start])):
        per = frozenset((_PER_WORDS[front[1].lower()],))
    return replace(quantity, bound=bound, change=change, per=per, counted=counted)


def _all_per(text: str, at: int) -> frozenset[str]:
    """Return the stems of what an amount that ends at an offset is for each of."""
    groups: set[str] = set()
    while match := _PER.match(text, at) or (groups and _AND_PER.match(text, at)):
        groups.add(_per(match))
        at = match.end()
    return frozenset(groups - {""})


def _per(match: re.Match[str]) -> str:
    """Return the stem of what an amount is for each of; "" where it is none, as in "5 euros a ticket for"."""
    groups = match.groupdict()
    if groups.get("head"):
        return ""
    if groups.get("ly"):
        return _PER_WORDS[groups["ly"].lower()]
    word = match["of"].lower()
    if word in _NO_PER:
        return ""
    word = UNITS.get(word, _PER_WORDS.get(word, word))
    return word if word in PERIODS else stem(word)


def bounds(text: str) -> frozenset[tuple[str, bool]]:
    """Return (value, whether it is an upper bound) of each number and time that is bounded."""
    upper, lower = (DOWN, LESS, ENDS), (UP, MORE, STARTS)
    return frozenset((q.value, q.bound in upper) for q in read_quantities(text) if q.bound in upper + lower)


def has_amounts(wanted: str, text: str) -> bool:
    """Return whether a text has every amount, time and date of another one, however it bounds them; False for none."""
    needed = [unbounded(q) for q in read_quantities(wanted)]
    return bool(needed) and are_among(needed, [unbounded(q) for q in read_quantities(text)])


def _joined_durations(text: str, quantities: Sequence[Quantity]) -> list[Quantity]:
    """Return the quantities with "2 hours 30 minutes" as one."""
    joined: list[Quantity] = []
    for q in quantities:
        last = joined[-1] if joined else None
        if (
            last is not None
            and last.unit != q.unit
            and dimension_of(last.unit) == dimension_of(q.unit) in ("time", "months")
            and size_of(last.unit) > size_of(q.unit)
            and _JOINED_DURATION.fullmatch(text[last.through : q.start])
        ):
            sum_of = Decimal(last.value) + Decimal(q.value) * size_of(q.unit) / size_of(last.unit)
            value = format(round(sum_of, 4).normalize(), "f")
            joined[-1] = replace(last, value=value, end=q.end, through=q.through)
        elif (
            last is not None
            and last.unit in MONEY
            and not q.unit
            and not q.counted
            and text[last.through : q.start].isspace()
            and q.value.isdigit()
            and int(q.value) < 100
        ):
            # "three euros fifty"
            value = format((Decimal(last.value) + Decimal(q.value) / 100).normalize(), "f")
            joined[-1] = replace(last, value=value, end=q.end, through=q.through)
        else:
            joined.append(q)
    return joined


def _unit(before: str, after: str, digits: str) -> tuple[str, int]:
    """Return the unit of a number and how many characters of the text after it name it; "" and 0 for none."""
    if symbol := _CURRENCY.search(before):
        return UNITS[symbol[1].lower()], 0
    if phrase := _PHRASE_AFTER.match(after):
        return PHRASES[phrase[1].lower()], phrase.end()
    word = _WORD_AFTER.match(after)
    if not word or (word[1] in "$£€¥" and after[word.end() : word.end() + 1].isdigit()):
        return "", 0
    form = word[1].lower()
    joined = after[:1] == word[1][0]
    # "5 in a row" and "under 18s" name no unit; nor do letters after a number in words
    if form in _SMALL_UNITS and (
        not digits[-1:].isdigit() or (form == "in" and not joined) or (form == "s" and joined)
    ):
        return "", 0
    if form in ("pound", "pounds"):
        return "pounds", word.end()
    unit = UNITS.get(form, UNITS.get(form.partition("/")[0], ""))
    return unit, (
        word.start(1) + len(form.partition("/")[0]) if "/" in form and form not in UNITS else word.end()
    ) if unit else 0

"""The quantities of a text: each number, time and date with its unit, what is counted, and how it is bounded.

"at least 3 days" is 3, days, from below; "before 9 a.m." is 09:00, from above. :func:`agree` says whether two are the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import pairwise

from rag.grounding.lexicon import SCALES, UNITS
from rag.text.dates import Date, dates_within, find_dates
from rag.text.numbers import find_numbers

UP, DOWN, STARTS, ENDS, TO = "at least", "at most", "from", "until", "to"
"""How a quantity is bounded; the last two are of times and dates, and of the two ends of a range."""
_MORE = r"(?:more|greater|higher|longer|larger|bigger|older|later|taller|heavier|further|wider|faster|better|over) than"
_FEWER = r"(?:less|fewer|lower|shorter|smaller|younger|earlier|lighter|narrower|slower|cheaper) than"
_PREFIXES = tuple(
    (
        bound,
        re.compile(
            rf"(?:^|[^\w-])(?:{pattern})(?:\s+(?:a|an|the|of|about|zu[mr]|de[mnr]))?(?:\s+(?:first|last|next))?\s*[$£€¥(]?\s*$",
            re.I,
        ),
    )
    for bound, pattern in (
        (DOWN, rf"(?:no|not|never)(?: \w+)? {_MORE}|no later than|not exceed(?:ing)?|not over"),
        (UP, rf"(?:no|not|never)(?: \w+)? {_FEWER}|no earlier than|not under|not before"),
        (
            UP,
            rf"at (?:the very )?least|{_MORE}|over|above|exceed(?:s|ed|ing)?|beyond|upwards? of|in excess of|min\.?"
            r"|(?:a )?minimum(?: \w+)?(?: of| is)?|not below|al menos|como mínimo|más de|mínimo(?: de)?|mindestens"
            r"|mehr als|über",
        ),
        (
            DOWN,
            rf"at (?:the very )?most|up to|{_FEWER}|under|below|as (?:many|much|late) as|within|max\.?|limited to"
            r"|(?:a )?maximum(?: \w+)?(?: of| is)?|only up to|como máximo|menos de|hasta|máximo(?: de)?|höchstens"
            r"|weniger als"
            r"|maximal|bis zu|unter",
        ),
        (ENDS, r"before|until|till|prior to|by|through|to|antes de(?:l)?|vor|bis"),
        (
            STARTS,
            r"after|from|since|starting(?: at| on| from)?|beginning(?: at| on)?|as of|following|después de(?:l)?|desde"
            r"|nach|seit|ab|ab dem",
        ),
    )
)
_HIGHER = r"(?:more|over|older|above|later|up|longer|higher)\b(?! than)"
_LOWER = r"(?:less|fewer|under|younger|below|earlier|shorter|lower)\b(?! than)"
_SUFFIXES = (
    (
        UP,
        re.compile(rf"\s*(?:\+|(?:\w+ ){{0,2}}?(?:or|and) {_HIGHER}|(?:\w+ )?(?:at least|minimum)\b)", re.I),
    ),
    (
        DOWN,
        re.compile(rf"\s*(?:(?:\w+ ){{0,2}}?(?:or|and) {_LOWER}|(?:\w+ )?(?:at most|maximum|max)\b)", re.I),
    ),
)
_BETWEEN = re.compile(r"\b(?:between|zwischen|entre)\s*[$£€¥]?\s*$", re.I)
_AND = re.compile(r"\s*(?:and|und|y)\s*[$£€¥]?\s*", re.I)
_WORD_AFTER = re.compile(
    r"\s*-?\s*(?:(?:more|additional|extra|further|full|whole|consecutive|working|business|calendar|long|short|US) )?"
    r"([^\W\d_][\w'’/]*|[%°″¢€$£](?:[CF]\b)?)"
)
_CURRENCY = re.compile(r"([$£€¥]|\b(?:USD|EUR|GBP|JPY))\s*$")
_SCALED = re.compile(r"\s*-?\s*(" + "|".join(sorted(SCALES, key=len, reverse=True)) + r")\b", re.I)
_SMALL_UNITS = frozenset(("s", "h", "m", "g", "l", "b", "t", "v", "w", "in", "min"))
"""Abbreviations that are also words or letters: units only right after digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """One number, time or date of a text."""

    value: str
    """As :func:`rag.text.numbers.extract_numbers` returns it, scaled by a following "million"; "" for a date."""
    date: Date | None
    unit: str
    """One of the names of :data:`rag.grounding.lexicon.UNITS`; "" where it has none."""
    bound: str
    """at least, at most, from, until, or "" for the value itself."""
    start: int
    end: int
    """Offset after its digits or words."""
    through: int
    """Offset after its unit, where that follows; else ``end``."""

    @property
    def timed(self) -> bool:
        """Whether it is a time of the day or a date."""
        return self.date is not None or ":" in self.value


def read_quantities(text: str) -> tuple[Quantity, ...]:
    """Return the quantities of a text in their order."""
    places: list[tuple[str, Date | None, int, int]] = []
    plain = text
    for date, start, end in find_dates(text):
        places.append(("", date, start, end))
        # an equally long gap, so that the offsets of the other numbers stay
        plain = plain[:start] + " " * (end - start) + plain[end:]
    places += [(value, None, start, end) for value, start, end in find_numbers(plain)]
    places.sort(key=lambda place: place[2:])
    quantities = [
        _quantity(text, value, date, start, end, places[n - 1][3] if n else 0)
        for n, (value, date, start, end) in enumerate(places)
    ]
    for n, (one, other) in enumerate(pairwise(quantities)):
        if _BETWEEN.search(text[: one.start]) and _AND.fullmatch(text[one.through : other.start]):
            quantities[n] = replace(one, bound=STARTS if one.timed else UP, unit=one.unit or other.unit)
            quantities[n + 1] = replace(other, bound=ENDS if other.timed else DOWN)
    return tuple(quantities)


def agree(claimed: Quantity, source: Quantity) -> bool:
    """Return whether a source says a claimed quantity: the same value in the same unit, bounded alike."""
    if claimed.date is not None or source.date is not None:
        if claimed.date is None or source.date is None:
            known = source.date is not None and claimed.value == str(source.date[0])
            named = (
                claimed.date is not None and source.value == str(claimed.date[0]) and claimed.date[2] is None
            )
            if not known and not named:
                return False
        elif not dates_within(frozenset((claimed.date,)), frozenset((source.date,))):
            return False
    elif claimed.value != source.value:
        return False
    return same_unit(claimed, source) and _same_bound(claimed, source)


def ends_of_range(one: Quantity, other: Quantity) -> bool:
    """Return whether two quantities are bounded on opposite sides, as the ends of "from 5 to 8"."""
    rising, falling = (UP, STARTS), (DOWN, ENDS, TO)
    return (one.bound in rising and other.bound in falling) or (
        one.bound in falling and other.bound in rising
    )


def same_unit(one: Quantity, other: Quantity) -> bool:
    """Return whether two quantities may count the same: units differ only where both are known."""
    return not one.unit or not other.unit or one.unit == other.unit


def _same_bound(claimed: Quantity, source: Quantity) -> bool:
    rising, falling = (UP, STARTS), (DOWN, ENDS)
    if claimed.bound == source.bound or {claimed.bound, source.bound} in ({UP, STARTS}, {DOWN, ENDS}):
        return True
    if (claimed.bound in rising and source.bound in falling) or (
        claimed.bound in falling and source.bound in rising
    ):
        return False
    if TO in (claimed.bound, source.bound):
        return STARTS not in (claimed.bound, source.bound)
    # "opens at 9" for "open from 9"; but 5 is not "up to 5"
    return not {claimed.bound, source.bound} & {UP, DOWN}


def _quantity(text: str, value: str, date: Date | None, start: int, end: int, previous: int) -> Quantity:
    before, after = text[max(previous, start - 40) : start], text[end : end + 40]
    unit, through, timed = "", end, date is not None or ":" in value
    if not timed:
        if (scaled := _SCALED.match(after)) and scaled[1].lower() != "k":
            value = format((Decimal(value) * SCALES[scaled[1].lower()]).normalize(), "f")
            through += scaled.end()
        unit, length = _unit(before, text[through : through + 40], text[start:end])
        through += length
    return Quantity(
        value=value,
        date=date,
        unit=unit,
        bound=_bound(before, after, bool(previous), timed),
        start=start,
        end=end,
        through=through,
    )


def _unit(before: str, after: str, digits: str) -> tuple[str, int]:
    """Return the unit of a number and how many characters of the text after it name it; "" and 0 for none."""
    if symbol := _CURRENCY.search(before):
        return UNITS[symbol[1].lower()], 0
    word = _WORD_AFTER.match(after)
    if not word:
        return "", 0
    form = word[1].lower()
    joined = after[:1] == word[1][0]
    # "5 in a row" and "under 18s" name no unit; nor do letters after a number in words
    if form in _SMALL_UNITS and (
        not digits[-1:].isdigit() or (form == "in" and not joined) or (form == "s" and joined)
    ):
        return "", 0
    unit = UNITS.get(form, UNITS.get(form.partition("/")[0], ""))
    return unit, word.end() if unit and "/" not in form else 0


def _bound(before: str, after: str, follows: bool, timed: bool) -> str:
    for bound, pattern in _SUFFIXES:
        if pattern.match(after):
            return bound
    for bound, pattern in _PREFIXES:
        if match := pattern.search(before):
            word = match.group().strip(" $£€¥(").lower()
            # "to 5" and "by 5" bound a time; "to" also the second number of a range
            if not timed and word in ("by", "through", "vor", "nach"):
                return ""
            if not timed and word == "to" and not follows:
                return TO
            return bound
    return ""

"""A quantity and when one bears out another: the same amount, also in another unit, in the same sense."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from rag.quantities.units import MONEY, dimension_of, size_of
from rag.text.dates import Date, dates_within

UP, MORE, DOWN, LESS = "at least", "more than", "at most", "less than"
OF = "of"
"""The bound of one case among several: "a child of ten", "a group of 20"."""
ABOUT, NEARLY, EXACTLY, STARTS, ENDS, TO, BY, FROM = (
    "about",
    "nearly",
    "exactly",
    "from",
    "until",
    "to",
    "by",
    "from",
)
"""How a quantity is bounded; STARTS and ENDS are of times, dates and ranges. TO, BY and FROM say what it is in a change."""
YEAR = re.compile(r"(?:1\d|20)\d\d")
_APPROXIMATE = Decimal("0.06")
"""Share by which an amount may be off one that is said to be about as large."""
_FAR = Decimal("0.34")
"""Share by which an amount may be above one that it is said to be more than."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """One number, amount, time or date of a text."""

    value: str
    """As :func:`rag.text.numbers.extract_numbers` returns it; "" for a date."""
    date: Date | None
    unit: str
    """One of the names of :data:`rag.quantities.units.UNITS`; "" where it has none."""
    bound: str
    """at least, more than, at most, less than, about, nearly, exactly, from, until, or "" for the value itself."""
    change: str = ""
    """to, by or from, where it is a part of a change; else ""."""
    per: frozenset[str] = frozenset()
    """Stems of what it is for each of: "12 euros per person and night"."""
    year: str = ""
    """The year that it belongs to, where the text names several: "4.1 in 2021 and 5.3 in 2022"."""
    counted: str = ""
    """Stem of the word right after it, where that is no unit: "48 berths"."""
    start: int
    end: int
    """Offset after its digits or words."""
    through: int
    """Offset after its unit, where that follows; else ``end``."""

    @property
    def timed(self) -> bool:
        """Whether it is a time of the day, a date or a year."""
        return self.date is not None or ":" in self.value or self.is_year

    @property
    def is_year(self) -> bool:
        """Whether it is a year alone."""
        return not self.unit and not self.counted and YEAR.fullmatch(self.value) is not None

    @property
    def kind(self) -> str:
        """Return date, time, year, money, share, duration, measure or number."""
        if self.date is not None or ":" in self.value:
            return "date" if self.date is not None else "time"
        if self.is_year:
            return "year"
        if self.unit in MONEY or self.unit == "pounds":
            return "money"
        known = {"ratio": "share", "time": "duration", "months": "duration", "": "number"}
        return known.get(dimension_of(self.unit), "measure")


def agree(claimed: Quantity, source: Quantity) -> bool:
    """Return whether a source says a claimed quantity: the same amount, in the same sense and of the same kind."""
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
        return _same_bound(claimed, source)
    if (":" in claimed.value) != (":" in source.value):
        return _is_hour(claimed, source) and _same_bound(claimed, source)
    if claimed.bound == OF and source.bound not in ("", OF):
        return (same_unit(claimed, source) or not source.unit) and _is_in(claimed, source)
    if not same_unit(claimed, source) or not _same_change(claimed, source):
        return False
    if claimed.per and source.per and claimed.per.isdisjoint(source.per):
        return False
    if claimed.year and source.year and claimed.year != source.year:
        return False
    if ":" in claimed.value and ":" in source.value:
        return same_amount(claimed, source) and _same_bound(claimed, source)
    if same_amount(claimed, source):
        return _same_bound(claimed, source)
    return _within(claimed, source)


def ends_of_range(one: Quantity, other: Quantity) -> bool:
    """Return whether two quantities are bounded on opposite sides, as the ends of "from 5 to 8"."""
    rising, falling = (UP, MORE, STARTS), (DOWN, LESS, ENDS)
    return (
        (one.bound in rising and other.bound in falling)
        or (one.bound in falling and other.bound in rising)
        or {one.change, other.change} == {FROM, TO}
    )


def same_unit(one: Quantity, other: Quantity) -> bool:
    """Return whether two quantities may count the same: their units are of one dimension, or one has none."""
    if one.unit and other.unit:
        if (one.unit, other.unit) in _HUNDREDTHS or (other.unit, one.unit) in _HUNDREDTHS:
            return True
        return _dimension(one) == _dimension(other) or _is_pound(one, other) or _is_pound(other, one)
    measured, plain = (one, other) if one.unit else (other, one)
    if measured.unit == "share":
        return not plain.counted
    # "42 stone" is not 42 kg, and neither is "42 parcels"
    return not measured.unit or not plain.counted


def same_amount(one: Quantity, other: Quantity) -> bool:
    """Return whether two quantities of one dimension are equally large, also in different units."""
    if one.value == other.value and (one.unit == other.unit or not one.unit or not other.unit):
        return True
    if ":" in one.value or ":" in other.value:
        return ":" in one.value and ":" in other.value and _same_time(one.value, other.value)
    a, b = _size(one, other)
    if not one.unit or not other.unit or (one.unit == other.unit and one.unit != "share"):
        return a == b
    return abs(a - b) <= Decimal("0.001") * max(abs(a), abs(b))


_HUNDREDTHS = {("cent", "euro"), ("cent", "dollar"), ("pence", "sterling"), ("pence", "pounds")}


def _is_pound(one: Quantity, other: Quantity) -> bool:
    return one.unit == "pounds" and other.unit in ("pound", "sterling", "pounds")


def _dimension(quantity: Quantity) -> str:
    return dimension_of(quantity.unit)


def _same_time(one: str, other: str) -> bool:
    """Return whether two times are one; "6:30" without a leading zero is in either half of the day."""
    if len(one) == len(other) == 5:
        return one == other
    (hour, _, minute), (other_hour, _, other_minute) = one.partition(":"), other.partition(":")
    return int(hour) % 12 == int(other_hour) % 12 and minute == other_minute


def _is_hour(one: Quantity, other: Quantity) -> bool:
    """Return whether one is a time and the other the same as a plain number: "at 9", "6.40"."""
    time, plain = (one, other) if ":" in one.value else (other, one)
    if plain.unit or plain.counted or plain.change or plain.is_year:
        return False
    hour, _, minute = time.value.partition(":")
    value = Decimal(hour) + Decimal(minute) / 100
    return Decimal(plain.value) in (value, value + 12 if len(hour) == 1 else value)


def _is_in(case: Quantity, source: Quantity) -> bool:
    """Return whether one case is among those that a bounded amount is about: a child of ten, "under 12"."""
    value, limit = _size(case, source)
    match source.bound:
        case "less than":
            return value < limit
        case "at most" | "until":
            return value <= limit
        case "more than":
            return value > limit
        case "at least" | "from":
            return value >= limit
    return False


def _size(one: Quantity, other: Quantity) -> tuple[Decimal, Decimal]:
    """Return two amounts in one unit, as different numbers where that is not known."""
    a, b = Decimal(one.value), Decimal(other.value)
    if not one.unit or not other.unit or one.unit == other.unit:
        return a, b
    if _is_pound(one, other) or _is_pound(other, one):
        return a, b
    if (one.unit, other.unit) in _HUNDREDTHS or (other.unit, one.unit) in _HUNDREDTHS:
        return (a / 100, b) if (one.unit, other.unit) in _HUNDREDTHS else (a, b / 100)
    if not size_of(one.unit) or not size_of(other.unit):
        return a, a + 1
    return a * size_of(one.unit), b * size_of(other.unit)


def _same_bound(claimed: Quantity, source: Quantity) -> bool:
    """Return whether a source that says an amount bears out the same amount as the claim bounds it."""
    own, known = claimed.bound, source.bound
    rising, falling = (UP, MORE, STARTS), (DOWN, LESS, ENDS)
    if own == known or {own, known} in ({UP, STARTS}, {DOWN, ENDS}, {LESS, ENDS}, {MORE, STARTS}):
        return True
    if own == EXACTLY:
        return known == ""
    if ABOUT in (own, known) or NEARLY in (own, known):
        return (own, known) in (
            (ABOUT, ""),
            (ABOUT, NEARLY),
            (ABOUT, EXACTLY),
            (DOWN, NEARLY),
            (LESS, NEARLY),
        )
    if (own, known) in ((UP, MORE), (DOWN, LESS)):
        return True
    if (own in rising and known in falling) or (own in falling and known in rising):
        return False
    # "opens at 9" for "open from 9"; but 5 is not "up to 5"
    return not {own, known} & {UP, MORE, DOWN, LESS} or known == EXACTLY


def _within(claimed: Quantity, source: Quantity) -> bool:
    """Return whether an exact amount lies where another one, that it is compared with, says: 312 is "over 300"."""
    if source.bound not in ("", EXACTLY) or ":" in claimed.value + source.value or claimed.is_year:
        return False
    own, known = _size(claimed, source)
    if not own or not known or (claimed.unit and not source.unit) or (source.unit and not claimed.unit):
        return False
    ratio = known / own
    match claimed.bound:
        case "about":
            return abs(ratio - 1) <= _APPROXIMATE
        case "nearly":
            return 1 - 2 * _APPROXIMATE <= ratio < 1
        case "more than" | "at least":
            return 1 < ratio <= 1 + _FAR
        case "less than" | "at most":
            return 1 - _FAR <= ratio < 1
    return False


def _same_change(claimed: Quantity, source: Quantity) -> bool:
    """Return whether two amounts are the same part of a change; what it led to may be said without it."""
    if claimed.change == source.change:
        return True
    if BY in (claimed.change, source.change):
        return False
    if source.change == FROM:
        return bool(claimed.year) and not claimed.change
    return claimed.change != FROM


def are_among(wanted: Sequence[Quantity], known: Sequence[Quantity]) -> bool:
    """Return whether each of some quantities agrees with one of others."""
    return all(any(agree(q, other) for other in known) for q in wanted)


def unbounded(quantity: Quantity) -> Quantity:
    """Return the amount alone, without its bound, its part in a change, its year and what it is per."""
    return replace(quantity, bound="", change="", year="", per=frozenset(), counted="")

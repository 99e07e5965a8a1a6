"""Amounts that follow from those of a sentence: the difference of two, their sum, a part of a whole, a price for a year."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal

from rag.quantities.comparing import BY, FROM, TO, Quantity, same_amount, same_unit
from rag.text.words import stem

_TOGETHER = frozenset(map(stem, ("altogether", "total", "together", "combined", "overall", "sum")))
_MULTIPLES = {("month", "year"): 12, ("day", "week"): 7, ("quarter", "year"): 4, ("hour", "day"): 24}
"""How often a period is in a longer one."""


def is_derived(claimed: Quantity, words: Collection[str], quantities: Sequence[Quantity]) -> bool:
    """Return whether an amount follows from a source's quantities.

    Args:
        claimed: the amount, or a year.
        words: stems of the words of the clause that states it.
        quantities: those of the source's sentence.
    """
    if claimed.date is not None or ":" in claimed.value:
        return False
    if claimed.is_year:
        return any(claimed.value == year for year in _later_years(quantities))
    if claimed.value == "1" and any(claimed.unit in q.per for q in quantities):
        return bool(claimed.unit)  # "for a week" of what is priced per week
    if claimed.unit == "percentage_point":
        claimed = replace(claimed, unit="percent")
    sums = not _TOGETHER.isdisjoint(words)
    return any(
        same_unit(claimed, amount) and same_amount(claimed, amount)
        for amount in _amounts(claimed, [q for q in quantities if not q.timed], sums)
    )


def _amounts(claimed: Quantity, quantities: Sequence[Quantity], sums: bool) -> Iterator[Quantity]:
    """Yield the amounts that follow from others, in the units of these."""
    if claimed.change == BY:
        for before in quantities:
            for after in quantities:
                if before.change == FROM and after.change == TO and same_unit(before, after):
                    yield _with_value(after, abs(Decimal(before.value) - Decimal(after.value)))
    if claimed.change == FROM or claimed.year:
        for by in quantities:
            for to in quantities:
                if by.change == BY and to.change == TO and by.unit == to.unit and claimed.year != to.year:
                    yield _with_value(to, Decimal(to.value) + Decimal(by.value))
    if sums:
        alike = [q for q in quantities if q.unit == claimed.unit and not q.change]
        if len(alike) > 1:
            yield _with_value(alike[0], sum((Decimal(q.value) for q in alike), Decimal(0)))
    for part in quantities:
        for whole in quantities:
            if part.unit == "share" and whole.counted and whole.start > part.through:
                yield _with_value(whole, Decimal(part.value) * Decimal(whole.value))
    for amount in quantities:
        for (short, long), times in _MULTIPLES.items():
            if short in amount.per and long in claimed.per:
                yield _with_value(amount, Decimal(amount.value) * times)


def _with_value(quantity: Quantity, value: Decimal) -> Quantity:
    return replace(quantity, value=format(value.normalize(), "f"))


def _later_years(quantities: Sequence[Quantity]) -> Iterator[str]:
    """Yield the years that are so many years later or earlier than one that is named."""
    for year in quantities:
        for q in quantities:
            if year.is_year and q.unit == "year" and q.counted in ("later", "earlier") and q.value.isdigit():
                step = int(q.value) if q.counted == "later" else -int(q.value)
                yield str(int(year.value) + step)

"""The year that an amount belongs to, where a text names several."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from rag.quantities.comparing import BY, ENDS, FROM, STARTS, TO, Quantity

_YEAR_BEFORE = re.compile(
    r"[^.;\d]{0,14}?\b(?:the (?:year before|previous year|preceding year|prior year)|a year (?:earlier|before))",
    re.I,
)
_YEAR_AFTER = re.compile(
    r"[^.;\d]{0,14}?\b(?:the (?:year after|following year|next year|subsequent year)|a year later)", re.I
)


def with_years(text: str, quantities: Sequence[Quantity]) -> tuple[Quantity, ...]:
    """Return the quantities, each amount with the year that it belongs to: the one named next, else the one before."""
    years = [q for q in quantities if q.is_year or (q.date is not None and q.date[0] and q.date[2] is None)]
    if not years:
        return tuple(quantities)
    amounts = [q for q in quantities if not q.timed and q.change != BY]
    listed = _listed_years(text, amounts, years)
    placed = []
    for q in quantities:
        if q not in amounts:
            placed.append(q)
            continue
        year = listed.get(q.start)
        if year is None:
            later = next((y for y in years if y.start >= q.through), None)
            between = text[q.through : later.start] if later else ""
            near = (
                later is not None
                and not any(q.start < other.start < later.start for other in amounts)
                and re.search(
                    r"[;.]\s|,\s(?:and|but)\b|,\s|\b(?:and|but|while|from|to|than|up|compared)\b", between
                )
                is None
            )
            earlier = [y for y in years if y.end <= q.start]
            year = later if near else earlier[-1] if earlier else later if len(years) == 1 else None
        value = "" if year is None else year.value if year.is_year else str((year.date or (0,))[0])
        placed.append(replace(q, year=_relative_year(text, q, value)))
    return tuple(placed)


def _relative_year(text: str, quantity: Quantity, year: str) -> str:
    """Return the year of an amount, one less or more where "the year before" or "the following year" is behind it."""
    tail = text[quantity.through : quantity.through + 45]
    step = -1 if _YEAR_BEFORE.match(tail) else 1 if _YEAR_AFTER.match(tail) else 0
    return str(int(year) + step) if year and step else year


def _listed_years(text: str, amounts: Sequence[Quantity], years: Sequence[Quantity]) -> dict[int, Quantity]:
    """Return the year of each amount, by its offset, in "4.1 and 5.3 in 2021 and 2022 respectively"."""
    ends = [q for q in amounts if q.change in (FROM, TO)]
    spans = [q.bound for q in years] == [STARTS, ENDS] and [q.change for q in ends] == [FROM, TO]
    if spans and years[0].start > ends[1].start:
        return {amount.start: year for amount, year in zip(ends, years, strict=True)}
    if len(amounts) != len(years) or "respectively" not in text.lower():
        return {}
    return {amount.start: year for amount, year in zip(amounts, years, strict=True)}

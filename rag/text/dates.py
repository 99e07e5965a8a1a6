"""Dates of a text in one form each, however they are written: for comparing an answer with its source."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

_MONTHS = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
_NUMBER = {name[:length]: n for n, name in enumerate(_MONTHS, 1) for length in (3, len(name))} | {"sept": 9}
_NAMES = "|".join(name.capitalize() for name in sorted(_NUMBER, key=len, reverse=True))
"""Capitalised only: "up to 3 may travel" names no day."""
_MORE = r"(?P<more>(?:\b\d{1,2}(?:st|nd|rd|th)?(?:\s*(?:-|–|to|until|and|&|,)\s*))*)"
"""The days before the last in "12, 13 and 14 May" and "12–14 May"."""
_DAY = r"(?P<day>[12]\d|3[01]|0?[1-9])(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>(?:1\d|20)\d\d)"
_WRITTEN = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?<![\d-])(?P<year>(?:1\d|20)\d\d)-(?P<month>1[0-2]|0[1-9])-(?P<day>[12]\d|3[01]|0[1-9])(?![\d-])",
        r"(?<![\d.])(?P<day>[12]\d|3[01]|0?[1-9])\.(?P<month>1[0-2]|0?[1-9])\.(?P<year>(?:1\d|20)\d\d)(?!\d)",
        rf"(?<![\w.]){_MORE}(?<![\w.]){_DAY}\s+(?:of\s+)?(?P<month>{_NAMES})\b\.?(?:,?\s+{_YEAR}\b)?",
        rf"\b(?P<month>{_NAMES})\b\.?\s+(?:the\s+)?{_DAY}\b(?:,?\s+{_YEAR}\b)?",
        rf"\b(?P<month>{_NAMES})\b\.?,?\s+{_YEAR}\b",
    )
)
Date = tuple[int | None, int, int | None]
"""Year, month, day; None for what is not said."""


def extract_dates(text: str) -> frozenset[Date]:
    """Return the dates of a text: "12 May 2026", "May 12th, 2026", "2026-05-12" and "12.5.2026" are one and the same.

    What can be read in two ways (05/12/2026) is no date here.
    """
    return frozenset(date for date, _, _ in find_dates(text))


def without_dates(text: str) -> str:
    """Return the text with a space for every date, so that its numbers are not taken for others."""
    kept, at = "", 0
    for _, start, end in find_dates(text):
        kept += f"{text[at:start]} " if end > at else ""
        at = end
    return kept + text[at:]


def dates_within(said: frozenset[Date], source: frozenset[Date], numbers: Collection[str] = ()) -> bool:
    """Return whether every date said is in the source.

    A date that says less is in one that says more; a year may also stand among the source's other ``numbers``.
    """
    return all(any(_agrees(date, known, numbers) for known in source) for date in said)


def find_dates(text: str) -> Iterator[tuple[Date, int, int]]:
    """Yield each date with the start and end of what says it, in order; days of one month share a place."""
    matches = sorted(
        (m for pattern in _WRITTEN for m in pattern.finditer(text)), key=lambda m: (m.start(), -m.end())
    )
    at = 0
    for match in matches:
        if match.start() < at:
            continue
        at = match.end()
        parts = match.groupdict()
        month, year = parts["month"].lower(), parts.get("year")
        days = [*re.findall(r"\d+", parts.get("more") or ""), parts.get("day")]
        for day in days:
            date = (
                int(year) if year else None,
                int(month) if month.isdigit() else _NUMBER[month],
                int(day) if day else None,
            )
            yield date, match.start(), at


def _agrees(said: Date, known: Date, numbers: Collection[str]) -> bool:
    year = said[0] in (None, known[0]) or (known[0] is None and str(said[0]) in numbers)
    return year and all(a is None or a == b for a, b in zip(said[1:], known[1:], strict=True))

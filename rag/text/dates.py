"""Dates of a text in one form each, however they are written, to compare an answer with its source.

:func:`extract_dates` returns them; :func:`dates_within` compares those of a claim with those of a source.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

MONTHS = (
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
_MONTH_NUMBERS = {name[:length]: n for n, name in enumerate(MONTHS, 1) for length in (3, len(name))} | {
    "sept": 9
}
_MONTH = "|".join(name.capitalize() for name in sorted(_MONTH_NUMBERS, key=len, reverse=True))
"""Capitalised only: "up to 3 may travel" names no day."""
_MORE_DAYS = r"(?P<more>(?:\b\d{1,2}(?:st|nd|rd|th)?(?:\s*(?:-|–|to|until|and|&|,)\s*))*)"
"""The days before the last in "12, 13 and 14 May" and "12–14 May"."""
_DAY = r"(?P<day>[12]\d|3[01]|0?[1-9])(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>(?:1\d|20)\d\d)"
_DATE_PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?<![\d-])(?P<year>(?:1\d|20)\d\d)-(?P<month>1[0-2]|0[1-9])-(?P<day>[12]\d|3[01]|0[1-9])(?![\d-])",
        r"(?<![\d.])(?P<day>[12]\d|3[01]|0?[1-9])\.(?P<month>1[0-2]|0?[1-9])\.(?P<year>(?:1\d|20)\d\d)(?!\d)",
        rf"(?<![\w.]){_MORE_DAYS}(?<![\w.]){_DAY}\s+(?:of\s+)?(?P<month>{_MONTH})\b\.?(?:,?\s+{_YEAR}\b)?",
        rf"\b(?P<month>{_MONTH})\b\.?\s+(?:the\s+)?{_DAY}\b(?:,?\s+{_YEAR}\b)?",
        rf"\b(?P<month>{_MONTH})\b\.?,?\s+{_YEAR}\b",
    )
)
Date = tuple[int | None, int, int | None]
"""Year, month, day; None for a part that the text does not name."""


def extract_dates(text: str) -> frozenset[Date]:
    """Return the dates of a text: "12 May 2026", "May 12th, 2026", "2026-05-12" and "12.5.2026" are one and the same.

    What can be read in two ways (05/12/2026) is not returned.
    """
    return frozenset(date for date, _, _ in find_dates(text))


def without_dates(text: str) -> str:
    """Return the text with a space for every date, so that the numbers in dates are not compared as plain numbers."""
    rest, at = "", 0
    for _, start, end in find_dates(text):
        rest += f"{text[at:start]} " if end > at else ""
        at = end
    return rest + text[at:]


def dates_within(claimed: frozenset[Date], source: frozenset[Date], numbers: Collection[str] = ()) -> bool:
    """Return whether every claimed date is in the source.

    A date with fewer parts is in one with more ("May 2026" in "12 May 2026").

    Args:
        claimed: dates of the claim.
        source: dates of the source.
        numbers: the source's other numbers, among which a year may be.
    """
    return all(any(_agrees(date, known, numbers) for known in source) for date in claimed)


def find_dates(text: str) -> Iterator[tuple[Date, int, int]]:
    """Yield each date with start and end of its text, in order; several days of one month share start and end."""
    matches = sorted(
        (match for pattern in _DATE_PATTERNS for match in pattern.finditer(text)),
        key=lambda match: (match.start(), -match.end()),  # where two begin together, the longer one
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
                int(month) if month.isdigit() else _MONTH_NUMBERS[month],
                int(day) if day else None,
            )
            yield date, match.start(), at


def _agrees(claimed: Date, known: Date, numbers: Collection[str]) -> bool:
    same_year = claimed[0] in (None, known[0]) or (known[0] is None and str(claimed[0]) in numbers)
    return same_year and all(
        part is None or part == other for part, other in zip(claimed[1:], known[1:], strict=True)
    )

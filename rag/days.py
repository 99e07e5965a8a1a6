"""Dates as documents and filters give them: a day, a month or a year, each a span of days."""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import date
from typing import Any, NamedTuple

from rag.errors import UsageProblem

_ISO = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2})(?:[T ].*)?)?)?")


class Span(NamedTuple):
    """The first and the last day that a date can mean."""

    first: date
    last: date


def span(value: Any) -> Span | None:
    """Return the days that ``2026-05-01``, ``2026-05`` or ``2026`` (also as a number) mean; None for others.

    A time of day is left off: documents are known, and expire, by the day.
    """
    match = _ISO.fullmatch(str(value).strip()) if not isinstance(value, bool) else None
    if match is None:
        return None
    year, month, day = (int(part) if part else 0 for part in match.groups())
    try:
        first = date(year, month or 1, day or 1)
        last = date(year, month or 12, day or monthrange(year, month or 12)[1])
    except ValueError:
        return None
    return Span(first, last)


def parse_day(text: str | None, option: str = "--as-of") -> date | None:
    """Return the day that ``option`` gives as YYYY-MM-DD, None for none; UsageProblem for anything else."""
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise UsageProblem(f"{option} {text!r} is not a day", "write it as 2026-05-01") from None

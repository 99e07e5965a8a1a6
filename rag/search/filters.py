"""Conditions on a document's metadata: ``tags=ferry``, ``doc=fares/``, ``price<=20``, ``date>=2026-05``.

Dates as documents and filters give them: a day, a month or a year, each a span of days.
"""

from __future__ import annotations

import operator
import re
from calendar import monthrange
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from rag.errors import UsageProblem

_ISO = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2})(?:[T ].*)?)?)?")


class DaySpan(NamedTuple):
    """The first and the last day that a date can mean."""

    first: date
    last: date


def day_span(value: Any) -> DaySpan | None:
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
    return DaySpan(first, last)


def parse_day(text: str | None, option: str = "--as-of") -> date | None:
    """Return the day that ``option`` gives as YYYY-MM-DD, None for none; UsageProblem for anything else."""
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise UsageProblem(f"{option} {text!r} is not a day", "write it as 2026-05-01") from None


_SIGN = re.compile("!=|>=|<=|=|<|>")
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
MAX_VALUES_SHOWN = 100
"""Most characters of a text that a refusal repeats."""
PATH_FIELDS = ("doc", "source")
"""Keys whose values are paths, so that a folder's name stands for everything below it."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition; a document's fields are its metadata with ``doc`` (its id), ``title`` and ``media``."""

    key: str
    sign: str
    """``=``, ``!=``, ``<``, ``<=``, ``>`` or ``>=``."""
    value: str

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Return the condition that a text like ``key=value`` states; UsageProblem when it states none."""
        match = _SIGN.search(text)
        key = text[: match.start()].strip() if match else ""
        if match is None or not key or "!" in key:
            shown = text if len(text) <= MAX_VALUES_SHOWN else f"{text[:MAX_VALUES_SHOWN]}..."
            raise UsageProblem(
                f"{shown!r} is no condition",
                "write key=value, or with != < <= > >=: tags=ferry, date>=2026-05",
            )
        return cls(key, match.group(), text[match.end() :].strip())

    def __str__(self) -> str:
        """Return the condition as it is written."""
        return f"{self.key}{self.sign}{self.value}"

    def holds(self, fields: Mapping[str, Any]) -> bool | None:
        """Return whether a document's fields fulfil it; None where they hold a value that has no order.

        A list fulfils what one of its items does. A missing key is equal to nothing.
        """
        found = fields.get(self.key)
        values = found if isinstance(found, list) else [] if found is None else [found]
        if self.sign in ("=", "!="):
            return any(self._equals(value) for value in values) == (self.sign == "=")
        answers = [self._ordered(value) for value in values]
        return True if True in answers else None if None in answers else False

    def _equals(self, value: Any) -> bool:
        """Compare as texts in any letter case, ``*`` and ``?`` standing for anything; numbers by value."""
        text, wanted = str(value).casefold(), self.value.casefold()
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return text == wanted or _number(wanted) == value
        if self.key in PATH_FIELDS and text.startswith(wanted.rstrip("/") + "/"):
            return True
        return fnmatchcase(text, wanted.replace("[", "[[]")) if set("*?") & set(wanted) else text == wanted

    def _ordered(self, value: Any) -> bool | None:
        """Compare as numbers, else as dates (``<=2026`` is "until its end"); None when it is neither."""
        order = _ORDERS[self.sign]
        number, wanted = _number(value), _number(self.value)
        if number is not None and wanted is not None:
            return order(number, wanted)
        here, there = day_span(value), day_span(self.value)
        if here is None or there is None:
            return None
        return order(here.first, there.first if self.sign in (">=", "<") else there.last)


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None

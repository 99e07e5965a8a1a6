"""Conditions on a document's metadata: ``tags=ferry``, ``doc=fares/``, ``price<=20``, ``date>=2026-05``.

:class:`Condition` is one condition, :func:`day_span` reads dates of documents and conditions: a day, a month or a
year, each as a span of days.
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
_SIGN = re.compile("!=|>=|<=|=|<|>")
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
MAX_SHOWN_CHARS = 100
"""Most characters of an invalid condition that the error message repeats."""
PATH_FIELDS = ("doc", "source")
"""Keys whose values are paths, so that a folder's name matches everything below it."""


class DaySpan(NamedTuple):
    """The first and the last day that a date can mean."""

    first: date
    last: date


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition; a document's fields are its metadata with ``doc`` (its id), ``title`` and ``media``."""

    key: str
    sign: str
    """``=``, ``!=``, ``<``, ``<=``, ``>`` or ``>=``."""
    value: str

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Return the condition of a text such as ``key=value``; UsageProblem if it is not one."""
        match = _SIGN.search(text)
        key = text[: match.start()].strip() if match else ""
        if match is None or not key or "!" in key:
            shown = text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}..."
            raise UsageProblem(
                f"{shown!r} is no condition",
                "write key=value, or with != < <= > >=: tags=ferry, date>=2026-05",
            )
        return cls(key, match.group(), text[match.end() :].strip())

    def __str__(self) -> str:
        """Return the condition as it is written."""
        return f"{self.key}{self.sign}{self.value}"

    def holds(self, fields: Mapping[str, Any]) -> bool | None:
        """Return whether a document's fields satisfy the condition; None if they have a value that cannot be ordered.

        A list satisfies what one of its items satisfies. A missing key is equal to nothing.
        """
        field = fields.get(self.key)
        values = field if isinstance(field, list) else [] if field is None else [field]
        if self.sign in ("=", "!="):
            return any(self._equals(value) for value in values) == (self.sign == "=")
        answers = [self._ordered(value) for value in values]
        return True if True in answers else None if None in answers else False

    def _equals(self, value: Any) -> bool:
        """Compare as text in any letter case, with ``*`` and ``?`` as wildcards; numbers by value."""
        text, wanted = str(value).casefold(), self.value.casefold()
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return text == wanted or _number(wanted) == value
        if self.key in PATH_FIELDS and text.startswith(wanted.rstrip("/") + "/"):
            return True
        # a "[" is literal here, as only * and ? are wildcards
        return fnmatchcase(text, wanted.replace("[", "[[]")) if set("*?") & set(wanted) else text == wanted

    def _ordered(self, value: Any) -> bool | None:
        """Compare as numbers, else as dates (``<=2026`` means until its end); None if the value is neither."""
        order = _ORDERS[self.sign]
        number, wanted = _number(value), _number(self.value)
        if number is not None and wanted is not None:
            return order(number, wanted)
        days, wanted_days = day_span(value), day_span(self.value)
        if days is None or wanted_days is None:
            return None
        return order(days.first, wanted_days.first if self.sign in (">=", "<") else wanted_days.last)


def day_span(value: Any) -> DaySpan | None:
    """Return the days that ``2026-05-01``, ``2026-05`` or ``2026`` (also as a number) mean; None for anything else.

    A time of day is ignored: documents are published, and expire, by the day.
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
    """Return the day given as YYYY-MM-DD, None for no text; UsageProblem (naming ``option``) for anything else."""
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise UsageProblem(f"{option} {text!r} is not a day", "write it as 2026-05-01") from None


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None

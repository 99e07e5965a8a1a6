"""Conditions on a document's metadata: ``tags=ferry``, ``doc=fares/``, ``price<=20``, ``date>=2026-05``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from rag.days import span
from rag.errors import UsageProblem

_SIGN = re.compile("!=|>=|<=|=|<|>")
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip
SHOWN = 100
"""Most characters of a text that a refusal repeats."""
PATHS = ("doc", "source")
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
            shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
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
        if self.key in PATHS and text.startswith(wanted.rstrip("/") + "/"):
            return True
        return fnmatchcase(text, wanted.replace("[", "[[]")) if set("*?") & set(wanted) else text == wanted

    def _ordered(self, value: Any) -> bool | None:
        """Compare as numbers, else as dates (``<=2026`` is "until its end"); None when it is neither."""
        order = _ORDERS[self.sign]
        number, wanted = _number(value), _number(self.value)
        if number is not None and wanted is not None:
            return order(number, wanted)
        here, there = span(value), span(self.value)
        if here is None or there is None:
            return None
        return order(here.first, there.first if self.sign in (">=", "<") else there.last)


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None

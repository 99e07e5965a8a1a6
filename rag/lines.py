"""Lines of a text by character offset; newlines may be ``\\n``, ``\\r\\n`` or ``\\r``."""

from __future__ import annotations

import re
from bisect import bisect_right

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


def spans(text: str) -> list[tuple[int, int]]:
    """Return (start, end) of every line, the newline included in its line."""
    return [match.span() for match in _LINE.finditer(text)]


def starts(text: str) -> list[int]:
    """Return the offset at which each line begins; an empty text has one line."""
    return [start for start, _ in spans(text)] or [0]


def number(line_starts: list[int], offset: int) -> int:
    """Return the line number, from 1, that holds a character offset."""
    return max(1, bisect_right(line_starts, offset))

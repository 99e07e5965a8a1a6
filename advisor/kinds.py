"""The kinds of answers: how each is read from what a person types or a file holds."""

from __future__ import annotations

import difflib
import re
from typing import Any

from advisor.questions import Question
from rag.errors import BadInput

_YES, _NO = ("yes", "y", "true", "1", "on"), ("no", "n", "false", "0", "off")
_SCALE = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9}
_NUMBER = re.compile(r"^([0-9][0-9_,]*(?:\.[0-9]+)?(?:e[0-9]+)?)\s*(k|m|b|g)?\s*([a-z%$]*)$", re.IGNORECASE)
_UNITS = {"", "gib", "gb", "g", "b", "ms", "usd", "$", "days", "day", "tokens", "ib"}


def _text(asked: Question, given: Any) -> str:
    if not isinstance(given, str):
        raise refused(asked, given)
    return given.strip()


def _choice(asked: Question, given: Any) -> str:
    names = [choice.value for choice in asked.choices]
    text = str(given).strip().lower()
    if text in names:
        return text
    if text == "false" and "none" in names:  # YAML 1.1 reads a bare `no` as false
        return "none"
    raise refused(asked, given, difflib.get_close_matches(text, names, n=1))


def _flag(asked: Question, given: Any) -> bool:
    if isinstance(given, bool):
        return given
    text = str(given).strip().lower()
    if text in _YES or text in _NO:
        return text in _YES
    raise refused(asked, given)


def _number(asked: Question, given: Any) -> float | int:
    if isinstance(given, bool):
        raise refused(asked, given)
    number = float(given) if isinstance(given, int | float) else _spoken(asked, str(given))
    if not asked.low <= number <= asked.high:
        raise refused(asked, given)
    if asked.kind == "count":
        if number != int(number) or number > 1e18:
            raise refused(asked, given)
        return int(number)
    return int(number) if number == int(number) and asked.kind == "number" else number


def _share(asked: Question, given: Any) -> float:
    if isinstance(given, str) and given.strip().endswith("%"):
        given = _spoken(asked, given.strip()[:-1]) / 100
    number = float(_number(asked, given))
    if not 0 <= number <= 1:
        raise refused(asked, given)
    return number


def _spoken(asked: Question, text: str) -> float:
    """Read "24G", "80 GB", "1.2M", "10k"; a G or B after memory or parameters is a unit, not a billion."""
    match = _NUMBER.match(text.strip())
    if not match:
        raise refused(asked, text)
    scale, unit = (match[2] or "").lower(), match[3].lower()
    if asked.kind != "count" and scale in ("g", "b"):
        scale, unit = "", ""
    if unit not in _UNITS:
        raise refused(asked, text)
    return float(match[1].replace(",", "").replace("_", "")) * _SCALE.get(scale, 1.0)


def refused(asked: Question, given: Any, close: list[str] | None = None) -> BadInput:
    """Return the error for a value that the question does not allow, with what it does."""
    hint = f"allowed: {asked.allowed}, or ? for unknown"
    if close:
        hint = f"did you mean {close[0]}? ({hint})"
    return BadInput(f"{asked.id} cannot be {given!r}", hint)


READERS = {"text": _text, "path": _text, "choice": _choice, "flag": _flag, "count": _number,
            "number": _number, "share": _share}  # fmt: skip

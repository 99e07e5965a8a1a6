"""Read one answer: text as a person types it, or a value from a file, checked against its question."""

from __future__ import annotations

import difflib
import math
import re
from pathlib import Path
from typing import Any

from advisor.questions import BY_ID, Question
from rag.errors import BadInput

UNKNOWN = ("", "?", "unknown", "null", "don't know")
_YES, _NO = ("yes", "y", "true", "1", "on"), ("no", "n", "false", "0", "off")
_SCALE = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9}
_NUMBER = re.compile(r"^([0-9][0-9_,]*(?:\.[0-9]+)?(?:e[0-9]+)?)\s*(k|m|b|g)?\s*([a-z%$]*)$", re.IGNORECASE)
_UNITS = {"", "gib", "gb", "g", "b", "ms", "usd", "$", "days", "day", "tokens", "ib"}


def question(key: str) -> Question:
    """Return the question of this id; BadInput with the closest id when there is none."""
    if key in BY_ID:
        return BY_ID[key]
    close = difflib.get_close_matches(key, BY_ID, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(BY_ID)}"
    raise BadInput(f"unknown question {key!r}", hint)


def read(key: str, given: Any) -> Any:
    """Return the checked value of an answer; None is unknown.

    Accepts what a person types ("24 GB", "10k", "80%", "yes") and what a file holds. Raises BadInput naming
    the key, the value and what is allowed.
    """
    asked = question(key)
    if given is None or (isinstance(given, str) and given.strip().lower() in UNKNOWN):
        return None
    if isinstance(given, str) and asked.none_allowed and given.strip().lower() == "none":
        return "none"
    if isinstance(given, float) and not math.isfinite(given):
        raise _bad(asked, given)
    return _READERS[asked.kind](asked, given)


def names_a_path(text: str) -> bool:
    """Whether there is something at this path; long texts and odd characters are no paths, not errors."""
    try:
        return Path(text).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False


def say(value: Any, width: int = 0) -> str:
    """Return a value as a person reads it, on one line; longer than ``width``, it ends in an ellipsis."""
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = f"{value:,}" if isinstance(value, int) else " ".join(str(value).split())
    return text if not width or len(text) <= width else text[: width - 1] + "…"


def _text(asked: Question, given: Any) -> str:
    if not isinstance(given, str):
        raise _bad(asked, given)
    return given.strip()


def _choice(asked: Question, given: Any) -> str:
    names = [choice.value for choice in asked.choices]
    text = str(given).strip().lower()
    if text in names:
        return text
    if text == "false" and "none" in names:  # YAML 1.1 reads a bare `no` as false
        return "none"
    raise _bad(asked, given, difflib.get_close_matches(text, names, n=1))


def _flag(asked: Question, given: Any) -> bool:
    if isinstance(given, bool):
        return given
    text = str(given).strip().lower()
    if text in _YES or text in _NO:
        return text in _YES
    raise _bad(asked, given)


def _number(asked: Question, given: Any) -> float | int:
    if isinstance(given, bool):
        raise _bad(asked, given)
    number = float(given) if isinstance(given, int | float) else _spoken(asked, str(given))
    if not asked.low <= number <= asked.high:
        raise _bad(asked, given)
    if asked.kind == "count":
        if number != int(number) or number > 1e18:
            raise _bad(asked, given)
        return int(number)
    return int(number) if number == int(number) and asked.kind == "number" else number


def _share(asked: Question, given: Any) -> float:
    if isinstance(given, str) and given.strip().endswith("%"):
        given = _spoken(asked, given.strip()[:-1]) / 100
    number = float(_number(asked, given))
    if not 0 <= number <= 1:
        raise _bad(asked, given)
    return number


def _spoken(asked: Question, text: str) -> float:
    """Read "24G", "80 GB", "1.2M", "10k"; a G or B after memory or parameters is a unit, not a billion."""
    match = _NUMBER.match(text.strip())
    if not match:
        raise _bad(asked, text)
    scale, unit = (match[2] or "").lower(), match[3].lower()
    if asked.kind != "count" and scale in ("g", "b"):
        scale, unit = "", ""
    if unit not in _UNITS:
        raise _bad(asked, text)
    return float(match[1].replace(",", "").replace("_", "")) * _SCALE.get(scale, 1.0)


def _bad(asked: Question, given: Any, close: list[str] | None = None) -> BadInput:
    hint = f"allowed: {asked.allowed}, or ? for unknown"
    if close:
        hint = f"did you mean {close[0]}? ({hint})"
    return BadInput(f"{asked.id} cannot be {given!r}", hint)


_READERS = {"text": _text, "path": _text, "choice": _choice, "flag": _flag, "count": _number,
            "number": _number, "share": _share}  # fmt: skip

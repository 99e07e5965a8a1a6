"""Read one answer: text as a person types it, or a value from a file, checked against its question."""

from __future__ import annotations

import difflib
import math
from pathlib import Path
from typing import Any

from advisor.kinds import READERS, refused
from advisor.questions import BY_ID, Question
from rag.errors import BadInput

UNKNOWN = ("", "?", "unknown", "null", "don't know")


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
        raise refused(asked, given)
    return READERS[asked.kind](asked, given)


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

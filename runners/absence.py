"""Texts that say "there is no value": what a question's gold may be, and what an answer should then be. Light."""

from __future__ import annotations

import re
from collections.abc import Sequence

_NOTHING = frozenset(
    {
        "", "none", "null", "nil", "n a", "na", "nothing", "unknown", "unspecified", "unstated", "missing", "absent",
        "no value", "no answer", "empty", "not applicable",
    }
)  # fmt: skip
_SAID = "stated|mentioned|specified|given|provided|available|known|disclosed|listed|indicated|recorded|found"
_NOT_SAID = re.compile(
    rf"(?:\w+ ){{0,4}}(?:not|\w+n t) (?:{_SAID})(?: here| anywhere| (?:in|by|on|from|within)(?: \w+){{1,5}})?"
)


def says_nothing(text: str) -> bool:
    """Whether a text, all of it, stands for the absence of a value: "", "n/a", "null", "[]", "It is not stated."

    What goes on after that, or holds a number, is taken for a value ("not stated, but 12 euros").
    """
    plain = " ".join(re.findall(r"\w+", text.casefold()))
    return plain in _NOTHING or bool(_NOT_SAID.fullmatch(plain) and not re.search(r"\d", plain))


def all_absent(golds: Sequence[str]) -> bool:
    """Whether there is gold, and every text of it says that there is no value."""
    return bool(golds) and all(says_nothing(gold) for gold in golds)

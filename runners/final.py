"""The final answer of a reply that is worked out before it: the part that a check of the plan calls ``answer``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from runners.plan import Check

GROUP = "answer"
"""The name of the group, as in ``#### (?P<answer>[0-9]+)$``, that marks the final answer in a check's pattern."""


def marks_answer(checks: Sequence[Check]) -> bool:
    """Whether one of the checks says where a reply's final answer stands."""
    return bool(_patterns(checks))


def final_answer(answer: str, gold: str, checks: Sequence[Check]) -> float | None:
    """1 when the final answer is the gold's, 0 when it is another or there is none; None when the gold has none.

    Numbers are compared as numbers (1,200 is 1200.00), anything else but for case and white space.
    """
    for pattern in _patterns(checks):
        wanted = _found(pattern, gold)
        if wanted is not None:
            return float(_found(pattern, answer) == wanted)
    return None


def _found(pattern: re.Pattern[str], text: str) -> float | str | None:
    match = pattern.search(text.strip())
    if match is None or not (said := match[GROUP]):
        return None
    try:
        return float(re.sub(r"[$,\s]", "", said))
    except ValueError:
        return " ".join(said.casefold().split())


def _patterns(checks: Sequence[Check]) -> list[re.Pattern[str]]:
    regexes = [_compiled(check.value) for check in checks if check.kind == "regex"]
    return [pattern for pattern in regexes if GROUP in pattern.groupindex]


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.DOTALL)

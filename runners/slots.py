"""Answers that are JSON, slot by slot: which of the reference's values are there, and which are invented. Light."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

Slots = Counter[tuple[str, str]]
"""Pairs of a slot's path and its value, both as text; a list gives its path once for each member."""


def slots_of(text: str) -> Slots | None:
    """Return the filled slots of a JSON object or array, None when the text, all of it, is neither.

    ``{"a": {"b": "X "}, "c": [1, 2], "d": null}`` has a.b = x, c[] = 1 and c[] = 2. Null, empty texts, lists and
    objects are no values. Texts are compared without case and outer or double spaces, 1 and 1.0 are the same.
    """
    try:
        value = json.loads(text)
        return Counter(_walk("", value)) if isinstance(value, dict | list) else None
    except (ValueError, RecursionError):
        return None


def slot_f1(answer: str, gold: Slots) -> float:
    """Harmonic mean of the shares of the answer's slots that are right and of the gold's that are found.

    0 when the answer is not JSON: nothing could read it.
    """
    given = slots_of(answer)
    if given is None:
        return 0.0
    together = given.total() + gold.total()
    return 2 * (given & gold).total() / together if together else 1.0


def spurious_slots(answer: str, gold: Slots) -> float | None:
    """Share of the answer's slots that the gold does not have at all; None when the answer is not JSON."""
    given = slots_of(answer)
    if given is None:
        return None
    known = {path for path, _ in gold}
    invented = sum(count for (path, _), count in given.items() if path not in known)
    return invented / given.total() if given else 0.0


def _walk(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _walk(f"{path}.{key}" if path else str(key), inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(f"{path}[]", inner)
    elif isinstance(value, str):
        if plain := " ".join(value.casefold().split()):
            yield path, plain
    elif value is not None:
        number = isinstance(value, float) and value.is_integer()
        yield path, json.dumps(int(value) if number else value)

"""What differs between two plans, key by key."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from runners.plan import Plan

RECORDS = frozenset({"answers", "predicted", "house_style"})
"""What is recorded in a plan rather than carried out (free disk space, for one, changes by the hour), or ignored."""
Difference = tuple[str, Any, Any]
"""A dotted key and its values in the first and the second plan; None where one has no such key."""


def differences(old: Plan, new: Plan, left_out: Collection[str] = RECORDS) -> list[Difference]:
    """Return where two plans differ; ``left_out`` names keys of the plan that are not compared."""
    found: list[Difference] = []

    def walk(place: str, a: Any, b: Any) -> None:
        if isinstance(a, dict) and isinstance(b, dict):
            for key in sorted(a.keys() | b.keys()):
                walk(f"{place}.{key}" if place else key, a.get(key), b.get(key))
        elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
            for number, (x, y) in enumerate(zip(a, b, strict=True)):
                walk(f"{place}[{number}]", x, y)
        elif a != b:
            found.append((place, a, b))

    whole = [plan.model_dump(mode="json", by_alias=True, exclude=set(left_out)) for plan in (old, new)]
    walk("", *whole)
    return found

"""What a way of answering costs a month, as a function of the calls: a fixed part, and calls with or without cache.

A prompt cache keeps a prefix for five minutes after its last use. Calls that arrive at random (a Poisson stream of
``n`` a month) find it there with probability 1 - exp(-300 n / seconds of a month): .03 at 300 calls a month, .29
at 3,000, .97 at 30,000.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

HOURS = 730.0
"""Hours of a month (a year's 8,760 over twelve)."""
CACHE_SECONDS = 300.0
"""How long a cached prefix is kept after its last use, the shorter kind of the vendors that say so."""
MOST_CALLS = 1e9


def hit_rate(calls_per_month: float) -> float:
    """Return the share of calls whose prefix was used less than five minutes before."""
    return 1.0 - math.exp(-CACHE_SECONDS * calls_per_month / (HOURS * 3600))


@dataclass(frozen=True, slots=True)
class Line:
    """USD a month: ``fixed`` and, for each call, what it costs with the prefix in the cache or out of it."""

    fixed: float
    fresh: float
    """A call without any cache."""
    hit: float
    """A call that finds its prefix in the cache."""
    write: float
    """A call that has to write its prefix into the cache."""

    @property
    def straight(self) -> bool:
        """Whether every call costs the same, cache or not."""
        return self.hit == self.fresh

    def per_call(self, calls: float) -> float:
        """Return USD of one call at so many a month; the cache is used only where it saves money."""
        if self.straight:
            return self.fresh
        found = hit_rate(calls)
        return min(self.fresh, found * self.hit + (1 - found) * self.write)

    def month(self, calls: float) -> float:
        """Return USD of a month with so many calls."""
        return self.fixed + calls * self.per_call(calls)

    def to_json(self) -> dict[str, float]:
        """Return the four figures under the names that :meth:`of_json` reads."""
        names = ("fixed", "fresh", "hit", "write")
        return {f"{name}_usd": float(f"{getattr(self, name):.6g}") for name in names}

    @classmethod
    def of_json(cls, row: Mapping[str, float]) -> Line:
        """Return the line that :meth:`to_json` described; KeyError when a figure is missing."""
        return cls(row["fixed_usd"], row["fresh_usd"], row["hit_usd"], row["write_usd"])


def crossing(a: Line, b: Line) -> float | None:
    """Return the calls a month from which on ``b`` costs less than ``a`` (or more) for good; None for never.

    Straight lines are solved; with a cache, the last change of sign is bracketed and halved.
    """
    if a.straight and b.straight:
        saved, dearer = a.fresh - b.fresh, b.fixed - a.fixed
        calls = dearer / saved if saved else -1.0
        return calls if 0 < calls <= MOST_CALLS else None

    def over(calls: float) -> bool:
        return a.month(calls) > b.month(calls)

    grid = [10 ** (step / 8) for step in range(8 * 9 + 1)]
    signs = [over(calls) for calls in grid]
    last = next((n for n in range(len(grid) - 1, 0, -1) if signs[n] != signs[n - 1]), None)
    if last is None:
        return None
    low, high = grid[last - 1], grid[last]
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if over(middle) == signs[last] else (middle, high)
    return high

"""An axis of a drawing: from values to shares of its length, and where its numbers stand."""

from __future__ import annotations

import math
from dataclasses import dataclass

STEPS = (1, 2, 2.5, 5, 10)
MOST_TICKS = 6


@dataclass(frozen=True, slots=True)
class Axis:
    """A named axis; with ``log``, ``low`` and ``high`` are powers of ten."""

    name: str
    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """Return where a value stands, between 0 and 1."""
        at = math.log10(max(value, 1e-12)) if self.log else value
        return max(0.0, min(1.0, (at - self.low) / (self.high - self.low)))

    def across(self, value: float) -> str:
        """Return a value's place from the left, in percent."""
        return f"{100 * self.share(value):.2f}%"

    def up(self, value: float) -> str:
        """Return a value's place from the top, in percent."""
        return f"{100 - 100 * self.share(value):.2f}%"

    @property
    def ticks(self) -> list[float]:
        """The values that are named: powers of ten, or at most seven round numbers."""
        if self.log:
            powers = range(math.ceil(self.low), math.floor(self.high) + 1)
            every = max(1, math.ceil(len(powers) / MOST_TICKS))
            return [10.0**power for power in powers[::every]]
        size = (self.high - self.low) / MOST_TICKS
        power = 10 ** math.floor(math.log10(size))
        step = next(s * power for s in STEPS if s * power >= size * 0.999)
        return [n * step for n in range(math.ceil(self.low / step), math.floor(self.high / step + 1e-9) + 1)]

    def anchor(self, value: float) -> str:
        """Return how a number under the axis is aligned, so that none runs over an edge."""
        share = self.share(value)
        return "start" if share < 0.03 else "end" if share > 0.97 else "middle"

    def say(self, value: float) -> str:
        """Return a value as a person reads it."""
        if self.log and value >= 1_000_000:
            return f"{value / 1_000_000:,.0f} M"
        return f"{value:,.0f}" if value >= 1000 else f"{value:g}"

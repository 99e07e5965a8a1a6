"""A figure that is not known exactly: a low, a likely and a high end."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Range:
    """A low, a likely and a high figure, in the unit that its owner names."""

    low: float
    likely: float
    high: float

    def times(self, low: float, likely: float, high: float) -> Range:
        """Scale each end by its own factor."""
        return Range(self.low * low, self.likely * likely, self.high * high)

    def to_json(self) -> dict[str, float]:
        """Return the three figures, rounded to four significant digits."""
        return {name: float(f"{getattr(self, name):.4g}") for name in ("low", "likely", "high")}


NOTHING = Range(0.0, 0.0, 0.0)

"""A share of counted cases with its Wilson interval: what a few yes-or-no answers allow to be said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Share:
    """How many of n cases hold, with the 95 % Wilson score interval (Wilson 1927), which holds for small n."""

    hits: int
    n: int
    low: float
    high: float

    @classmethod
    def of(cls, hits: int, n: int) -> Share:
        """Count; ValueError unless 0 <= hits <= n. Nothing counted says nothing: the interval is 0 to 1."""
        if not 0 <= hits <= n:
            raise ValueError(f"{hits} of {n} is no share")
        if n == 0:
            return cls(0, 0, 0.0, 1.0)
        from scipy.stats import binomtest

        found = binomtest(hits, n).proportion_ci(0.95, method="wilson")
        return cls(hits, n, float(found.low), float(found.high))

    @property
    def rate(self) -> float | None:
        """The share itself; None where nothing was counted."""
        return self.hits / self.n if self.n else None

    def above(self, threshold: float) -> bool:
        """Whether all of the interval lies above a threshold."""
        return self.n > 0 and self.low > threshold

    def below(self, threshold: float) -> bool:
        """Whether all of the interval lies below a threshold."""
        return self.n > 0 and self.high < threshold

    def text(self) -> str:
        """Return the count with its interval, in words; never a percentage alone."""
        if not self.n:
            return "none asked"
        return f"{self.hits} of {self.n} (95 % interval {self.low:.0%} to {self.high:.0%})"

    def short(self) -> str:
        """Return the count with its interval, as a table shows it."""
        return f"{self.hits} of {self.n}  {self.low:.0%}–{self.high:.0%}" if self.n else "–"

    def to_json(self) -> dict[str, Any]:
        """Return count and interval as JSON values."""
        rate = None if self.rate is None else round(self.rate, 4)
        return {"hits": self.hits, "n": self.n, "rate": rate,
                "low": round(self.low, 4), "high": round(self.high, 4)}  # fmt: skip

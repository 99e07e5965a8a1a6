"""What hosted models charge, per million tokens; the age is said aloud wherever a price is used."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

STALE_DAYS = 90


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens, as listed by the vendor on ``day``."""

    model: str
    input: float
    cached: float
    output: float
    day: date
    source: str

    def age_days(self, today: date) -> int:
        """Return how old the price is."""
        return (today - self.day).days


PRICES: tuple[Price, ...] = (
    Price("gpt-4o-mini", 0.15, 0.075, 0.60, date(2025, 6, 1), "vendor's list price, not re-checked"),
    Price("gpt-4.1-mini", 0.40, 0.10, 1.60, date(2025, 6, 1), "vendor's list price, not re-checked"),
    Price("gpt-4.1", 2.00, 0.50, 8.00, date(2025, 6, 1), "vendor's list price, not re-checked"),
    Price("claude-3.5-haiku", 0.80, 0.08, 4.00, date(2025, 6, 1), "vendor's list price, not re-checked"),
    Price("claude-sonnet-4", 3.00, 0.30, 15.00, date(2025, 6, 1), "vendor's list price, not re-checked"),
    Price("gemini-2.5-flash", 0.30, 0.075, 2.50, date(2025, 7, 1), "vendor's list price, not re-checked"),
)
REFERENCE = PRICES[0]
"""The price that per-call estimates use when the model has none of its own."""

"""Time and money of a method, as ranges that name what they assume; the parts are in files of their own.

Tokens: ``tokens.py``. Hours: ``training_time.py``. Training money: ``rental.py``. Calls: ``money.py``,
``serving.py`` and ``monthly.py``. Where two methods cost the same: ``crossing.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from advisor.costs import call_prices as _money
from advisor.costs import training_time as _training_time
from advisor.costs.rental import cheapest_rental, training_cost
from advisor.costs.tokens import (
    Range,
)
from advisor.costs.training_time import training_hours
from advisor.questionnaire.profile import Profile
from runners.resources.memory_estimate import MemoryEstimate


@dataclass(frozen=True, slots=True)
class MethodEstimate:
    """What a method would take here; None is not known (no model size, say)."""

    memory: MemoryEstimate | None = None
    device_gib: float | None = None
    hours: Range | None = None
    usd: Range | None = None
    per_call_usd: float | None = None
    assumptions: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the ``estimate`` object of product.md."""
        return {
            "memory_gib": self.memory.to_json(self.device_gib) if self.memory else None,
            "hours": self.hours.to_json() if self.hours else None,
            "usd": self.usd.to_json() if self.usd else None,
            "per_call_usd": None if self.per_call_usd is None else float(f"{self.per_call_usd:.3g}"),
            "assumptions": list(self.assumptions),
        }


def estimate_basis(profile: Profile, method: str = "") -> tuple[str, ...]:
    """Say what hours, training money and calls assume, for an estimate's assumptions.

    ``method`` is a way of tuning (lora, qlora, full), or empty for a method that trains nothing.
    """
    lines = list(_money.call_price_basis(profile))
    if method and training_hours(profile, method):
        lines += _training_time.training_time_assumptions(profile)
        usd, rental = training_cost(profile, method), cheapest_rental(profile, method)
        if usd and usd.high == 0 and rental:
            lines.append(
                f"training on your own hardware costs no money; rented ({rental.count} x {rental.card.name}) "
                f"it would be about {rental.usd.likely:,.2f} USD"
            )
        elif usd and rental:
            lines.append(
                f"trained on {rental.count} x {rental.card.name}, rented for {rental.hours.likely:,.1f} h"
            )
    return tuple(lines)

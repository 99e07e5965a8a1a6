"""The estimate of a method: memory, hours and money as ranges, with what they assume.

The parts are computed in :mod:`advisor.costs.tokens` (token counts), :mod:`advisor.costs.training_time`
(hours), :mod:`advisor.costs.rental` (money of training), :mod:`advisor.costs.call_prices` and
:mod:`advisor.costs.hosting` (money of calls). :mod:`advisor.recommendation.break_even` compares the methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from advisor.costs.call_prices import CALL_COVERAGE, call_price_basis
from advisor.costs.rental import cheapest_rental, training_cost
from advisor.costs.tokens import Range
from advisor.costs.training_time import HOURS_COVERAGE, training_hours, training_time_assumptions
from advisor.questionnaire.profile import Profile
from runners.resources.memory_estimate import MemoryEstimate


@dataclass(frozen=True, slots=True)
class MethodEstimate:
    """What a method takes in this situation; None is not known (no model size, for instance)."""

    memory: MemoryEstimate | None = None
    device_gib: float | None = None
    """GiB of one device here, that the memory is compared with."""
    hours: Range | None = None
    usd: Range | None = None
    """USD of training, once."""
    per_call_usd: float | None = None
    assumptions: tuple[str, ...] = ()
    per_call_range: Range | None = None
    """USD of a call with the range of its tokens."""

    def to_json(self) -> dict[str, Any]:
        """Return the ``estimate`` object of product.md."""
        return {
            "memory_gib": self.memory.to_json(self.device_gib) if self.memory else None,
            "hours": with_coverage(self.hours),
            "usd": with_coverage(self.usd),
            "per_call_usd": None if self.per_call_usd is None else float(f"{self.per_call_usd:.3g}"),
            **(
                {"per_call_usd_range": with_coverage(self.per_call_range, CALL_COVERAGE)}
                if self.per_call_range
                else {}
            ),
            "assumptions": list(self.assumptions),
        }


def with_coverage(figure: Range | None, share: float = HOURS_COVERAGE) -> dict[str, float] | None:
    """Return a figure as JSON with the share of recorded runs that such ranges hold; without it where nothing is uncertain.

    Args:
        figure: low, likely and high; None is unknown.
        share: the stated coverage.
    """
    if figure is None:
        return None
    return figure.to_json() | ({"coverage": share} if figure.high > figure.low else {})


def estimate_basis(profile: Profile, method: str = "") -> tuple[str, ...]:
    """Return what hours, training money and calls assume, for an estimate's assumptions.

    ``method`` is a tuning method (lora, qlora, full), or empty for a method that trains nothing.
    """
    lines = list(call_price_basis(profile))
    if method and training_hours(profile, method):
        lines += training_time_assumptions(profile)
        usd = training_cost(profile, method)
        rental = cheapest_rental(profile, method)
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

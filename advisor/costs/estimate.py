"""The estimate of a method: memory, hours and money as ranges, with what they assume.

The parts are computed in :mod:`advisor.costs.tokens` (token counts), :mod:`advisor.costs.training_time`
(hours), :mod:`advisor.costs.rental` (money of training), :mod:`advisor.costs.call_prices` and
:mod:`advisor.costs.hosting` (money of calls). :mod:`advisor.recommendation.break_even` compares the methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from advisor.costs.call_prices import CALL_COVERAGE, call_price_basis
from advisor.costs.rental import cheapest_rental, memory_use_of, training_cost
from advisor.costs.tokens import Range, device_plan
from advisor.costs.training_time import (
    HOURS_COVERAGE,
    training_hours,
    training_hours_alone,
    training_time_assumptions,
)
from advisor.questionnaire.profile import Profile
from runners.resources.memory_estimate import MemoryEstimate


@dataclass(frozen=True, slots=True)
class Launch:
    """How a launcher must start a run so that a training uses all GPUs, as its estimate counts on."""

    devices: int
    parallel: str
    """ddp, a whole copy in each, or fsdp, sharded: what ``parallel: auto`` is expected to choose."""
    flags: str
    """Flags of ``tunewise run`` and ``tunewise train``."""
    why: str
    """What one GPU cannot do, or what several do faster."""

    def to_json(self) -> dict[str, Any]:
        """Return the ``launcher`` object of an estimate."""
        return {"devices": self.devices, "parallel": self.parallel, "flags": self.flags, "why": self.why}


@dataclass(frozen=True, slots=True, kw_only=True)
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
    seconds: Range | None = None
    """Seconds of an answer of a hosted model in published runs."""
    launch: Launch | None = None
    """How a launcher starts it, where memory and hours count on several GPUs."""

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
            **({"seconds": self.seconds.to_json()} if self.seconds else {}),
            **({"launcher": self.launch.to_json()} if self.launch else {}),
            "assumptions": list(self.assumptions),
        }


def launch_of(profile: Profile, method: str) -> Launch | None:
    """Return how a launcher starts a tuning method here, and why.

    None for one GPU or none, where not even all GPUs hold it, and for another program.
    """
    if not profile.launcher_flags or profile.model_shape is None:
        return None
    plan = device_plan(profile, memory_use_of(method))
    count, flags, gib = profile.devices, profile.launcher_flags, profile.device_gib
    if plan.sharded and plan.memory.fits(gib) == "no":
        return None
    if plan.sharded:
        name = {"full": "full fine-tuning", "lora": "LoRA", "qlora": "QLoRA"}.get(method, method)
        nearly = "nearly fill" if plan.alone.fits(gib) == "tight" else "not fit"
        why = (
            f"{name} of {profile.params_b:.3g} B takes about {plan.alone.likely:.0f} GiB on one GPU and would {nearly} its "
            f"{gib:.0f}: it is sharded over {count} (FSDP2), about {plan.memory.likely:.0f} on each, with {flags}"
        )
    else:
        alone = training_hours_alone(profile, method)
        slower = f"; one alone takes about {_duration(alone.likely)}" if alone and alone.likely else ""
        why = f"hours count {count} GPUs with a whole copy each (DDP), with {flags}{slower}"
    return Launch(count, plan.parallel, flags, why)


def _duration(hours: float) -> str:
    return f"{hours:.2g} h" if hours >= 1 else f"{max(1.0, 60 * hours):.0f} min"


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
        lines += training_time_assumptions(profile, method=method)
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

"""What a thousand answers of an arm cost: tokens at a hosted model's price, or the rent of the card for their time."""

from __future__ import annotations

from dataclasses import dataclass

from advisor.facts import gpus, prices
from runners.endpoint import is_private
from runners.models import parse_remote
from runners.plan import Plan
from runners.trial import ArmScores


@dataclass(frozen=True, slots=True)
class Cost:
    """USD for a thousand answers, None where no price is known; `basis` says from what it was worked out."""

    usd: float | None
    basis: str


def per_1000(arm: ArmScores, plan: Plan, gpu: str = "") -> Cost:
    """Cost of a thousand answers, from the tokens or seconds that the trial measured.

    A hosted model is priced by its listed tokens. Answers made on a card here, `gpu` as its driver names it, are
    priced by what an hour of that card rents for, as the trial used it (one card, batches as they were): an estimate
    of what the work is worth, not a bill. No hour of a CPU or of somebody's own server is listed, so those are None.
    """
    step = next((step for step in plan.arms if step.arm == arm.arm), None)
    if step is not None and step.classifier:
        return Cost(None, "a classifier asks no model")
    own = step.model if step is not None and step.model else plan.model
    remote = parse_remote(own.name)
    if remote:
        price = None if is_private(remote.url) else prices.find(remote.name)
        if price is None:
            return Cost(None, "no price of this model is known")
        each = mean(arm.prompt_tokens) * price.input + mean(arm.completion_tokens) * price.output
        return Cost(round(each / 1000, 4), f"tokens at the list price of {price.day} ({price.source})")
    card = gpus.find(gpu) if gpu else None
    if card is None or card.usd_hour is None:
        return Cost(None, f"no price of an hour of {gpu or 'this machine'} is known")
    usd = mean(arm.seconds) * 1000 / 3600 * card.usd_hour
    return Cost(
        round(usd, 4),
        f"seconds measured here, at {card.usd_hour:g} USD an hour for a rented {card.name} ({card.day}, {card.source})",
    )


def mean(values: tuple[float, ...] | tuple[int, ...]) -> float:
    """Mean to four places; 0 of nothing."""
    return round(sum(values) / len(values), 4) if values else 0.0

"""Machines for rent: which of them hold a training run, and what they cost by the hour and by the work done."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from advisor import training_time
from advisor.facts import gpus, own
from advisor.range import Range
from runners.memory import Setup, Shape, Use, smallest

COUNTS = (1, 2, 4, 8)
"""Numbers of cards that one machine can be rented with."""
SET_UP_HOURS = Range(0.1, 0.5, 1.0)
"""Hours that are paid before training starts: the machine, the packages, the model's download. Our assumption."""
SHARING = 3.0
"""How much longer that takes where several cards share a model: sharding is set up and tried. Our assumption."""
NO_BF16 = ("T4", "V100")
"""Cards without native bf16, in which tunewise trains: never offered."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A machine for rent: its cards, and what it costs by the hour and by the work done."""

    card: gpus.Gpu
    count: int
    usd_hour: float
    usd_pflop_hour: Range
    """USD for as much work as 1e15 FLOP/s do in an hour."""

    def usd(self, work: Range) -> tuple[float, float, float]:
        """Return low, likely and high price of this work (in hours of 1e15 FLOP/s) with setting up."""
        each = self.usd_pflop_hour
        usd_hour = self.usd_hour * (SHARING if self.count > 1 else 1.0)
        return (
            work.low * each.low + SET_UP_HOURS.low * usd_hour,
            work.likely * each.likely + SET_UP_HOURS.likely * usd_hour,
            work.high * each.high + SET_UP_HOURS.high * usd_hour,
        )


@lru_cache(maxsize=1024)
def holding(shape: Shape, use: Use, setup: Setup, file: own.File | None) -> tuple[Offer, ...]:
    """Return the machines that hold a use with ease, those with the fewest cards first.

    ``setup`` says how the use trains on one card; ``file`` is the user's own facts as they are now.
    """
    found: list[Offer] = []
    for count in COUNTS:
        need = smallest(shape, use, replace(setup, devices=count)).high
        found += [offer for offer in offers_of(count, file) if offer.card.memory_gib >= need]
    return tuple(found)


@lru_cache(maxsize=16)
def offers_of(count: int, file: own.File | None) -> tuple[Offer, ...]:
    """Return the machines of so many cards that some work may be cheapest on."""
    known = [card for card in gpus.rentable(0) if not card.name.startswith(NO_BF16)]
    offers = [_offer(card, count) for card in known]
    return tuple(one for one in offers if not any(_beats(other, one) for other in offers if other is not one))


def _beats(a: Offer, b: Offer) -> bool:
    """Whether ``a`` holds as much as ``b`` and costs less for whatever is to be done."""
    mine, other = a.usd_pflop_hour, b.usd_pflop_hour
    return (
        a.card.memory_gib >= b.card.memory_gib
        and a.usd_hour < b.usd_hour
        and (mine.low <= other.low and mine.likely <= other.likely and mine.high <= other.high)
    )


def _offer(card: gpus.Gpu, count: int) -> Offer:
    flops, per_hour = training_time.of_card(card, count).flops, (card.usd_hour or 0.0) * count
    each = Range(*(per_hour * 1e15 / end for end in (flops.high, flops.likely, flops.low)))
    return Offer(card, count, per_hour, each)

"""Machines for rent: which of them hold a training run, and what they cost by the hour and by the work done.

What training costs out of pocket: nothing on hardware at hand that holds it, else the cheapest rented cards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from advisor.catalog import gpus, user_catalog
from advisor.costs import training_time
from advisor.costs.tokens import ZERO_RANGE, Range, training_setup
from advisor.costs.training_time import USUAL_CARD_GIB, hours_on
from advisor.questionnaire.profile import Profile
from runners.resources.memory_estimate import smallest_memory
from runners.resources.memory_terms import MemorySetup, MemoryUse
from runners.resources.model_shape import ModelShape

CARD_COUNTS = (1, 2, 4, 8)
"""Numbers of cards that one machine can be rented with."""
SET_UP_HOURS = Range(0.1, 0.5, 1.0)
"""Hours that are paid before training starts: the machine, the packages, the model's download. Our assumption."""
SHARED_HOST_FACTOR = 3.0
"""How much longer that takes where several cards share a model: sharding is set up and tried. Our assumption."""
NO_BF16 = ("T4", "V100")
"""Cards without native bf16, in which tunewise trains: never offered."""


@dataclass(frozen=True, slots=True)
class RentalOffer:
    """A machine for rent: its cards, and what it costs by the hour and by the work done."""

    card: gpus.GpuFacts
    count: int
    usd_hour: float
    usd_pflop_hour: Range
    """USD for as much work as 1e15 FLOP/s do in an hour."""

    def usd(self, work: Range) -> tuple[float, float, float]:
        """Return low, likely and high price of this work (in hours of 1e15 FLOP/s) with setting up."""
        usd_per_pflop_hour = self.usd_pflop_hour
        usd_hour = self.usd_hour * (SHARED_HOST_FACTOR if self.count > 1 else 1.0)
        return (
            work.low * usd_per_pflop_hour.low + SET_UP_HOURS.low * usd_hour,
            work.likely * usd_per_pflop_hour.likely + SET_UP_HOURS.likely * usd_hour,
            work.high * usd_per_pflop_hour.high + SET_UP_HOURS.high * usd_hour,
        )


@lru_cache(maxsize=1024)
def offers_that_hold(
    shape: ModelShape, use: MemoryUse, setup: MemorySetup, file: user_catalog.CatalogFile | None
) -> tuple[RentalOffer, ...]:
    """Return the machines that hold a use with ease, those with the fewest cards first.

    ``setup`` says how the use trains on one card; ``file`` is the user's own facts as they are now.
    """
    offers: list[RentalOffer] = []
    for count in CARD_COUNTS:
        need = smallest_memory(shape, use, replace(setup, devices=count)).high
        offers += [offer for offer in offers_with_cards(count, file) if offer.card.memory_gib >= need]
    return tuple(offers)


@lru_cache(maxsize=16)
def offers_with_cards(count: int, file: user_catalog.CatalogFile | None) -> tuple[RentalOffer, ...]:
    """Return the machines of so many cards that some work may be cheapest on."""
    cards = [card for card in gpus.rentable_gpus(0) if not card.name.startswith(NO_BF16)]
    offers = [_offer(card, count) for card in cards]
    return tuple(one for one in offers if not any(_beats(other, one) for other in offers if other is not one))


def _beats(a: RentalOffer, b: RentalOffer) -> bool:
    """Whether ``a`` holds as much as ``b`` and costs less for whatever is to be done."""
    a_price, b_price = a.usd_pflop_hour, b.usd_pflop_hour
    return (
        a.card.memory_gib >= b.card.memory_gib
        and a.usd_hour < b.usd_hour
        and (a_price.low <= b_price.low and a_price.likely <= b_price.likely and a_price.high <= b_price.high)
    )


def _offer(card: gpus.GpuFacts, count: int) -> RentalOffer:
    flops, per_hour = training_time.card_device(card, count).flops, (card.usd_hour or 0.0) * count
    usd_per_pflop_hour = Range(*(per_hour * 1e15 / end for end in (flops.high, flops.likely, flops.low)))
    return RentalOffer(card, count, per_hour, usd_per_pflop_hour)


_PETAFLOP = training_time.TrainingDevice(Range(1e15, 1e15, 1e15), True, "1e15 FLOP/s")


@dataclass(frozen=True, slots=True)
class Rental:
    """The rented machine on which a method likely costs least, its hours, and what they cost."""

    card: gpus.GpuFacts
    count: int
    hours: Range
    usd: Range
    """Each end is the cheapest of all machines that hold the method, so a larger model never costs less."""


def training_cost(profile: Profile, method: str) -> Range | None:
    """USD of training: 0 on hardware at hand that holds it, else on the cheapest rented cards that do.

    The rented price does not depend on the hardware at hand, so more of it never makes a method dearer. Where
    a GPU's memory is unknown the low end is 0. None when the model's size is unknown, when its weights are
    behind an endpoint, or when no known card holds it.
    """
    if profile.remote or profile.model_shape is None:
        return None
    held = fits_at_hand(profile, method)
    if held:
        return ZERO_RANGE
    rental = cheapest_rental(profile, method)
    if rental is None:
        return None
    return Range(0.0, rental.usd.likely, rental.usd.high) if held is None else rental.usd


def fits_at_hand(profile: Profile, method: str) -> bool | None:
    """Whether hardware at hand holds a method's training: a GPU, or the RAM; None where that is unknown."""
    shape = profile.model_shape
    if profile.has_gpu is None or shape is None:
        return False
    memories = [
        profile.device_gib if profile.has_gpu else None,
        profile.ram_gib * 0.9 if profile.ram_gib else None,
    ]
    need = smallest_memory(shape, memory_use_of(method), training_setup(profile))
    fits = [need.fits(gib) != "no" for gib in memories if gib is not None]
    if any(fits) or (profile.has_gpu is False and not fits):
        return True
    return None if profile.has_gpu and profile.device_gib is None else False


def cheapest_rental(profile: Profile, method: str) -> Rental | None:
    """Return the rented machine on which a method costs least, whatever is at hand; None when none holds it."""
    shape = profile.model_shape
    offers = (
        offers_that_hold(
            shape, memory_use_of(method), training_setup(profile, 1), user_catalog.catalog_file()
        )
        if shape
        else ()
    )
    if shape is None or not offers:
        return None
    work = hours_on(profile, shape, method, _PETAFLOP)
    prices = [offer.usd(work) for offer in offers]
    best = offers[min(range(len(offers)), key=lambda n: prices[n][1])]
    hours = hours_on(profile, shape, method, training_time.card_device(best.card, best.count))
    return Rental(best.card, best.count, hours, Range(*(min(ends) for ends in zip(*prices, strict=True))))


def training_usd(profile: Profile, hours: Range | None) -> Range | None:
    """What these hours cost on the hardware of the profile: nothing on its own, else the rent of a usual card."""
    if hours is None or profile.has_gpu is False or (profile.has_gpu and profile.gpu_memory_gib):
        return hours and ZERO_RANGE
    prices = [card.usd_hour or 0.0 for card in gpus.rentable_gpus(USUAL_CARD_GIB)[:5]]
    return hours.times(prices[0], prices[len(prices) // 2], prices[-1]).times(*(float(profile.devices),) * 3)


def memory_use_of(method: str) -> MemoryUse:
    """Return how a method uses memory; a hybrid stands on LoRA."""
    return "full" if method == "full" else "qlora" if method == "qlora" else "lora"

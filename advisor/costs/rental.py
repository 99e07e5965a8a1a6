"""Rented GPUs: which offers hold a training run, their price, and the cost of training.

Its range joins those of the hours, which hold in :data:`advisor.costs.training_time.HOURS_COVERAGE` of recorded runs, and of
rents (:data:`RENT_RANGE`). That was checked on two published bills only: a QLoRA run of 13.75 USD at .38 of the likely
price, a full run on 8 GPUs of 108 USD at 2.7 times it, both inside the range.

:func:`cheapest_rental` picks the offer for a method, :func:`training_cost` is the money of training: nothing
on hardware at hand that holds it, else the cheapest rental.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from advisor.catalog import gpus
from advisor.costs import training_time
from advisor.costs.tokens import ZERO_RANGE, Range, device_plan, training_setup
from advisor.costs.training_time import USUAL_CARD_GIB, hours_on
from advisor.questionnaire.profile import Profile
from runners.catalog import user_catalog
from runners.resources.memory_estimate import memory_in_group
from runners.resources.memory_terms import MemorySetup, MemoryUse
from runners.resources.model_shape import ModelShape

CARD_COUNTS = (1, 2, 4, 8)
"""Numbers of GPUs that one machine can be rented with."""
MULTI_GPU = Range(0.5, 0.85, 1.0)
"""Speed of each of several rented GPUs relative to one alone, by which offers are compared; the hours of the chosen offer
are estimated with its communication. torchtune's 70B LoRA on 8 A100 loses nothing."""
SET_UP_HOURS = Range(0.1, 0.5, 1.0)
"""Paid hours before training starts: starting the machine, installing packages, downloading the model. Our
assumption.
"""
RENT_RANGE = Range(0.5, 1.0, 1.5)
"""What an hour costs over the catalogue's rent: prices differ by provider and year.

Two published bills (Hugging Face's Personal Copilot, 2023) paid .55 and .84 of today's rent; the high end is our assumption.
"""
SHARED_HOST_FACTOR = 3.0
"""How much longer set-up takes where several GPUs share a model: sharding has to be configured. Our
assumption.
"""
NO_BF16 = ("T4", "V100")
"""GPUs without native bf16: they train in float16 with a loss scale, which was not measured on one; never offered."""
_PETAFLOP = training_time.TrainingDevice(Range(1e15, 1e15, 1e15), True, "1e15 FLOP/s")


@dataclass(frozen=True, slots=True)
class RentalOffer:
    """A machine for rent: its GPUs, and what it costs per hour and per unit of work."""

    card: gpus.GpuFacts
    count: int
    usd_hour: float
    usd_pflop_hour: Range
    """USD for the work of one hour at 1e15 FLOP/s."""

    def usd(self, work: Range) -> tuple[float, float, float]:
        """Return low, likely and high price of this work (in hours at 1e15 FLOP/s) including set-up."""
        training = work.times_independent(self.usd_pflop_hour).times_independent(RENT_RANGE)
        usd_hour = self.usd_hour * (SHARED_HOST_FACTOR if self.count > 1 else 1.0)
        return (
            training.low + SET_UP_HOURS.low * usd_hour,
            training.likely + SET_UP_HOURS.likely * usd_hour,
            training.high + SET_UP_HOURS.high * usd_hour,
        )


@dataclass(frozen=True, slots=True)
class Rental:
    """The rented machine on which a method likely costs least, its hours, and their price."""

    card: gpus.GpuFacts
    count: int
    hours: Range
    usd: Range
    """Each end is the minimum over all offers that hold the method, so a larger model never costs less."""


@lru_cache(maxsize=1024)
def offers_that_hold(
    shape: ModelShape,
    use: MemoryUse,
    setup: MemorySetup,
    file: user_catalog.CatalogFile | None,
    counts: tuple[int, ...] = (1,),
) -> tuple[RentalOffer, ...]:
    """Return the offers whose memory holds even the high estimate of a use, those with the fewest GPUs first.

    Args:
        shape: the model.
        use: how it is used: full, lora, qlora or inference.
        setup: how it is trained on one GPU.
        file: the user's own facts as they are now, part of the cache key.
        counts: numbers of GPUs of one machine that are looked at.
    """
    offers: list[RentalOffer] = []
    for count in counts:
        for offer in offers_with_cards(count, file):
            size = offer.card.memory_gib
            several = replace(setup, devices=count, batch=1, checkpointing=True, loss="rows")
            if memory_in_group(shape, use, several, size)[1].high <= size:
                offers.append(offer)
    return tuple(offers)


@lru_cache(maxsize=16)
def offers_with_cards(count: int, file: user_catalog.CatalogFile | None) -> tuple[RentalOffer, ...]:
    """Return the offers with this many GPUs, without those that another offer beats for any work."""
    cards = [card for card in gpus.rentable_gpus(0) if not card.name.startswith(NO_BF16)]
    offers = [_offer(card, count) for card in cards]
    return tuple(one for one in offers if not any(_beats(other, one) for other in offers if other is not one))


def training_cost(profile: Profile, method: str) -> Range | None:
    """Return USD of training: 0 on hardware at hand that holds it, else on the cheapest rented GPUs that do.

    The rented price does not depend on the hardware at hand, so more of it never makes a method dearer. Where
    a GPU's memory is unknown the low end is 0. None when the model's size is unknown, when its weights are
    behind an endpoint, or when no known GPU holds it.
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
    """Return whether hardware at hand (GPU or RAM) holds a method's training; None where that is unknown."""
    shape = profile.model_shape
    if profile.has_gpu is None or shape is None:
        return False
    memories = [
        profile.device_gib if profile.has_gpu else None,
        profile.ram_gib * 0.9 if profile.ram_gib else None,
    ]
    plan = device_plan(profile, memory_use_of(method))
    # GPUs may share the model, the RAM holds it whole.
    needs = (plan.memory, plan.alone)
    fits = [need.fits(gib) != "no" for need, gib in zip(needs, memories, strict=True) if gib is not None]
    if any(fits) or (profile.has_gpu is False and not fits):
        return True
    return None if profile.has_gpu and profile.device_gib is None else False


def cheapest_rental(profile: Profile, method: str, several: bool = False) -> Rental | None:
    """Return the offer on which a method costs least, whatever is at hand; None when none holds it.

    Args:
        profile: the situation.
        method: the method.
        several: whether machines with several GPUs are looked at where no single GPU holds the method. They always are for
            another program.
    """
    shape = profile.model_shape
    if shape is None:
        return None
    # Of a GPU, whatever is at hand.
    setup = replace(training_setup(profile, rented=True), counter="device", weights=None, fused=False)
    wanted = (shape, memory_use_of(method), setup, user_catalog.catalog_file())
    offers = offers_that_hold(*wanted, CARD_COUNTS if profile.other_program else CARD_COUNTS[:1])
    if not offers and several:
        offers = offers_that_hold(*wanted, CARD_COUNTS)
    if not offers:
        return None
    # Hours at 1e15 FLOP/s are the work itself: every offer is priced by it, without an estimate of its own.
    work = hours_on(profile, shape, method, _PETAFLOP)
    prices = [offer.usd(work) for offer in offers]
    best = offers[min(range(len(offers)), key=lambda n: prices[n][1])]
    hours = hours_on(profile, shape, method, _rented_device(profile, shape, method, best))
    return Rental(best.card, best.count, hours, Range(*(min(ends) for ends in zip(*prices, strict=True))))


def _rented_device(
    profile: Profile, shape: ModelShape, method: str, offer: RentalOffer
) -> training_time.TrainingDevice:
    """Return the GPUs of an offer as they would train the method together."""
    if offer.count == 1:
        return training_time.card_device(offer.card)
    setup = replace(training_setup(profile, rented=True), devices=offer.count, counter="device", weights=None)
    use = memory_use_of(method)
    parallel, _ = memory_in_group(shape, use, setup, offer.card.memory_gib)
    tokens = training_time.step_tokens(profile, use, profile.examples_known)
    group = training_time.device_group((offer.card,), offer.count, parallel, tokens)
    return training_time.card_device(offer.card, offer.count, group)


def training_usd(profile: Profile, hours: Range | None, devices: int = 1) -> Range | None:
    """Return what these hours of ``devices`` GPUs cost: nothing on the profile's hardware, else the rent of usual GPUs."""
    if hours is None or profile.has_gpu is False or (profile.has_gpu and profile.gpu_memory_gib):
        return hours and ZERO_RANGE
    prices = [card.usd_hour or 0.0 for card in gpus.rentable_gpus(USUAL_CARD_GIB)[:5]]
    return hours.times(prices[0], prices[len(prices) // 2], prices[-1]).times(*(float(devices),) * 3)


def memory_use_of(method: str) -> MemoryUse:
    """Return how a method uses memory; a hybrid is taken to be tuned with LoRA."""
    return "full" if method == "full" else "qlora" if method == "qlora" else "lora"


def _beats(a: RentalOffer, b: RentalOffer) -> bool:
    """Return whether ``a`` holds as much as ``b`` and costs less for any work."""
    a_price = a.usd_pflop_hour
    b_price = b.usd_pflop_hour
    return (
        a.card.memory_gib >= b.card.memory_gib
        and a.usd_hour < b.usd_hour
        and (a_price.low <= b_price.low and a_price.likely <= b_price.likely and a_price.high <= b_price.high)
    )


def _offer(card: gpus.GpuFacts, count: int) -> RentalOffer:
    """Return ``count`` GPUs as an offer, with their price for a unit of work."""
    flops = training_time.card_device(card).flops.times(*(float(count),) * 3)
    if count > 1:
        flops = flops.times_independent(MULTI_GPU)
    per_hour = (card.usd_hour or 0.0) * count
    # The fastest estimate of the GPU gives the lowest price of the work.
    usd_per_pflop_hour = Range(*(per_hour * 1e15 / end for end in (flops.high, flops.likely, flops.low)))
    return RentalOffer(card, count, per_hour, usd_per_pflop_hour)

"""What training costs out of pocket: nothing on hardware at hand that holds it, else the cheapest rented cards."""

from __future__ import annotations

from dataclasses import dataclass

from advisor import training_time
from advisor.facts import gpus, own
from advisor.market import holding
from advisor.profile import Profile
from advisor.range import NOTHING, Range
from advisor.tokens import training_setup
from advisor.training_time import USUAL_CARD_GIB, hours_on
from runners.memory import Use, smallest

_PETAFLOP = training_time.Device(Range(1e15, 1e15, 1e15), True, "1e15 FLOP/s")


@dataclass(frozen=True, slots=True)
class Rental:
    """The rented machine on which a method likely costs least, its hours, and what they cost."""

    card: gpus.Gpu
    count: int
    hours: Range
    usd: Range
    """Each end is the cheapest of all machines that hold the method, so a larger model never costs less."""


def out_of_pocket(p: Profile, method: str) -> Range | None:
    """USD of training: 0 on hardware at hand that holds it, else on the cheapest rented cards that do.

    The rented price does not depend on the hardware at hand, so more of it never makes a method dearer. Where
    a GPU's memory is unknown the low end is 0. None when the model's size is unknown, when its weights are
    behind an endpoint, or when no known card holds it.
    """
    if p.remote or p.model_shape is None:
        return None
    held = holds(p, method)
    if held:
        return NOTHING
    rental = rented(p, method)
    if rental is None:
        return None
    return Range(0.0, rental.usd.likely, rental.usd.high) if held is None else rental.usd


def holds(p: Profile, method: str) -> bool | None:
    """Whether hardware at hand holds a method's training: a GPU, or the RAM; None where that is unknown."""
    shape = p.model_shape
    if p.has_gpu is None or shape is None:
        return False
    rooms = [p.device_gib if p.has_gpu else None, p.ram_gib * 0.9 if p.ram_gib else None]
    need = smallest(shape, use(method), training_setup(p))
    known = [need.fits(room) != "no" for room in rooms if room is not None]
    if any(known) or (p.has_gpu is False and not known):
        return True
    return None if p.has_gpu and p.device_gib is None else False


def rented(p: Profile, method: str) -> Rental | None:
    """Return the rented machine on which a method costs least, whatever is at hand; None when none holds it."""
    shape = p.model_shape
    offers = holding(shape, use(method), training_setup(p, 1), own.file()) if shape else ()
    if shape is None or not offers:
        return None
    work = hours_on(p, shape, method, _PETAFLOP)
    prices = [offer.usd(work) for offer in offers]
    best = offers[min(range(len(offers)), key=lambda n: prices[n][1])]
    hours = hours_on(p, shape, method, training_time.of_card(best.card, best.count))
    return Rental(best.card, best.count, hours, Range(*(min(ends) for ends in zip(*prices, strict=True))))


def training_usd(p: Profile, hours: Range | None) -> Range | None:
    """What these hours cost on the hardware of the profile: nothing on its own, else the rent of a usual card."""
    if hours is None or p.has_gpu is False or (p.has_gpu and p.gpu_memory_gib):
        return hours and NOTHING
    prices = [card.usd_hour or 0.0 for card in gpus.rentable(USUAL_CARD_GIB)[:5]]
    return hours.times(prices[0], prices[len(prices) // 2], prices[-1]).times(*(float(p.devices),) * 3)


def use(method: str) -> Use:
    """Return how a method uses memory; a hybrid stands on LoRA."""
    return "full" if method == "full" else "qlora" if method == "qlora" else "lora"

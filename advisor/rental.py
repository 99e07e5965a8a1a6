"""What training costs out of pocket: nothing on hardware at hand that holds it, else the cheapest rented cards."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache

from advisor import speed
from advisor.facts import gpus, own
from advisor.hours import USUAL_CARD_GIB, hours_on
from advisor.profile import Profile
from advisor.range import NOTHING, Range
from runners.memory import Setup, Shape, Use, smallest

COUNTS = (1, 2, 4, 8)
"""Numbers of cards that one machine can be rented with."""
SET_UP_HOURS = Range(0.1, 0.5, 1.0)
"""Hours that are paid before training starts: the machine, the packages, the model's download. Our assumption."""
NO_BF16 = ("T4", "V100")
"""Cards without native bf16, in which tunewise trains: never offered."""


@dataclass(frozen=True, slots=True)
class Rental:
    """The rented machine on which a method likely costs least, its hours, and what they cost."""

    card: gpus.Gpu
    count: int
    hours: Range
    usd: Range
    """Each end is the cheapest of all machines that hold the method, so a larger model never costs less."""


@dataclass(frozen=True, slots=True)
class _Offer:
    """The best of the cards from one memory size up: USD per 1e15 FLOPs, and the card of the likely figure."""

    per_pflop: Range
    card: gpus.Gpu


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
    need = smallest(shape, use(method), Setup(devices=p.devices))
    known = [need.fits(room) != "no" for room in rooms if room is not None]
    if any(known) or (p.has_gpu is False and not known):
        return True
    return None if p.has_gpu and p.device_gib is None else False


def rented(p: Profile, method: str) -> Rental | None:
    """Return the rented machine on which a method costs least, whatever is at hand; None when none holds it."""
    shape = p.model_shape
    offer = _cheapest(shape, use(method), own.file()) if shape else None
    if shape is None or offer is None:
        return None
    best, count = offer
    hours = hours_on(p, shape, method, speed.of_card(best.card, count))
    ready = Range(*(getattr(hours, end) + getattr(SET_UP_HOURS, end) for end in ("low", "likely", "high")))
    flops, pflop = speed.of_card(best.card, count).flops, best.per_pflop
    usd = ready.times(pflop.low * flops.high, pflop.likely * flops.likely, pflop.high * flops.low)
    usd = usd.times(*(3600 / 1e15,) * 3)
    return Rental(best.card, count, hours, usd)


def training_usd(p: Profile, hours: Range | None) -> Range | None:
    """What these hours cost on the hardware of the profile: nothing on its own, else the rent of a usual card."""
    if hours is None or p.has_gpu is False or (p.has_gpu and p.gpu_memory_gib):
        return hours and NOTHING
    prices = [card.usd_hour or 0.0 for card in gpus.rentable(USUAL_CARD_GIB)[:5]]
    return hours.times(prices[0], prices[len(prices) // 2], prices[-1]).times(*(float(p.devices),) * 3)


def use(method: str) -> Use:
    """Return how a method uses memory; a hybrid stands on LoRA."""
    return "full" if method == "full" else "qlora" if method == "qlora" else "lora"


@lru_cache(maxsize=4096)
def _cheapest(shape: Shape, use: Use, file: own.File | None) -> tuple[_Offer, int] | None:
    """Return the cheapest offer over all numbers of cards that hold a use, and the number of the likely one.

    ``file`` is the user's own facts as they are now: when they change, it is asked again.
    """
    found = []
    for count in COUNTS:
        sizes, offers = _offers(count, file)
        place = bisect_left(sizes, smallest(shape, use, Setup(devices=count)).high)
        if place < len(offers):
            found.append((offers[place], count))
    if not found:
        return None
    likely, count = min(found, key=lambda pair: pair[0].per_pflop.likely)
    ends = [offer.per_pflop for offer, _ in found]
    low, high = min(end.low for end in ends), min(end.high for end in ends)
    return _Offer(Range(low, likely.per_pflop.likely, high), likely.card), count


@lru_cache(maxsize=16)
def _offers(count: int, file: own.File | None) -> tuple[list[float], list[_Offer]]:
    """Return memory sizes, ascending, and for each the best offer among the cards of at least that size."""
    known = (card for card in gpus.rentable(0) if not card.name.startswith(NO_BF16))
    cards = sorted(known, key=lambda card: -card.memory_gib)
    offers: list[_Offer] = []
    for card in cards:
        flops, per_hour = speed.of_card(card, count).flops, (card.usd_hour or 0.0) * count
        own = Range(*(per_hour / 3600 * 1e15 / f for f in (flops.high, flops.likely, flops.low)))
        best = offers[-1] if offers else _Offer(own, card)
        cheaper = card if own.likely <= best.per_pflop.likely else best.card
        last = best.per_pflop
        ends = Range(min(own.low, last.low), min(own.likely, last.likely), min(own.high, last.high))
        offers.append(_Offer(ends, cheaper))
    return [c.memory_gib for c in reversed(cards)], list(reversed(offers))

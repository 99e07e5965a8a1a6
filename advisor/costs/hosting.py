"""What answers: hardware at hand, or the cheapest rented cards that hold the model, kept all month.

What a way of answering costs a month, as a function of the calls: a fixed part, and calls with or without cache.

A prompt cache keeps a prefix for five minutes after its last use. Calls that arrive at random (a Poisson stream of
``n`` a month) find it there with probability 1 - exp(-300 n / seconds of a month): .03 at 300 calls a month, .29
at 3,000, .97 at 30,000.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from advisor.catalog import gpus
from advisor.costs.tokens import ANSWER_TOKENS, PROMPT_TOKENS, row_tokens
from advisor.questionnaire.profile import Profile
from runners.resources.memory_estimate import smallest_memory
from runners.resources.memory_terms import MemorySetup
from runners.resources.model_shape import ModelShape

HOURS_PER_MONTH = 730.0
"""Hours of a month (a year's 8,760 over twelve)."""
PREFIX_CACHE_SECONDS = 300.0
"""How long a cached prefix is kept after its last use, the shorter kind of the vendors that say so."""
MAX_CALLS = 1e9


def cache_hit_rate(calls_per_month: float) -> float:
    """Return the share of calls whose prefix was used less than five minutes before."""
    return 1.0 - math.exp(-PREFIX_CACHE_SECONDS * calls_per_month / (HOURS_PER_MONTH * 3600))


@dataclass(frozen=True, slots=True)
class MonthlyCost:
    """USD a month: ``fixed`` and, for each call, what it costs with the prefix in the cache or out of it."""

    fixed: float
    fresh: float
    """A call without any cache."""
    hit: float
    """A call that finds its prefix in the cache."""
    write: float
    """A call that has to write its prefix into the cache."""

    @property
    def straight(self) -> bool:
        """Whether every call costs the same, cache or not."""
        return self.hit == self.fresh

    def per_call(self, calls: float) -> float:
        """Return USD of one call at so many a month; the cache is used only where it saves money."""
        if self.straight:
            return self.fresh
        hit_rate = cache_hit_rate(calls)
        return min(self.fresh, hit_rate * self.hit + (1 - hit_rate) * self.write)

    def month(self, calls: float) -> float:
        """Return USD of a month with so many calls."""
        return self.fixed + calls * self.per_call(calls)

    def to_json(self) -> dict[str, float]:
        """Return the four figures under the names that :meth:`of_json` reads."""
        names = ("fixed", "fresh", "hit", "write")
        return {f"{name}_usd": float(f"{getattr(self, name):.6g}") for name in names}

    @classmethod
    def of_json(cls, row: Mapping[str, float]) -> MonthlyCost:
        """Return the line that :meth:`to_json` described; KeyError when a figure is missing."""
        return cls(row["fixed_usd"], row["fresh_usd"], row["hit_usd"], row["write_usd"])


def break_even_calls(a: MonthlyCost, b: MonthlyCost) -> float | None:
    """Return the calls a month from which on ``b`` costs less than ``a`` (or more) for good; None for never.

    Straight lines are solved; with a cache, the last change of sign is bracketed and halved.
    """
    if a.straight and b.straight:
        saved, dearer = a.fresh - b.fresh, b.fixed - a.fixed
        calls = dearer / saved if saved else -1.0
        return calls if 0 < calls <= MAX_CALLS else None

    def over(calls: float) -> bool:
        return a.month(calls) > b.month(calls)

    grid = [10 ** (step / 8) for step in range(8 * 9 + 1)]
    signs = [over(calls) for calls in grid]
    last = next((n for n in range(len(grid) - 1, 0, -1) if signs[n] != signs[n - 1]), None)
    if last is None:
        return None
    low, high = grid[last - 1], grid[last]
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if over(middle) == signs[last] else (middle, high)
    return high


DECODE_SHARE = 0.55
"""Share of memory bandwidth that decoding one answer at a time uses (llmfit, docs/how-it-works.md)."""
PREFILL_SHARE = 0.4
"""Share of the peak that reading a prompt uses; the same as in training."""


@dataclass(frozen=True, slots=True)
class RentedServing:
    """The cheapest rented cards that hold a model while it answers, kept all month."""

    card: gpus.GpuFacts
    count: int
    month_usd: float
    seconds: float
    """Seconds of one call, one at a time; a server that batches answers many at once."""

    @property
    def capacity(self) -> float:
        """Calls a month, one at a time."""
        return HOURS_PER_MONTH * 3600 / self.seconds

    @property
    def per_call_usd(self) -> float:
        """USD of one call where the cards are rented by the second, one call at a time."""
        return self.month_usd / self.capacity


def cheapest_serving(profile: Profile) -> RentedServing | None:
    """Return the cheapest cards that can be rented to serve this model all month; None when none is known."""
    shape = profile.model_shape
    if shape is None or profile.remote:
        return None
    offers = []
    for count in (1, 2, 4, 8):
        setup = MemorySetup(seq_len=int(row_tokens(profile)), devices=count)
        need = smallest_memory(shape, "inference", setup).high
        offers += [(count * (card.usd_hour or 0.0), count, card) for card in gpus.rentable_gpus(need)[:1]]
    if not offers:
        return None
    usd_hour, count, card = min(offers, key=lambda offer: offer[0])
    return RentedServing(card, count, usd_hour * HOURS_PER_MONTH, seconds_per_call(profile, shape, card))


def seconds_per_call(profile: Profile, shape: ModelShape, card: gpus.GpuFacts) -> float:
    """Return the seconds of one call on a card: reading is bound by its speed, writing by its bandwidth.

    Writing: 0.55 x bandwidth / bytes of the weights in bf16 tokens a second.
    """
    read = (
        2.0 * shape.params * (profile.prompt_tokens or PROMPT_TOKENS) / (PREFILL_SHARE * card.tflops * 1e12)
    )
    written = DECODE_SHARE * card.bandwidth_gbs * 1e9 / (2.0 * shape.params)
    return read + (profile.answer_tokens or ANSWER_TOKENS) / written


def served_locally(profile: Profile) -> bool:
    """Whether the model answers on hardware at hand: it is local, and the GPU or the RAM holds it."""
    shape = profile.model_shape
    if profile.remote or shape is None or profile.device_gib is None:
        return False
    setup = MemorySetup(seq_len=int(row_tokens(profile)), devices=profile.devices)
    return smallest_memory(shape, "inference", setup).fits(profile.device_gib) != "no"

"""Cost of answering per month: at the list price of calls, on hardware at hand, or on rented GPUs.

:class:`MonthlyCost` is a month's cost as a function of the number of calls: a fixed part, and calls that hit
or miss a prompt cache. :func:`break_even_calls` finds where two of them cross, :func:`cheapest_serving` picks
rented GPUs.

A prompt cache keeps a prefix for five minutes after its last use. If calls arrive at random (a Poisson
process with rate ``n`` a month), the prefix is still cached with probability 1 - exp(-300 n / seconds of a
month): .03 at 300 calls a month, .29 at 3,000, .97 at 30,000.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from advisor.catalog import gpus
from advisor.costs.tokens import ANSWER_TOKENS, CONTEXT_TOKENS, PROMPT_TOKENS, output_tokens, row_tokens
from advisor.questionnaire.profile import Profile
from runners.plan.steps import NF4, NO_QUANTIZATION, Quantization
from runners.resources.memory_estimate import MemoryEstimate, batch_memory, smallest_memory
from runners.resources.memory_terms import MemorySetup, WeightKind
from runners.resources.model_shape import ModelShape

HOURS_PER_MONTH = 730.0
"""Hours of a month (a year's 8,760 over twelve)."""
PREFIX_CACHE_SECONDS = 300.0
"""How long a cached prefix is kept after its last use: the shorter of the times that vendors state."""
LONG_CACHE_SECONDS = 3600.0
"""The longer of them."""
DECODE_SHARE = 0.55
"""Share of memory bandwidth that decoding one answer at a time reaches (llmfit, docs/how-it-works.md)."""
PREFILL_SHARE = 0.4
"""Share of the peak FLOP/s that reading a prompt reaches; the same as in training."""
MAX_CALLS = 1e9
"""Break-even is searched up to this many calls a month."""


@dataclass(frozen=True, slots=True)
class MonthlyCost:
    """USD a month: a fixed part and, for each call, the cost with its prefix in the cache or not."""

    fixed: float
    fresh: float
    """A call without a cache."""
    hit: float
    """A call that finds its prefix in the cache."""
    write: float
    """A call that has to write its prefix into the cache."""

    @property
    def straight(self) -> bool:
        """Whether every call costs the same, cache or not, so that the cost is linear in the calls."""
        return self.hit == self.fresh

    def per_call(self, calls: float) -> float:
        """Return USD of one call at this many calls a month; the cache is used only where it saves money."""
        if self.straight:
            return self.fresh
        # The expected cost of a call: a miss has to write the prefix into the cache again.
        hit_rate = cache_hit_rate(calls)
        return min(self.fresh, hit_rate * self.hit + (1 - hit_rate) * self.write)

    def month(self, calls: float) -> float:
        """Return USD of a month with this many calls."""
        return self.fixed + calls * self.per_call(calls)

    def to_json(self) -> dict[str, float]:
        """Return the four figures under the names that :meth:`of_json` reads."""
        names = ("fixed", "fresh", "hit", "write")
        return {f"{name}_usd": float(f"{getattr(self, name):.6g}") for name in names}

    @classmethod
    def of_json(cls, row: Mapping[str, float]) -> MonthlyCost:
        """Return the cost that :meth:`to_json` described; KeyError when a figure is missing."""
        return cls(row["fixed_usd"], row["fresh_usd"], row["hit_usd"], row["write_usd"])


@dataclass(frozen=True, slots=True)
class RentedServing:
    """The cheapest rented GPUs that hold a model for inference, kept all month."""

    card: gpus.GpuFacts
    count: int
    month_usd: float
    seconds: float
    """Seconds of one call, without batching; a server that batches answers many at once."""

    @property
    def capacity(self) -> float:
        """Calls a month without batching."""
        return HOURS_PER_MONTH * 3600 / self.seconds

    @property
    def per_call_usd(self) -> float:
        """USD of one call where the GPUs are rented by the second, without batching."""
        return self.month_usd / self.capacity


def cache_hit_rate(calls_per_month: float, seconds: float = PREFIX_CACHE_SECONDS) -> float:
    """Return the share of calls that arrive within this time, five minutes, of the previous one."""
    return 1.0 - math.exp(-seconds * calls_per_month / (HOURS_PER_MONTH * 3600))


def break_even_calls(a: MonthlyCost, b: MonthlyCost) -> float | None:
    """Return the calls a month beyond which ``b`` is always cheaper than ``a``, or dearer; None for never.

    Two linear costs are solved exactly. With a cache the curves may cross several times: the last change of
    sign on a logarithmic grid is bracketed and bisected to a relative width of 1e-6. (``scipy.optimize.brentq`` would
    replace three lines, and its import takes .5 s, as long as all else in ``plan``.)
    """
    if a.straight and b.straight:
        # a.fixed + n * a.fresh = b.fixed + n * b.fresh, solved for n; parallel lines never cross.
        saved_per_call = a.fresh - b.fresh
        more_fixed = b.fixed - a.fixed
        calls = more_fixed / saved_per_call if saved_per_call else -1.0
        return calls if 0 < calls <= MAX_CALLS else None

    def a_costs_more(calls: float) -> bool:
        return a.month(calls) > b.month(calls)

    # Eight points per power of ten, from 1 to MAX_CALLS (1e9).
    grid = [10 ** (step / 8) for step in range(8 * 9 + 1)]
    signs = [a_costs_more(calls) for calls in grid]
    last = next((n for n in range(len(grid) - 1, 0, -1) if signs[n] != signs[n - 1]), None)
    if last is None:
        return None
    low = grid[last - 1]
    high = grid[last]
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if a_costs_more(middle) == signs[last] else (middle, high)
    return high


def cheapest_serving(profile: Profile) -> RentedServing | None:
    """Return the cheapest GPUs that can be rented to serve this model all month; None when none is known."""
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
    """Return the seconds of one call on a GPU: prefill is bound by its FLOP/s, decoding by its bandwidth.

    Prefill takes 2 FLOPs per parameter and token. Decoding reads all weights that a token uses: 0.55 x
    bandwidth / their bytes in bf16 tokens a second.
    """
    weights = 2.0 * shape.active_params
    prefill_seconds = (
        weights * (profile.prompt_tokens or PROMPT_TOKENS) / (PREFILL_SHARE * card.tflops * 1e12)
    )
    return prefill_seconds + output_tokens(profile) * decoding_seconds(weights, card)


def decoding_seconds(
    weight_bytes: float, card: gpus.GpuFacts, devices: int = 1, share: float = DECODE_SHARE
) -> float:
    """Return the seconds of one token of one answer: weight bytes / (devices x share x bandwidth).

    Every token reads all weights once; cut into ``devices`` parts (tensor parallel) each reads its own.
    """
    return weight_bytes / (devices * share * card.bandwidth_gbs * 1e9)


def served_locally(profile: Profile) -> bool:
    """Return whether the model runs on hardware at hand: it is local, and the GPU or the RAM holds it."""
    shape = profile.model_shape
    if profile.remote or shape is None or profile.device_gib is None:
        return False
    setup = MemorySetup(seq_len=int(row_tokens(profile)), devices=profile.answering_devices)
    return (
        smallest_memory(shape, "inference", setup).fits(profile.device_gib) != "no"
        or answering_quantization(profile)[0] != NO_QUANTIZATION
    )


def answering_memory_of(
    profile: Profile, quantization: Quantization, prompt_tokens: int
) -> MemoryEstimate | None:
    """Estimate a batch of answers on the hardware at hand; None where the model's shape is unknown or it is remote.

    Args:
        profile: the situation.
        quantization: how the model is held.
        prompt_tokens: tokens of a prompt.
    """
    shape = profile.model_shape
    if profile.remote or shape is None:
        return None
    wide: WeightKind | None = "fp32" if profile.computes_in_fp32 else None
    return batch_memory(
        shape,
        prompt_tokens,
        profile.answer_tokens or ANSWER_TOKENS,
        wide if quantization == NO_QUANTIZATION else "nf4-dq",
        on_cpu=profile.has_gpu is False,
    )


def answering_quantization(profile: Profile, qlora: bool = False) -> tuple[Quantization, str]:
    """Return how the model is held when it answers here, and why; nf4 where 16 bits probably do not fit and 4 bits do.

    Args:
        profile: the situation.
        qlora: whether a training of the plan holds it in 4 bits anyway; then 16 bits must surely fit.
    """
    prompt = (profile.prompt_tokens or PROMPT_TOKENS) + (CONTEXT_TOKENS if profile.documents else 0)
    available = profile.device_gib
    wide = answering_memory_of(profile, NO_QUANTIZATION, prompt)
    narrow = answering_memory_of(profile, NF4, prompt)
    if wide is None or narrow is None or available is None:
        return NO_QUANTIZATION, ""
    fits = wide.fits(available)
    # Where it is tight, 16 bits are kept as long as the likely amount fits.
    sixteen_bits = fits == "yes" or (fits == "tight" and not qlora and wide.likely <= available)
    if sixteen_bits or narrow.fits(available) == "no":
        return NO_QUANTIZATION, ""
    bits = 32 if profile.computes_in_fp32 else 16
    return NF4, (
        f"all arms answer from the base in 4 bits (nf4), about {narrow.likely:.1f} GiB of {available:g}: "
        f"in {bits} bits answering takes {wide.low:.1f} to {wide.high:.1f}"
    )

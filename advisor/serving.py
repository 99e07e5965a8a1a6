"""What answers: hardware at hand, or the cheapest rented cards that hold the model, kept all month."""

from __future__ import annotations

from dataclasses import dataclass

from advisor.facts import gpus
from advisor.monthly import HOURS
from advisor.profile import Profile
from advisor.tokens import ANSWER_TOKENS, PROMPT_TOKENS, row_tokens
from runners.memory import Setup, Shape, smallest

DECODE_SHARE = 0.55
"""Share of memory bandwidth that decoding one answer at a time uses (llmfit, docs/how-it-works.md)."""
PREFILL_SHARE = 0.4
"""Share of the peak that reading a prompt uses; the same as in training."""


@dataclass(frozen=True, slots=True)
class Serving:
    """The cheapest rented cards that hold a model while it answers, kept all month."""

    card: gpus.Gpu
    count: int
    month_usd: float
    seconds: float
    """Seconds of one call, one at a time; a server that batches answers many at once."""

    @property
    def capacity(self) -> float:
        """Calls a month, one at a time."""
        return HOURS * 3600 / self.seconds

    @property
    def per_call_usd(self) -> float:
        """USD of one call where the cards are rented by the second, one call at a time."""
        return self.month_usd / self.capacity


def serving(p: Profile) -> Serving | None:
    """Return the cheapest cards that can be rented to serve this model all month; None when none is known."""
    shape = p.model_shape
    if shape is None or p.remote:
        return None
    found = []
    for count in (1, 2, 4, 8):
        setup = Setup(seq_len=int(row_tokens(p)), devices=count)
        need = smallest(shape, "inference", setup).high
        found += [(count * (card.usd_hour or 0.0), count, card) for card in gpus.rentable(need)[:1]]
    if not found:
        return None
    usd_hour, count, card = min(found, key=lambda offer: offer[0])
    return Serving(card, count, usd_hour * HOURS, call_seconds(p, shape, card))


def call_seconds(p: Profile, shape: Shape, card: gpus.Gpu) -> float:
    """Return the seconds of one call on a card: reading is bound by its speed, writing by its bandwidth.

    Writing: 0.55 x bandwidth / bytes of the weights in bf16 tokens a second.
    """
    read = 2.0 * shape.params * (p.prompt_tokens or PROMPT_TOKENS) / (PREFILL_SHARE * card.tflops * 1e12)
    written = DECODE_SHARE * card.bandwidth_gbs * 1e9 / (2.0 * shape.params)
    return read + (p.answer_tokens or ANSWER_TOKENS) / written


def own_machine(p: Profile) -> bool:
    """Whether the model answers on hardware at hand: it is local, and the GPU or the RAM holds it."""
    shape = p.model_shape
    if p.remote or shape is None or p.device_gib is None:
        return False
    setup = Setup(seq_len=int(row_tokens(p)), devices=p.devices)
    return smallest(shape, "inference", setup).fits(p.device_gib) != "no"

"""Time and money of a method: first estimates, as ranges that name what they assume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from advisor.facts import gpus
from advisor.facts.prices import REFERENCE, Price
from advisor.profile import Profile
from runners.memory import Memory

PROMPT_TOKENS, ANSWER_TOKENS = 200, 100
"""What a call is taken to hold when it was not counted."""
CONTEXT_TOKENS = 1024
"""Tokens of passages a retrieval arm adds (the plan's default for context_tokens)."""
SHOTS = 8
EPOCHS = 2.0
USD_PER_B = 0.01
"""Hosted open models ask about 0.01 USD per billion parameters and million input tokens (lists of 2025)."""


@dataclass(frozen=True, slots=True)
class Range:
    """A low, a likely and a high figure."""

    low: float
    likely: float
    high: float

    def times(self, low: float, likely: float, high: float) -> Range:
        """Scale each end by its own factor."""
        return Range(self.low * low, self.likely * likely, self.high * high)

    def to_json(self) -> dict[str, float]:
        """Return the three figures, rounded to four significant digits."""
        return {name: float(f"{getattr(self, name):.4g}") for name in ("low", "likely", "high")}


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a method would take here; None is not known (no model size, say)."""

    memory: Memory | None = None
    device_gib: float | None = None
    hours: Range | None = None
    usd: Range | None = None
    per_call_usd: float | None = None
    assumptions: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the ``estimate`` object of product.md."""
        return {
            "memory_gib": self.memory.to_json(self.device_gib) if self.memory else None,
            "hours": self.hours.to_json() if self.hours else None,
            "usd": self.usd.to_json() if self.usd else None,
            "per_call_usd": None if self.per_call_usd is None else float(f"{self.per_call_usd:.3g}"),
            "assumptions": list(self.assumptions),
        }


def training_tokens(p: Profile) -> float:
    """Tokens that training reads: examples of prompt and answer for two epochs, and raw text once."""
    each = (p.prompt_tokens or PROMPT_TOKENS) + (p.answer_tokens or ANSWER_TOKENS)
    return p.examples_known * each * EPOCHS + p.raw_text


def training_hours(p: Profile, method: str) -> Range | None:
    """Hours of training: tokens x FLOPs per token (6P full, 4P LoRA) over peak x utilisation.

    QLoRA is 2-105 % slower than LoRA in published runs. GPU utilisation 25-50 %; CPU 60-205 GFLOP/s per core
    (without and with native bf16) at 40 %.
    """
    if not p.params_b:
        return None
    flops = training_tokens(p) * p.params_b * 1e9 * (6 if method == "full" else 4)
    slow = (1.02, 1.3, 2.0) if method == "qlora" else (1.0, 1.0, 1.0)
    if p.has_gpu is False:
        cores = p.cpu_cores or 8
        fast, usual, poor = (0.4 * cores * g * 1e9 for g in (205, 150, 60))
    else:
        cards = gpus.of_memory(p.gpu_memory_gib or 24)
        speeds = sorted(card.tflops for card in cards)
        fast, usual, poor = (
            p.devices * 1e12 * x
            for x in (0.5 * speeds[-1], 0.35 * speeds[len(speeds) // 2], 0.25 * speeds[0])
        )
    return Range(flops / fast, flops / usual, flops / poor).times(*(s / 3600 for s in slow))


def training_usd(p: Profile, hours: Range | None) -> Range | None:
    """What these hours cost at rental prices of a card of this memory; on a CPU at hand, nothing."""
    if hours is None:
        return None
    if p.has_gpu is False:
        return Range(0.0, 0.0, 0.0)
    prices = sorted(card.usd_hour for card in gpus.of_memory(p.gpu_memory_gib or 24))
    return hours.times(prices[0] * p.devices, prices[len(prices) // 2] * p.devices, prices[-1] * p.devices)


def price_of(p: Profile) -> Price:
    """Return the price that a call of this model is taken to have."""
    if p.params_b:
        each = USD_PER_B * p.params_b
        return Price("by size", each, each / 2, each, REFERENCE.day, "list prices of hosted open models")
    return REFERENCE


def per_call(p: Profile, fixed: float = 0.0, fresh: float = 0.0) -> float:
    """USD of one call: prompt, ``fixed`` tokens that a cache can hold, ``fresh`` ones it cannot, answer."""
    price = price_of(p)
    tokens_in = (p.prompt_tokens or PROMPT_TOKENS) + fresh
    out = p.answer_tokens or ANSWER_TOKENS
    return (tokens_in * price.input + fixed * price.cached + out * price.output) / 1e6


def bank_tokens(p: Profile) -> float:
    """Tokens of the examples shown in a few-shot prompt."""
    return SHOTS * ((p.prompt_tokens or PROMPT_TOKENS) + (p.answer_tokens or ANSWER_TOKENS))


def break_even(
    p: Profile, prompted: Estimate, tuned: Estimate, names: tuple[str, str]
) -> dict[str, Any] | None:
    """After how many calls training has repaid itself against prompting; "no crossover" when never."""
    if prompted.per_call_usd is None or tuned.per_call_usd is None or tuned.usd is None:
        return None
    saved = prompted.per_call_usd - tuned.per_call_usd
    a, b = names
    found: dict[str, Any] = {"between": [a, b], "calls": None, "saved_per_call_usd": float(f"{saved:.3g}")}
    if saved <= 0:
        found["text"] = f"no crossover: a call of {b} costs no less than one of {a}"
        return found
    if tuned.usd.likely == 0:
        found |= {
            "calls": 0,
            "text": f"training here costs time, not money: {b} is cheaper from the first call",
        }
        return found
    found["calls"] = calls = round(tuned.usd.likely / saved)
    months = f", {calls / p.calls_per_month:.1f} months of yours" if p.calls_per_month else ""
    found["text"] = f"{b} repays its training after about {calls:,} calls{months} (against {a} with caching)"
    return found

"""What hosted models charge; the age of a price is said aloud wherever it is used."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from datetime import date
from functools import lru_cache

from advisor.facts import own

STALE_DAYS = 90


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens, standard service and short prompts, as listed on ``day`` at ``source``.

    ``cached`` is an input token read from the prompt cache (the input price where no cache price is listed);
    writing one to the cache costs ``cache_write`` times the input price.
    """

    model: str
    input: float
    cached: float
    output: float
    day: date
    source: str
    cache_write: float = 1.0

    def age_days(self, today: date) -> int:
        """Return how old the price is, in days."""
        return (today - self.day).days


@dataclass(frozen=True, slots=True)
class Tuning:
    """Hosted tuning of open models up to ``up_to_b`` billion parameters: USD per million training tokens.

    Serving the result is rented by the GPU-hour. ``full`` is None where only LoRA is listed.
    """

    up_to_b: float
    lora: float
    full: float | None
    day: date
    source: str

    def age_days(self, today: date) -> int:
        """Return how old the price is, in days."""
        return (today - self.day).days


_OPENAI = "developers.openai.com/api/docs/pricing"
_RETIRED = f"{_OPENAI}; shuts down on 2027-01-14"
_CLAUDE = "platform.claude.com pricing, cache kept 5 minutes"
_GEMINI = "ai.google.dev/gemini-api/docs/pricing"
_DEEPSEEK = "api-docs.deepseek.com pricing, peak hours; half of it off-peak"
_FIREWORKS = "fireworks.ai/pricing, managed supervised training"

PRICES: tuple[Price, ...] = (
    Price("gpt-6-luna", 0.10, 0.01, 0.50, date(2026, 10, 16), _OPENAI, 1.25),
    Price("gpt-6.1-terra", 1.00, 0.05, 5.00, date(2026, 10, 26), _OPENAI, 1.25),
    Price("gpt-6.1-sol", 2.00, 0.10, 10.00, date(2026, 10, 16), _OPENAI, 1.25),
    Price("gpt-4o-mini", 0.15, 0.075, 0.60, date(2026, 5, 7), _RETIRED),
    Price("gpt-4.1-mini", 0.40, 0.10, 1.60, date(2026, 6, 21), _RETIRED),
    Price("claude-haiku-5.5", 0.10, 0.01, 0.50, date(2026, 10, 24), f"{_CLAUDE}, to 100k tokens", 1.25),
    Price("claude-sonnet-5.5", 2.00, 0.10, 10.00, date(2026, 10, 24), _CLAUDE, 1.25),
    Price("claude-opus-5.5", 4.00, 0.20, 20.00, date(2026, 10, 16), _CLAUDE, 1.25),
    Price("gemini-3.5-flash", 1.50, 0.15, 9.00, date(2026, 10, 7), _GEMINI),
    Price("gemini-4-neon", 3.00, 0.15, 15.00, date(2026, 11, 19), _GEMINI),
    Price("deepseek-v4.1-flash", 0.30, 0.006, 1.20, date(2026, 10, 27), _DEEPSEEK),
    Price("deepseek-v4-pro", 1.32, 0.044, 3.96, date(2026, 10, 27), _DEEPSEEK),
    Price("mistral-small-4", 0.15, 0.15, 0.60, date(2026, 8, 1), "Mistral's list price; no cache price read"),
    Price(
        "mistral-large-4", 1.36, 1.36, 4.18, date(2026, 10, 20), "Mistral's list price; no cache price read"
    ),
)
REFERENCE = PRICES[0]
"""The price that per-call estimates use when the model has none of its own; see ``reference``."""

TUNING: tuple[Tuning, ...] = (
    Tuning(16, 0.50, 1.00, date(2026, 10, 7), _FIREWORKS),
    Tuning(80, 3.00, None, date(2026, 10, 7), _FIREWORKS),
    Tuning(300, 6.00, None, date(2026, 10, 7), _FIREWORKS),
    Tuning(math.inf, 10.00, None, date(2026, 10, 7), _FIREWORKS),
)
"""By size, smallest first. Closed models are left out: OpenAI takes no new tuning jobs from 2027-01-06."""

_TABLE = own.Table(
    section="prices",
    key="model",
    fields={
        "model": own.text,
        "input": own.number,
        "cached": own.number_or_none,
        "output": own.number,
        "cache_write": own.number,
        "day": own.day,
    },
    defaults={"cached": None, "cache_write": 1.0},
    flat=asdict,
    build=lambda v: Price(**{**v, "cached": v["input"] if v["cached"] is None else v["cached"]}),
)


def prices() -> tuple[Price, ...]:
    """Return the known prices, corrected and completed by the user's own file."""
    file = own.file()
    return PRICES if file is None else _merged(file)


def find(model: str) -> Price | None:
    """Return the price of this model, None when it is not known; "5-5" and "5.5" are the same version."""
    wanted = _plain(model)
    return next((price for price in prices() if _plain(price.model) == wanted), None)


def reference() -> Price:
    """Return the reference price, as the user's own file may have corrected it."""
    return find(REFERENCE.model) or REFERENCE


def tuning(params_b: float) -> Tuning:
    """Return what hosted tuning of a model of this size costs."""
    return next(row for row in TUNING if params_b <= row.up_to_b)


@lru_cache(maxsize=2)
def _merged(file: own.File) -> tuple[Price, ...]:
    return own.merge(_TABLE, PRICES, file)


def _plain(model: str) -> str:
    return model.strip().casefold().replace(".", "-")

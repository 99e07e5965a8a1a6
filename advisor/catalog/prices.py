"""Prices of hosted models per million tokens, each with source and day.

:func:`find_price` looks a model up, :func:`reference_price` is used where a model has no price of its own,
:func:`tuning_price` is for hosted fine-tuning. Callers show the age of a price that is
older than :data:`STALE_DAYS` days.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from datetime import date
from functools import lru_cache

from runners.catalog import user_catalog

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
        """Return the age of the price in days."""
        return (today - self.day).days


@dataclass(frozen=True, slots=True)
class TuningPrice:
    """Hosted tuning of open models up to ``up_to_b`` billion parameters: USD per million training tokens.

    Serving the result is rented by the GPU-hour. ``full`` is None where only LoRA is listed.
    """

    up_to_b: float
    lora: float
    full: float | None
    day: date
    source: str

    def age_days(self, today: date) -> int:
        """Return the age of the price in days."""
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
"""The price that per-call estimates use when the model has none of its own; see :func:`reference_price`."""

TUNING: tuple[TuningPrice, ...] = (
    TuningPrice(16, 0.50, 1.00, date(2026, 10, 7), _FIREWORKS),
    TuningPrice(80, 3.00, None, date(2026, 10, 7), _FIREWORKS),
    TuningPrice(300, 6.00, None, date(2026, 10, 7), _FIREWORKS),
    TuningPrice(math.inf, 10.00, None, date(2026, 10, 7), _FIREWORKS),
)
"""By size, smallest first. Closed models are left out: OpenAI accepts no new tuning jobs from 2027-01-06."""

_TABLE = user_catalog.CatalogTable(
    section="prices",
    key="model",
    fields={
        "model": user_catalog.read_text_value,
        "input": user_catalog.read_number,
        "cached": user_catalog.read_number_or_none,
        "output": user_catalog.read_number,
        "cache_write": user_catalog.read_number,
        "day": user_catalog.read_day,
    },
    defaults={"cached": None, "cache_write": 1.0},
    flat=asdict,
    build=lambda v: Price(**{**v, "cached": v["input"] if v["cached"] is None else v["cached"]}),
)


def known_prices() -> tuple[Price, ...]:
    """Return the known prices, corrected and extended by the user's own file."""
    file = user_catalog.catalog_file()
    return PRICES if file is None else _merged(file)


def find_price(model: str) -> Price | None:
    """Return the price of this model, None when it is not known; "5-5" and "5.5" are the same version."""
    wanted = _plain(model)
    return next((price for price in known_prices() if _plain(price.model) == wanted), None)


def reference_price() -> Price:
    """Return the reference price, with the user's correction if there is one."""
    return find_price(REFERENCE.model) or REFERENCE


def tuning_price(params_b: float) -> TuningPrice:
    """Return the price of hosted tuning for a model of this size."""
    return next(row for row in TUNING if params_b <= row.up_to_b)


@lru_cache(maxsize=2)
def _merged(file: user_catalog.CatalogFile) -> tuple[Price, ...]:
    return user_catalog.merge_catalog(_TABLE, PRICES, file)


def _plain(model: str) -> str:
    return model.strip().casefold().replace(".", "-")

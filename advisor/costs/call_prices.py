"""Prices of calls: by model or by size, with prompt caching, and the age of the prices.

Beside the likely price of a call stands a range. It is that of the tokens of a call over those that are counted, by method
(``CALL_RANGES``): 31 ways of answering on 13 data sets, recorded in benchmarks/estimate_runs.json; ``python -m
benchmarks.estimates`` prints how often it holds. For calls with passages only three are recorded. Prices themselves are as
listed on their day.
"""

from __future__ import annotations

from datetime import date

from advisor.catalog import prices
from advisor.catalog.prices import STALE_DAYS, Price
from advisor.costs.hosting import (
    LONG_CACHE_SECONDS,
    PREFIX_CACHE_SECONDS,
    MonthlyCost,
    cache_hit_rate,
    served_locally,
)
from advisor.costs.tokens import PROMPT_TOKENS, Range, assumed_token_counts, output_tokens
from advisor.questionnaire.profile import HIGH_VOLUME, LOW_VOLUME, Profile

USD_PER_B = 0.01
"""Hosted open models cost about 0.01 USD per billion parameters and million tokens."""
MIN_USD = 0.01
"""Hosted open models hardly cost less than this per million tokens."""
OPEN_CACHED_SHARE = 0.5
"""Price of a cached input token at hosts of open models, as a share of an uncached one."""
MIN_CACHED_PREFIX_TOKENS = 1024
"""Shorter prefixes are not cached: the vendors' usual minimum (512 to 4,096 tokens by model)."""
LONG_CACHE_WRITE = 2.0
"""Price of writing a token to a cache that is kept for an hour, as a multiple of the input price (Anthropic's, as pages of
gateways quote it in 2026)."""
DEFAULT_CALLS = 10_000
"""Calls a month where no answer says how many."""


CALL_RANGES = {
    "prompting": Range(0.95, 1.0, 1.6),
    "few-shot": Range(0.25, 1.0, 1.3),
    "rag": Range(0.25, 1.0, 1.2),
    "lora": Range(0.95, 1.0, 1.4),
    "qlora": Range(0.95, 1.0, 1.4),
    "full": Range(0.95, 1.0, 1.4),
    "hybrid": Range(0.25, 1.0, 1.2),
}
"""Tokens of a call over those that its price counts, by method, as recorded in benchmarks/estimate_runs.json.

A chat template adds about a dozen tokens, an untuned model says more than the examples do, a trial mostly shows fewer or
shorter examples and passages than are planned for. Prices are as listed, so the range is that of the tokens.
"""
CALL_COVERAGE = 0.9
"""Share of recorded calls whose tokens lie in that range, each data set counting the same; a test computes it."""


def call_usd_range(method: str, likely: float) -> Range:
    """Return low, likely and high USD of one call of a method; of a method that is not listed the widest range."""
    known = CALL_RANGES.get(method)
    factors = known or Range(
        min(each.low for each in CALL_RANGES.values()), 1.0, max(each.high for each in CALL_RANGES.values())
    )
    return factors.times(likely, likely, likely)


def profile_price(profile: Profile) -> Price:
    """Return the price assumed for a call of this model: its own, else by size, else the reference price."""
    name = profile.model or ""
    usd = profile.usd_per_million_input, profile.usd_per_million_output
    if profile.remote and usd[0] is not None and usd[1] is not None:
        return Price(profile.hosted_name, usd[0], usd[0], usd[1], date.today(), "as you said")
    if profile.remote:
        return prices.find_price(name.removeprefix("openai:").rpartition("@")[0]) or prices.reference_price()
    if name and (listed := prices.find_price(name)):
        return listed
    if not profile.active_params_b:
        return prices.reference_price()
    usd_per_million = max(MIN_USD, USD_PER_B * profile.active_params_b)
    day = date(2026, 11, 25)
    source = "usual for hosted open models"
    return Price(
        "by size", usd_per_million, OPEN_CACHED_SHARE * usd_per_million, usd_per_million, day, source
    )


def calls_per_month(profile: Profile) -> tuple[float, str]:
    """Return calls a month and where they are from: answered, from a coarse answer, or assumed."""
    if profile.calls_per_month:
        return float(profile.calls_per_month), "yours"
    if profile.call_volume:
        return float(
            HIGH_VOLUME if profile.call_volume == "high" else LOW_VOLUME
        ), f"for {profile.call_volume} volume"
    return float(DEFAULT_CALLS), "assumed"


def call_cost_line(
    profile: Profile, fixed: float = 0.0, fresh: float = 0.0, written: float = 0.0
) -> MonthlyCost:
    """Return the cost of calls with and without a prompt cache.

    An uncached token costs 1x, one read from the cache the model's own cached price (0.1x is usual), one
    written to it ``cache_write`` (1.25x is usual), so a cache pays from the second call on. A prefix under
    1,024 tokens is never cached.

    Args:
        profile: the situation, with the lengths of prompt and answer.
        fixed: tokens that are the same in every call, so that a cache can hold them.
        fresh: tokens added to the prompt that differ in every call.
        written: tokens that are written beside the answer.
    """
    price = profile_price(profile)
    tokens_in = (profile.prompt_tokens or PROMPT_TOKENS) + fresh
    rest = tokens_in * price.input + (output_tokens(profile) + written) * price.output
    plain = (rest + fixed * price.input) / 1e6
    if fixed < MIN_CACHED_PREFIX_TOKENS or price.cached >= price.input:
        return MonthlyCost(0.0, plain, plain, plain)
    hit, write = (
        rest + fixed * token_price for token_price in (price.cached, price.input * price.cache_write)
    )
    return MonthlyCost(0.0, plain, hit / 1e6, write / 1e6)


def usd_per_call(profile: Profile, fixed: float = 0.0, fresh: float = 0.0, written: float = 0.0) -> float:
    """Return USD of one call at the profile's volume, with the share of cache hits at that volume."""
    return call_cost_line(profile, fixed, fresh, written).per_call(calls_per_month(profile)[0])


def cache_prices(profile: Profile, fixed: float) -> tuple[str, ...]:
    """Return what a call costs without a prompt cache, with one of five minutes and with one of an hour, in a sentence.

    Nothing where no cache helps: for a model on this machine, a price without a cached rate, or a short prefix.

    Args:
        profile: the situation, with its calls a month, which are taken to come at random times.
        fixed: tokens that are the same in every call.
    """
    line, price = call_cost_line(profile, fixed), profile_price(profile)
    if served_locally(profile) or line.straight:
        return ()
    calls, _ = calls_per_month(profile)
    hour_write = line.fresh + fixed * (LONG_CACHE_WRITE - 1) * price.input / 1e6
    parts = [f"{line.fresh:.2g} USD a call without a prompt cache"]
    for name, seconds, write in (
        ("five minutes", PREFIX_CACHE_SECONDS, line.write),
        ("an hour", LONG_CACHE_SECONDS, hour_write),
    ):
        hits = cache_hit_rate(calls, seconds)
        usd = hits * line.hit + (1 - hits) * write
        parts.append(f"{usd:.2g} with one kept for {name} ({hits:.0%} of {calls:,.0f} calls a month find it)")
    return (
        f"{', '.join(parts)}; an hour's is taken to cost {LONG_CACHE_WRITE:g} times the input price to write",
    )


def price_day(day: date, today: date) -> str:
    """Return the day of a price, with its age once that is over 90 days."""
    age = (today - day).days
    return f"{day}, {age} days old" if age > STALE_DAYS else f"{day}"


def stale_price_note(price: Price, today: date) -> str:
    """Return a note on the age of a price, empty up to 90 days."""
    old = price.age_days(today) > STALE_DAYS
    return f"the prices of {price.model} are from {price_day(price.day, today)}" if old else ""


def call_price_basis(profile: Profile, today: date | None = None) -> tuple[str, ...]:
    """Return what the price of a call assumes: whose price, its age, the volume, default token counts."""
    price = profile_price(profile)
    (calls, origin) = calls_per_month(profile)
    lines = []
    if served_locally(profile):
        lines.append(
            "on your own machine a call costs electricity only (about 0 USD); "
            "shown is what the same tokens cost hosted"
        )
    named = (
        f"{profile.active_params_b:.3g} B parameters"
        if price.model == "by size" and profile.active_params_b
        else price.model
    )
    lines.append(
        f"{named}: {price.input:.3g} USD per million tokens in, {price.cached:.3g} from the cache, "
        f"{price.output:.3g} out"
    )
    lines.append(f"{calls:,.0f} calls a month ({origin})")
    old = stale_price_note(price, today or date.today())
    return (*lines, *([old] if old else []), *assumed_token_counts(profile))

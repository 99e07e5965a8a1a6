"""When to ask again: the changes to be expected that would change the advice, and the age of prices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

from advisor.facts.prices import STALE_DAYS, reference
from advisor.profile import Profile

GROWING = ("labelled_examples", "corpus_tokens", "calls_per_month")
"""Amounts that grow by themselves while a product is in use."""
LIKELY = 1.0
"""How far a flip may be (in its ``distance``) to be worth watching for: a factor of about 40."""


def ask_again(p: Profile, flips: Iterable[Mapping[str, Any]], today: date) -> tuple[str, ...]:
    """Return the conditions after which this advice is out of date, soonest first."""
    said = []
    for flip in flips:
        key, now = flip["key"], getattr(p, flip["key"])
        if key in GROWING and flip["distance"] <= LIKELY and flip["to"] > (now or 0):
            said.append(f"{key} >= {flip['to']:,}")
        elif key == "facts_change" and now is not None and flip["to"] != "static":
            said.append(f"the facts change {'daily' if flip['to'] == 'fast' else 'monthly'} or faster")
    age = reference().age_days(today)
    stale = f"prices are refreshed (these are {age} days old)"
    said.append(stale if age > STALE_DAYS else f"prices are older than {STALE_DAYS} days")
    return tuple(dict.fromkeys(said))

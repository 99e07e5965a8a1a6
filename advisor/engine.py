"""From a profile to a recommendation: the ranking with everything a person needs to judge it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from advisor.cost import Estimate, break_even
from advisor.facts.prices import REFERENCE, STALE_DAYS
from advisor.flips import flips
from advisor.ladder import ladder
from advisor.profile import Profile
from advisor.ranking import Ranking, Scored, degree, rank
from advisor.rules.base import Finding

DECISIVE = ("task_needs_facts", "facts_change", "must_cite", "behaviour_gap", "labelled_examples",
            "corpus_tokens",
            "call_volume", "model_params_b", "gpu_memory_gib")  # fmt: skip
"""The answers that move the ranking most; how many are known decides how sure the advice can be."""
_TUNING = ("lora", "qlora", "full")


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The ranking with everything a person needs to judge it."""

    profile: Profile
    ranking: Ranking
    estimates: dict[str, Estimate]
    confidence: Literal["high", "medium", "low"]
    confidence_because: str
    flips: tuple[dict[str, Any], ...]
    ladder: tuple[dict[str, Any], ...]
    break_even: dict[str, Any] | None
    ask_again_when: tuple[str, ...]

    @property
    def choice(self) -> str:
        """The recommended method."""
        return self.ranking.choice

    @property
    def runner_up(self) -> Scored | None:
        """The next feasible method."""
        second = self.ranking.methods[1]
        return None if second.blockers else second

    def reasons(self, scored: Scored) -> list[Finding]:
        """The findings that speak for a method (it serves their need at least by half), strongest first."""
        mine = [(degree(scored.method, f), f) for f in self.ranking.findings if f.need]
        counted = sorted(
            (pair for pair in mine if pair[0] >= 0.5), key=lambda pair: -pair[0] * pair[1].weight
        )
        return [finding for _, finding in counted]

    def against(self, scored: Scored) -> Finding | None:
        """The strongest finding whose need a method serves by less than half."""
        missed = [f for f in self.ranking.findings if f.need and degree(scored.method, f) < 0.5]
        return max(missed, key=lambda f: f.weight * (1 - degree(scored.method, f)), default=None)

    def notes(self) -> list[Finding]:
        """The findings that weigh nothing but should be read."""
        return [finding for finding in self.ranking.findings if finding.need is None]

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``plan --json`` prints."""
        first, second = self.ranking.methods[0], self.runner_up
        against = self.against(first)
        return {
            "schema": 1,
            "choice": self.choice,
            "confidence": self.confidence,
            "confidence_because": self.confidence_because,
            "runner_up": second.method.name if second else None,
            "strongest_against": against.to_json() if against else None,
            "ranked": [self._ranked(scored) for scored in self.ranking.methods],
            "flips": list(self.flips),
            "ladder": list(self.ladder),
            "break_even": self.break_even,
            "notes": [finding.to_json() for finding in self.notes()],
            "ask_again_when": list(self.ask_again_when),
            "profile": {
                key: {"value": a.value, "source": a.source, "note": a.note}
                for key, a in self.profile.sources.items()
            },
        }

    def _ranked(self, scored: Scored) -> dict[str, Any]:
        served = {f.need for f in self.ranking.findings if f.need and degree(scored.method, f) >= 0.5}
        return {
            "method": scored.method.name,
            "feasible": not scored.blockers,
            "score": scored.score,
            "serves": sorted(need.value for need in served if need),
            "blockers": [blocker.to_json() for blocker in scored.blockers],
            "reasons": [finding.to_json() for finding in self.reasons(scored)],
            "estimate": self.estimates[scored.method.name].to_json(),
        }


def recommend(profile: Profile, today: date | None = None) -> Recommendation:
    """Recommend a method, with reasons, blockers, estimates, what would flip it and when to ask again."""
    ranking = rank(profile)
    estimates = {scored.method.name: scored.method.estimate(profile) for scored in ranking.methods}
    confidence, because = _confidence(profile, ranking)
    tuned = next(
        (s.method.name for s in ranking.methods if s.method.name in _TUNING and not s.blockers), None
    )
    crossing = (
        break_even(profile, estimates["few-shot"], estimates[tuned], ("few-shot", tuned)) if tuned else None
    )
    return Recommendation(
        profile, ranking, estimates, confidence, because, flips(profile, ranking), ladder(profile, ranking),
        crossing, _ask_again(profile, ranking.choice, today or date.today()),
    )  # fmt: skip


def _confidence(p: Profile, ranking: Ranking) -> tuple[Literal["high", "medium", "low"], str]:
    """High: a clear margin and most decisive answers known; low: neither."""
    known = sum(getattr(p, key) is not None for key in DECISIVE)
    first = ranking.methods[0]
    rivals = [s for s in ranking.methods[1:] if not s.blockers and not _siblings(first, s)]
    margin = first.sum - max((s.sum for s in rivals), default=0.0)
    because = f"{known} of {len(DECISIVE)} decisive answers known, margin {margin:.1f}"
    if known >= 6 and margin >= 0.8:
        return "high", because
    if known <= 3 or margin < 0.25 or p.behaviour_gap is None:
        return "low", because
    return "medium", because


def _siblings(a: Scored, b: Scored) -> bool:
    return a.method.name in _TUNING and b.method.name in _TUNING


def _ask_again(p: Profile, choice: str, today: date) -> tuple[str, ...]:
    """The conditions after which this advice is out of date."""
    said = []
    n = p.examples_known
    gate = next((g for g in (10, 50, 200, 500, 1000) if g > n), None)
    if gate:
        said.append(f"labelled_examples > {gate}")
    if p.needs_facts and (p.corpus_tokens or 0) <= 200_000:
        said.append("corpus_tokens > 200000")
    if choice in ("prompting", "few-shot", "rag") and not p.high_volume:
        said.append("calls_per_month > 30000")
    if choice != "rag" and p.needs_facts and p.facts_change in (None, "static"):
        said.append("facts change faster than yearly")
    age = REFERENCE.age_days(today)
    said.append(
        f"prices are refreshed (these are {age} days old)"
        if age > STALE_DAYS
        else "prices older than 90 days"
    )
    return tuple(said)

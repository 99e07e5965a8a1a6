"""From a profile to a recommendation: the ranking with reasons, estimates, sensitivity and relaxations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date
from typing import TYPE_CHECKING, Any, Self

from advisor.costs.estimate import MethodEstimate
from advisor.history import NO_OWN_TRIALS, OwnTrials
from advisor.methods.base import Method
from advisor.methods.registry import all_methods
from advisor.questionnaire.profile import Profile
from advisor.recommendation.alternatives import relaxations
from advisor.recommendation.break_even import break_even
from advisor.recommendation.confidence import AdviceDoubts, Confidence, confidence
from advisor.recommendation.probability import AdviceRate
from advisor.recommendation.ranking import (
    Ranking,
    ScoredMethod,
    rank_methods,
    serving_degree,
    token_doubt,
)
from advisor.recommendation.sensitivity import (
    InformationValue,
    Sensitivity,
    counterfactuals,
    information_values,
    review_triggers,
)
from advisor.rules.agentic import AG001, AG002
from advisor.rules.base import METHOD_NEEDS, Finding
from advisor.rules.behaviour import BE009
from advisor.rules.knowledge import KN005, KN010
from runners.notebook import html_list, html_paragraph, html_table

if TYPE_CHECKING:
    from advisor.questionnaire.gather import Situation

READING_MODEL_B = 3.0
"""Billions of parameters from which a model reads search results as they are, and answers from them."""
MAX_SHOWN = 5
"""Number of reasons, changes and notes that a notebook shows; ``to_json`` has them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseRecommendation:
    """The ranking with reasons, estimates and what would change it.

    Attributes:
        profile: the situation.
        ranking: the methods, best first.
        estimates: memory, hours and money by method.
        confidence: what speaks against the choice and what would settle it, with the rate below.
        probability: how often advice is right, the same for all advice to one user.
        also_measure: arms beside the methods that should be measured first, with reasons.
        worth_finding: unknown answers that could change the choice.
        flips: single changes of an answer that make another method the choice; people are shown :attr:`plausible_flips`.
        ladder: relaxations that would allow a better method that is blocked.
        break_even: calls a month at which methods cost the same, None without two to compare.
        ask_again_when: conditions after which the advice is out of date.
    """

    profile: Profile
    ranking: Ranking
    estimates: dict[str, MethodEstimate]
    confidence: Confidence
    probability: AdviceRate
    also_measure: Mapping[str, str]
    worth_finding: tuple[InformationValue, ...]
    flips: tuple[dict[str, Any], ...]
    ladder: tuple[dict[str, Any], ...]
    break_even: dict[str, Any] | None
    ask_again_when: tuple[str, ...]
    situation: Situation | None = None
    """The answers it was made from; None where only a profile was given."""
    token_doubt: str = ""
    """What estimated counts of tokens leave open, "" for nothing."""

    @classmethod
    def of(
        cls,
        profile: Profile,
        today: date | None = None,
        situation: Situation | None = None,
        own: OwnTrials = NO_OWN_TRIALS,
    ) -> Self:
        """Recommend a method, with reasons, blockers, estimates, what would change it and when to ask again.

        ``today`` (default: now) only decides which prices are called old; ``own`` trials move the rate of right advice.
        """
        ranking = rank_methods(profile)
        choice = ranking.choice
        sensitivity = Sensitivity.of(profile)
        changes = counterfactuals(profile, choice, sensitivity)
        estimates = {scored.method.name: scored.method.estimate(profile) for scored in ranking.methods}
        also = {arm: why for arm, why in arms_to_measure(profile).items() if arm != choice}
        rate = AdviceRate(own)
        return cls(
            profile=profile,
            ranking=ranking,
            estimates=estimates,
            confidence=confidence(AdviceDoubts(profile, ranking, also), rate),
            probability=rate,
            also_measure=also,
            worth_finding=information_values(profile, choice, sensitivity),
            flips=changes,
            ladder=relaxations(profile, ranking),
            break_even=break_even(profile, estimates, today),
            ask_again_when=review_triggers(profile, changes, today or date.today()),
            situation=situation,
            token_doubt=token_doubt(profile, ranking),
        )

    @property
    def choice(self) -> str:
        """The recommended method."""
        return self.ranking.choice

    @property
    def named(self) -> tuple[str, ...]:
        """The recommended method, then those that should be measured beside it."""
        return (self.choice, *self.also_measure)

    @property
    def by_alias(self) -> Mapping[str, BaseRecommendation]:
        """The advice for each model by its alias; that for one model has none, and is under ""."""
        return {"": self}

    @property
    def with_larger_model(self) -> str:
        """What a model of 3 billion parameters or more would change, where a smaller one than a billion was chosen."""
        if not self.profile.tiny_model:
            return ""
        larger = replace(self.profile.change("model_params_b", READING_MODEL_B), model=None)
        after = rank_methods(larger).choice
        if after == self.choice:
            return f"A model of {READING_MODEL_B:g} B or more would not change the method: it answers better."
        return f"With a model of {READING_MODEL_B:g} B or more it would be {after}."

    @property
    def runner_up(self) -> ScoredMethod | None:
        """The next feasible method."""
        second = self.ranking.methods[1]
        return None if second.blockers else second

    @property
    def plausible_flips(self) -> list[dict[str, Any]]:
        """The changes whose answer may be so in this job."""
        return [flip for flip in self.flips if flip["plausible"]]

    def reasons(self, scored: ScoredMethod) -> list[Finding]:
        """Return the findings that a method serves at least by half, strongest first.

        Before them come those that are said first whatever is chosen (:attr:`advisor.rules.base.Rule.first`).
        """
        served = [(serving_degree(scored.method, f), f) for f in self.ranking.findings if f.need]
        counted = sorted(
            (pair for pair in served if pair[0] >= 0.5 or pair[1].rule.first),
            key=lambda pair: (not pair[1].rule.first, -pair[0] * pair[1].weight),
        )
        return [finding for _, finding in counted]

    def against(self, scored: ScoredMethod) -> Finding | None:
        """Return the strongest finding whose need a method serves by less than half, and one shown beside it by more.

        A rule that holds in every situation is named only where no other finding speaks against the method,
        and findings that only order the tuning methods do not count against a hybrid, which uses the best of
        them.
        """
        ignored_needs = METHOD_NEEDS if scored.method.name == "hybrid" else frozenset()
        for finding in self.ranking.findings:
            if serving_degree(scored.method, finding) >= 0.5:
                ignored_needs |= finding.rule.meets
        missed = [
            f
            for f in self.ranking.findings
            if f.need
            and f.need not in ignored_needs
            and not f.rule.first
            and serving_degree(scored.method, f) < 0.5
            and serving_degree(self.best_for(f), f) >= 0.5
        ]
        return max(
            missed,
            key=lambda f: (not f.rule.always, f.weight * (1 - serving_degree(scored.method, f))),
            default=None,
        )

    def best_for(self, finding: Finding) -> Method:
        """Return the method for the wanted kind of answer that serves a finding's need most, the simplest of equals."""
        shown = {scored.method.name for scored in self.ranking.shown}
        methods = (method for method in all_methods() if method.name in shown)
        return max(methods, key=lambda method: serving_degree(method, finding))

    def notes(self) -> list[Finding]:
        """Return the findings without a weight, which are for reading."""
        return [finding for finding in self.ranking.findings if finding.need is None]

    def __str__(self) -> str:
        """Return the choice, what is open about it, and the second best, in three lines at most."""
        lines = [f"{self.choice}: {self.confidence.because}"]
        lines += [f"because {finding.text}" for finding in self.reasons(self.ranking.methods[0])[:1]]
        if second := self.runner_up:
            lines.append(f"second best: {second.method.name}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return HTML for a notebook: the choice, reasons for and against it, changes, and all methods."""
        first = self.ranking.methods[0]
        parts = [html_paragraph(f"{self.choice} ({self.confidence.because})")]
        parts.append(html_list(_named([(f.text, f.rule.code()) for f in self.reasons(first)])))
        if against := self.against(first):
            parts.append(html_paragraph(f"A reason against it: {against.text} (rule {against.rule.code()})"))
        if flips := self.plausible_flips:
            parts += [
                html_paragraph("It would recommend"),
                html_list([flip["text"] for flip in flips[:MAX_SHOWN]]),
            ]
        rows = []
        for scored in self.ranking.shown:
            blocked = scored.blockers[0].text if scored.blockers else ""
            memory = self.estimates[scored.method.name].to_json()["memory_gib"]
            likely = f"{memory['likely']:.1f} GiB" if memory else "–"
            rows.append(
                (scored.method.name, "blocked" if blocked else f"{scored.score:.2f}", likely, blocked)
            )
        parts.append(html_table(("method", "fit for this", "memory", "blocked by"), rows))
        return f"<div>{''.join(parts)}</div>"

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``plan --json`` prints."""
        first = self.ranking.methods[0]
        second = self.runner_up
        against = self.against(first)
        return {
            "schema": 1,
            "choice": self.choice,
            "confidence": self.confidence.level,
            "confidence_because": self.confidence.because,
            "probability": round(self.probability.value, 3),
            "own_trials": self.probability.own_json(),
            "also_measure": list(self.also_measure),
            "also_measure_because": dict(self.also_measure),
            "also_measure_probability": dict.fromkeys(self.also_measure),
            "with_larger_model": self.with_larger_model or None,
            "runner_up": second.method.name if second else None,
            "strongest_against": against.to_json() if against else None,
            "said_first": [f.to_json() for f in self.reasons(first) if f.rule.first],
            "ranked": [self._ranked(scored) for scored in self.ranking.methods],
            "worth_finding": [{"key": value.key, "text": value.text} for value in self.worth_finding],
            "flips": list(self.flips),
            "ladder": list(self.ladder),
            "break_even": self.break_even,
            "notes": [finding.to_json() for finding in self.notes()],
            "ask_again_when": list(self.ask_again_when),
            "token_doubt": self.token_doubt or None,
            "data": asdict(self.profile.data),
            "model_facts": {
                "kind": self.profile.model_kind,
                "strength": self.profile.model_strength,
                "context_left": self.profile.context_left,
                "speaks_language": self.profile.model_speaks(self.profile.data.language),
            },
            "profile": {
                key: {"value": a.value, "source": a.source, "note": a.note}
                for key, a in self.profile.sources.items()
            },
        }

    def _ranked(self, scored: ScoredMethod) -> dict[str, Any]:
        """Return one method of the ranking as JSON values."""
        served = {f.need for f in self.ranking.findings if f.need and serving_degree(scored.method, f) >= 0.5}
        return {
            "method": scored.method.name,
            "feasible": not scored.blockers,
            "score": scored.score,
            "probability": round(self.probability.value, 3) if scored.method.name == self.choice else None,
            "serves": sorted(need.value for need in served if need),
            "blockers": [blocker.to_json() for blocker in scored.blockers],
            "reasons": [finding.to_json() for finding in self.reasons(scored)],
            "estimate": self.estimates[scored.method.name].to_json(),
        }


def recommend_for_profile(
    profile: Profile, today: date | None = None, own: OwnTrials = NO_OWN_TRIALS
) -> BaseRecommendation:
    """Recommend a method for a profile: :meth:`BaseRecommendation.of`."""
    return BaseRecommendation.of(profile, today, own=own)


def arms_to_measure(profile: Profile) -> dict[str, str]:
    """Return the methods that should be measured first, each with its reason.

    Args:
        profile: the situation; facts of files and model may be unknown.

    Returns:
        ``classifier`` where labels are to be given (rule BE009), ``long-context`` where all documents fit the model's
        context (rules KN005 and KN010), ``agentic-search`` where a model that calls tools should search by itself (rules
        AG001 and AG002).
    """
    reasons = {
        "classifier": _classifier(profile),
        "long-context": KN005().applies(profile) or KN010().applies(profile),
        "agentic-search": AG001().applies(profile) or AG002().applies(profile),
    }
    return {arm: reason for arm, reason in reasons.items() if reason}


def _classifier(profile: Profile) -> str:
    """Return why a linear classifier over embeddings should be tried, "" where it should not.

    It needs labels, 20 examples and two of each label where that was counted (rule BE009). It reads texts through the
    embedder, so it is no better than that one's knowledge of their language.
    """
    reason = BE009().applies(profile)
    language = profile.data.language
    if not reason or language in (None, "en"):
        return reason
    return f"{reason}; with an embedder that knows the language of the texts ({language})"


def _named(reasons: list[tuple[str, str]]) -> list[str]:
    """Return the first reasons, each with its rule's code, and how many more there are."""
    shown = [f"{text} (rule {code})" for text, code in reasons[:MAX_SHOWN]]
    left = len(reasons) - len(shown)
    return [*shown, f"and {left} more"] if left > 0 else shown

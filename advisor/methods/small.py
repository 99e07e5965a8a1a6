"""Methods that ask no language model, or ask it only where they must: classifier, nearest reply, router."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from advisor.costs.estimate import MethodEstimate
from advisor.costs.tokens import ZERO_RANGE, Range, bank_tokens
from advisor.methods.base import Drafting, Method, inference_estimate
from advisor.methods.blockers import (
    Blocker,
    blocked_by,
    few_labelled,
    model_too_small,
    no_labels,
    no_stored_replies,
)
from advisor.questionnaire.profile import Profile
from advisor.rules.base import Need
from runners.plan.schema import Step
from runners.plan.steps import EvaluateStep, Route

SMALL_METHODS = ("classifier", "nearest-reply", "router")
HEAD_SECONDS = 30.0
"""Of two cores, to embed a thousand short texts and compare the features of a linear classifier."""
TUNED_SECONDS = 600.0
"""Most that its tuned candidates take."""


class NearestReply(Method):
    """Give the reply of the most similar example, word for word, if it is similar enough; refuse otherwise.

    The cheapest way there is: nothing is trained or written, and it answers in milliseconds. It cannot say what no example
    says.
    """

    name = "nearest-reply"
    serves: ClassVar[Mapping[Need, float]] = {
        Need.UNWRITTEN: 1.0,
        Need.VERBATIM: 1.0,
        Need.LABELS: 0.4,
        Need.STYLE: 0.6,
        Need.FORMAT: 0.6,
        Need.HONESTY: 0.8,
        Need.SPARING: 0.3,
        Need.SCALE: 1.0,
        Need.SPEED: 1.0,
        Need.SIMPLE: 0.7,
        Need.LIGHT: 1.0,
    }

    def blocked(self, profile: Profile) -> tuple[Blocker, ...]:
        """Return the blockers: replies that are no stored texts, or too few examples."""
        return blocked_by(profile, self.name, no_stored_replies, few_labelled)

    def estimate(self, profile: Profile) -> MethodEstimate:
        """Estimate the embedding of the examples; no language model is held or called."""
        return _no_model(profile, 0.0)

    def steps(self, profile: Profile, drafting: Drafting) -> tuple[Step, ...]:
        """Evaluate the reply of the nearest example."""
        return (EvaluateStep(arm=self.name, nearest_reply=True),)


class Classifier(Method):
    """Train a small classifier on the examples: it answers with one of their labels, and no language model is needed.

    Features of words, embeddings and small tuned encoders are compared on the examples, and the best is taken. It trains in
    minutes on a processor, answers in milliseconds and gives probabilities. It knows only what the examples say.
    """

    name = "classifier"
    serves: ClassVar[Mapping[Need, float]] = {
        Need.UNWRITTEN: 1.0,
        Need.LABELS: 1.0,
        Need.STYLE: 1.0,
        Need.FORMAT: 1.0,
        Need.SCALE: 1.0,
        Need.SPEED: 1.0,
        Need.SIMPLE: 0.7,
        Need.LIGHT: 1.0,
    }

    def blocked(self, profile: Profile) -> tuple[Blocker, ...]:
        """Return the blockers: replies that are no labels, or too few examples."""
        return blocked_by(profile, self.name, no_labels, few_labelled)

    def estimate(self, profile: Profile) -> MethodEstimate:
        """Estimate the training; no language model is held or called."""
        return _no_model(profile, TUNED_SECONDS)

    def steps(self, profile: Profile, drafting: Drafting) -> tuple[Step, ...]:
        """Train the classifier on the examples, and evaluate it."""
        return (EvaluateStep(arm=self.name, classifier=True),)


class Router(Method):
    """Let a classifier answer where it is sure, and a language model where it is not.

    The cut is chosen on dev questions. It keeps nearly the accuracy of the better one and pays the language model only for
    the hard questions; two things have to be kept up to date.
    """

    name = "router"
    serves: ClassVar[Mapping[Need, float]] = {
        Need.UNWRITTEN: 1.0,
        Need.LABELS: 0.9,
        Need.KNOWLEDGE: 0.7,
        Need.CASCADE: 1.0,
        Need.STYLE: 0.9,
        Need.FORMAT: 0.9,
        Need.SCALE: 0.8,
        Need.SPEED: 0.7,
        Need.SIMPLE: 0.3,
        Need.LIGHT: 1.0,
    }

    def blocked(self, profile: Profile) -> tuple[Blocker, ...]:
        """Return the blockers: nothing to route to cheaply, or a language model that is no better."""
        return blocked_by(profile, self.name, no_labels, few_labelled, model_too_small)

    def estimate(self, profile: Profile) -> MethodEstimate:
        """Estimate answering as if every question went to the language model with examples: the most it can cost."""
        most = "the price of a call is at most this: what the classifier answers costs nothing"
        return inference_estimate(profile, "few-shot", bank_tokens(profile), most)

    def steps(self, profile: Profile, drafting: Drafting) -> tuple[Step, ...]:
        """Evaluate the classifier where it is sure, and few-shot where it is not."""
        return (EvaluateStep(arm=self.name, route=Route(first="classifier", otherwise="few-shot")),)


def _no_model(profile: Profile, most_more: float) -> MethodEstimate:
    """Return the estimate of a method that calls no language model; ``most_more``: seconds that it may take besides."""
    thousands = max(1.0, profile.examples_known / 1000)
    seconds = Range(0.2 * HEAD_SECONDS, HEAD_SECONDS, 3 * HEAD_SECONDS).times(thousands, thousands, thousands)
    return MethodEstimate(
        hours=Range(seconds.low / 3600, seconds.likely / 3600, (seconds.high + most_more) / 3600),
        usd=ZERO_RANGE,
        per_call_usd=0.0,
        per_call_range=ZERO_RANGE,
        assumptions=("no language model is held or called; on the processor",),
    )

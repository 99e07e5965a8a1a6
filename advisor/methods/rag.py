"""Retrieval-augmented generation: facts are looked up when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from advisor.costs.estimate import MethodEstimate
from advisor.costs.tokens import CONTEXT_TOKENS
from advisor.methods.base import Drafting, Method, inference_estimate
from advisor.methods.blockers import Blocker, blocked_by, nothing_to_retrieve, passages_at_hand
from advisor.questionnaire.profile import Profile
from advisor.rules.base import Need
from runners.plan.schema import Step
from runners.plan.steps import EvaluateStep


class Rag(Method):
    """Search the documents for each question, and give the passages to the model with it.

    Facts stay in the documents: up to date, with a source, changed in seconds. It cannot teach a style or a skill, and each
    call pays for the passages, which differ each time and cannot be cached. Where there are examples too, the trial also
    measures rag-few-shot: examples and passages in one prompt.
    """

    name = "rag"
    serves: ClassVar[Mapping[Need, float]] = {
        Need.FACTS: 1.0,
        Need.FRESH: 1.0,
        Need.CITE: 1.0,
        Need.WHOLE: 0.1,
        Need.GROUND: 1.0,
        Need.HONESTY: 0.8,
        Need.KNOWLEDGE: 0.3,
        Need.SPARING: 0.7,
        Need.SCALE: 0.2,
        Need.SPEED: 0.3,
        Need.SIMPLE: 0.6,
        Need.LIGHT: 1.0,
        Need.STOP: 0.4,
    }

    def blocked(self, profile: Profile) -> tuple[Blocker, ...]:
        """Return the blockers: nothing to retrieve from, or prompts that hold their passages."""
        return blocked_by(profile, self.name, nothing_to_retrieve, passages_at_hand)

    def estimate(self, profile: Profile) -> MethodEstimate:
        """Estimate answering with passages in every prompt."""
        assumptions = (f"{CONTEXT_TOKENS:,} tokens of passages in every prompt, never cached",)
        return inference_estimate(profile, self.name, CONTEXT_TOKENS, *assumptions)

    def steps(self, profile: Profile, drafting: Drafting) -> tuple[Step, ...]:
        """Evaluate the base with passages, its instructions worded as does best on dev questions."""
        return (EvaluateStep(arm=self.name, retrieval=True, instructions="chosen"),)

"""Prompting: with instructions alone, with examples shown (few-shot), or with all documents (long-context)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from advisor.costs.call_prices import cache_prices
from advisor.costs.estimate import MethodEstimate
from advisor.costs.tokens import ZERO_RANGE, bank_tokens, call_tokens
from advisor.methods.base import Drafting, Method, inference_estimate
from advisor.methods.blockers import (
    Blocker,
    blocked_by,
    no_room_to_show,
    nothing_to_retrieve,
    nothing_to_show,
    passages_at_hand,
    too_long_to_read,
)
from advisor.questionnaire.profile import Profile
from advisor.rules.base import Need
from runners.plan.schema import Step
from runners.plan.steps import EvaluateStep


class Prompting(Method):
    """Write in the prompt what is wanted.

    A prompt is changed in minutes, and nothing has to be trained or kept up to date. Its limits are a style or skill that
    instructions do not achieve, and facts that the model does not know.
    """

    name = "prompting"
    serves: ClassVar[Mapping[Need, float]] = {
        Need.UNWRITTEN: 1.0,
        Need.WHOLE: 0.1,
        Need.GROUND: 0.3,
        Need.HONESTY: 1.0,
        Need.FORMAT: 0.3,
        Need.SHOW: 0.6,
        Need.KNOWLEDGE: 1.0,
        Need.SPARING: 0.7,
        Need.SCALE: 0.2,
        Need.SPEED: 0.8,
        Need.SIMPLE: 1.0,
        Need.LIGHT: 1.0,
        Need.STOP: 1.0,
    }

    def estimate(self, profile: Profile) -> MethodEstimate:
        """Estimate answering with the prompt."""
        return inference_estimate(profile, self.name)

    def steps(self, profile: Profile, drafting: Drafting) -> tuple[Step, ...]:
        """Evaluate the base with the instructions alone, worded as does best on dev questions."""
        return (EvaluateStep(arm=self.name, instructions="chosen"),)


class FewShot(Method):
    """Show chosen examples in the prompt.

    The best use of a few examples: nothing is trained, and a new example counts at once. Its price is the length of every
    prompt, which caching lowers. The trial tries a fixed few, those nearest to each question, and as many as fit into
    the model's context.
    """

    name = "few-shot"
    serves: ClassVar[Mapping[Need, float]] = {
        Need.UNWRITTEN: 1.0,
        Need.WHOLE: 0.9,
        Need.GROUND: 0.3,
        Need.HONESTY: 1.0,
        Need.STYLE: 0.2,
        Need.FORMAT: 0.6,
        Need.SHOW: 1.0,
        Need.KNOWLEDGE: 1.0,
        Need.LABELS: 0.2,
        Need.SPARING: 1.0,
        Need.SPEED: 0.4,
        Need.SIMPLE: 0.85,
        Need.LIGHT: 1.0,
        Need.STOP: 0.5,
    }

    def blocked(self, profile: Profile) -> tuple[Blocker, ...]:
        """Return the blockers: no examples to show, or no room for one."""
        return blocked_by(profile, self.name, nothing_to_show, no_room_to_show)

    def estimate(self, profile: Profile) -> MethodEstimate:
        """Estimate answering with a cached bank of eight examples before every question."""
        bank = bank_tokens(profile)
        assumptions = (f"{bank:,.0f} tokens of examples in a cached prompt",)
        return inference_estimate(profile, self.name, bank, *assumptions)

    def steps(self, profile: Profile, drafting: Drafting) -> tuple[Step, ...]:
        """Evaluate the base with examples shown: fixed, nearest or many, as does best on dev questions."""
        return (EvaluateStep(arm=self.name, shots=drafting.shots, bank="chosen"),)


class LongContext(Method):
    """Put all documents into every prompt, where they fit the model's context, in place of a search.

    Nothing is built, no search can miss a passage, and answers cite passages as with a search. Every call pays for all
    documents, which a prompt cache makes cheaper while calls come within its life; a changed document breaks the cache.
    The longer the prompt, the more of its middle is overlooked (rule KN014).
    """

    name = "long-context"
    serves: ClassVar[Mapping[Need, float]] = {
        # Rule KN005 advises it, and meets the need for facts where it applies. By itself that counts little: a search
        # comes first where the rule does not hold (many documents, daily changes, sources to be named, small models).
        Need.WHOLE: 1.0,
        Need.FACTS: 0.1,
        Need.CITE: 0.1,
        Need.GROUND: 0.3,
        Need.HONESTY: 1.0,
        Need.FORMAT: 0.3,
        Need.SHOW: 0.6,
        Need.KNOWLEDGE: 1.0,
        Need.SPARING: 0.7,
        Need.SCALE: 0.2,
        Need.SPEED: 0.8,
        Need.SIMPLE: 1.0,
        Need.LIGHT: 1.0,
        Need.STOP: 1.0,
    }

    def blocked(self, profile: Profile) -> tuple[Blocker, ...]:
        """Return the blockers: no documents, prompts that hold their passages, or more text than the model reads."""
        return blocked_by(profile, self.name, nothing_to_retrieve, passages_at_hand, too_long_to_read)

    def estimate(self, profile: Profile) -> MethodEstimate:
        """Estimate answering with all documents in every prompt, with and without a prompt cache; nothing for too many."""
        if blocked_by(profile, self.name, too_long_to_read):
            return MethodEstimate(hours=ZERO_RANGE, usd=ZERO_RANGE)
        whole = call_tokens(profile, self.name).fixed
        counted = "" if profile.corpus_tokens is not None else " (assumed: their size is not known)"
        assumptions = (
            f"all {whole:,.0f} tokens of documents in every prompt{counted}",
            *cache_prices(profile, whole),
        )
        return inference_estimate(profile, self.name, whole, *assumptions)

    def steps(self, profile: Profile, drafting: Drafting) -> tuple[Step, ...]:
        """Evaluate the base with every passage of the index in each prompt."""
        return (EvaluateStep(arm=self.name, retrieval=True, passages="all"),)

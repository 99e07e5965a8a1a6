"""Facts are looked up when they are asked for: by one search (RAG), or by the model itself (agentic search)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from advisor.costs.call_prices import usd_per_call
from advisor.costs.estimate import MethodEstimate
from advisor.costs.tokens import CONTEXT_TOKENS, LOOKUP_REQUESTS, Range, lookup_tokens
from advisor.methods.base import Drafting, Method, inference_estimate
from advisor.methods.blockers import (
    Blocker,
    blocked_by,
    no_tools,
    nothing_to_retrieve,
    passages_at_hand,
    too_slow_to_search,
    too_weak_to_search,
)
from advisor.questionnaire.profile import Profile
from advisor.rules.agentic import NOT_MEASURED
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


class AgenticSearch(Method):
    """Give the model tools that list, search and read the documents, and let it look up what it needs.

    No index is needed, what it reads is always up to date, and it searches again for what is missing. An answer takes
    several calls, so it costs several times as much as with one search and takes longer, and only strong models do it well.
    Measured by us with 1.5 billion parameters alone, which answered as rag does: the figures are of published runs.
    """

    name = "agentic-search"
    serves: ClassVar[Mapping[Need, float]] = {
        # As far as a search or a little less, so that rules AG001 and AG002 alone put it first.
        Need.LOOKUPS: 1.0,
        Need.FACTS: 0.9,
        Need.FRESH: 0.9,
        Need.CITE: 0.9,
        Need.GROUND: 0.9,
        Need.HONESTY: 0.5,
        Need.KNOWLEDGE: 0.3,
        Need.SPARING: 0.7,
        Need.SIMPLE: 0.6,
        Need.LIGHT: 1.0,
        Need.STOP: 0.3,
    }

    def blocked(self, profile: Profile) -> tuple[Blocker, ...]:
        """Return the blockers: nothing to search, a model without tools or too weak, or no time for several calls."""
        checks = (nothing_to_retrieve, passages_at_hand, no_tools, too_weak_to_search, too_slow_to_search)
        return blocked_by(profile, self.name, *checks)

    def estimate(self, profile: Profile) -> MethodEstimate:
        """Estimate answering in several requests, each of which reads all that was found before it."""
        requests = LOOKUP_REQUESTS
        usd = Range(*(usd_per_call(profile, *lookup_tokens(profile, n)) for n in requests.values()))
        read = lookup_tokens(profile, requests.likely).fresh
        assumptions = (
            f"{requests.likely:g} requests an answer ({requests.low:g} to {requests.high:g}), which read about {read:,.0f} "
            "tokens, priced without a prompt cache",
            NOT_MEASURED,
        )
        return replace(inference_estimate(profile, self.name, read, *assumptions), per_call_range=usd)

    def steps(self, profile: Profile, drafting: Drafting) -> tuple[Step, ...]:
        """Evaluate the base, which looks passages up itself within the limits of the plan."""
        return (EvaluateStep(arm=self.name, retrieval=True, passages="looked_up"),)

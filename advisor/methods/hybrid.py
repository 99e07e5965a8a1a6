"""Hybrid: tuning for behaviour, retrieval for facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from advisor.costs.call_prices import call_usd_range, usd_per_call
from advisor.costs.estimate import MethodEstimate
from advisor.costs.tokens import PASSAGE_TOKENS, call_tokens
from advisor.costs.training_time import training_hours
from advisor.methods.base import Drafting, Method
from advisor.methods.blockers import Blocker, blocked_by, half_unused, nothing_to_retrieve, passages_at_hand
from advisor.methods.tuning import Full, Lora, QLora
from advisor.questionnaire.profile import Profile
from advisor.rules.base import Need
from advisor.rules.resources import fits_devices
from runners.plan.schema import Step
from runners.plan.steps import EvaluateStep, IndexStep, TrainStep

TUNED_HALVES: tuple[Lora, ...] = (Lora(), QLora(), Full())
"""The tuning methods that a hybrid may use, preferred first."""


class Hybrid(Method):
    """Fine-tune a model to write in your style, and let it look facts up in your documents.

    For when both style and facts are missing. It is trained on examples with search results, right and wrong ones, because
    a search added to a model that was trained without them can be worse than either alone; and it must beat every
    simpler method.
    """

    name = "hybrid"
    serves: ClassVar[Mapping[Need, float]] = {
        Need.FACTS: 0.9,
        Need.FRESH: 0.9,
        Need.CITE: 1.0,
        Need.GROUND: 0.8,
        Need.HONESTY: 0.4,
        Need.STYLE: 1.0,
        Need.FORMAT: 0.95,
        Need.READING: 1.0,
        Need.LABELS: 0.3,
        Need.KNOWLEDGE: 0.6,
        Need.CAPACITY: 0.3,
        Need.PRECISION: 1.0,
        Need.HEADROOM: 0.5,
        Need.SCALE: 0.5,
        Need.SPEED: 0.3,
    }

    def blocked(self, profile: Profile) -> tuple[Blocker, ...]:
        """Return the blockers: nothing to retrieve, a half without a use, or all tuning blocked (LoRA's)."""
        blockers = blocked_by(profile, self.name, nothing_to_retrieve, passages_at_hand, half_unused)
        return blockers if self.tuned_by(profile) else blockers + TUNED_HALVES[0].blocked(profile)

    def tuned_by(self, profile: Profile) -> Lora | None:
        """Return the tuning method that it would use: LoRA, else QLoRA, else full.

        As everywhere, QLoRA comes before a LoRA that would nearly fill the memory.
        """
        lora, qlora, full = TUNED_HALVES
        order = (qlora, lora, full) if fits_devices(profile, "lora") == "tight" else TUNED_HALVES
        return next((method for method in order if not method.blocked(profile)), None)

    def estimate(self, profile: Profile) -> MethodEstimate:
        """Estimate tuning on rows with the passages of the plan's index step, and calls with passages.

        The high end takes half as much again, for passages that are longer than assumed. Money is in
        proportion.
        """
        tuned_by = self.tuned_by(profile) or TUNED_HALVES[0]
        base = tuned_by.estimate(profile)
        call = usd_per_call(profile, *call_tokens(profile, self.name))
        passages = IndexStep().k
        hours = base.hours and training_hours(profile, tuned_by.name, float(passages * PASSAGE_TOKENS))
        if not hours or not base.hours:
            return replace(base, per_call_usd=call, per_call_range=call_usd_range(self.name, call))
        longer = hours.likely / base.hours.likely
        assumed = (
            f"rows with {passages} passages of about {PASSAGE_TOKENS} tokens take {longer:.2g} times as long"
        )
        return replace(
            base,
            hours=hours.times(1, 1, 1.5),
            usd=base.usd.times(longer, longer, 1.5 * longer) if base.usd else None,
            per_call_usd=call,
            per_call_range=call_usd_range(self.name, call),
            assumptions=(*base.assumptions, assumed),
        )

    def steps(self, profile: Profile, drafting: Drafting) -> tuple[Step, ...]:
        """Compare naive stacking, then train on rows with passages and evaluate with passages."""
        numbers: dict[str, Any] = dict(drafting.numbers)
        tuning: Any = drafting.tuning or "lora"
        # From the base, not from the tuned arm: weights that were taught the facts have no need to read them.
        train = TrainStep(arm=self.name, method=tuning, rows="retrieval", **numbers)
        stack = EvaluateStep(arm="naive-stack", weights=tuning, retrieval=True)
        return (stack, train, EvaluateStep(arm=self.name, weights=self.name, retrieval=True))

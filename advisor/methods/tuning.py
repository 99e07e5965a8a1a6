"""Fine-tuning: LoRA (adapters beside frozen weights), QLoRA (LoRA over a 4-bit base), and full tuning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from advisor.costs.call_prices import call_usd_range, usd_per_call
from advisor.costs.estimate import MethodEstimate, estimate_basis, launch_of
from advisor.costs.rental import training_cost
from advisor.costs.tokens import DEFAULT_EPOCHS, call_tokens, device_plan, training_setup, training_tokens
from advisor.costs.training_time import training_hours
from advisor.methods.base import Drafting, Method
from advisor.methods.blockers import (
    Blocker,
    blocked_by,
    no_data,
    no_memory,
    over_budget,
    remote_model,
    too_slow,
)
from advisor.questionnaire.profile import Profile
from advisor.rules.base import Need
from runners.plan.schema import Step
from runners.plan.steps import EvaluateStep, TrainStep
from runners.resources.memory_estimate import run_memory
from runners.resources.memory_terms import MemorySetup, MemoryUse

TUNING_CHECKS = (no_data, no_memory, too_slow, remote_model, over_budget)


class Lora(Method):
    """Train a small adapter and leave the base model as it is: the usual way to teach tone, format and skill.

    Nearly all the gain of full fine-tuning at a fraction of its memory, and only some megabytes to store. It does not teach
    facts that you could rely on or cite.
    """

    name = "lora"
    serves: ClassVar[Mapping[Need, float]] = {
        Need.UNWRITTEN: 1.0,
        Need.FACTS: 0.1,
        Need.STYLE: 1.0,
        Need.FORMAT: 1.0,
        Need.LABELS: 0.3,
        Need.KNOWLEDGE: 0.6,
        Need.CAPACITY: 0.3,
        Need.PRECISION: 1.0,
        Need.SCALE: 1.0,
        Need.SPEED: 1.0,
        Need.SIMPLE: 0.25,
    }

    def blocked(self, profile: Profile) -> tuple[Blocker, ...]:
        """Return the blockers: no data, memory, time, weights or money."""
        return blocked_by(profile, self.name, *TUNING_CHECKS)

    def estimate(self, profile: Profile) -> MethodEstimate:
        """Estimate training memory as the loop would set the run, hours and USD of training, and a call."""
        use: MemoryUse = self.name  # type: ignore[assignment]
        shape = None if profile.remote else profile.model_shape
        memory = run_memory(shape, use, _group_setup(profile, use), profile.device_gib) if shape else None
        hours = training_hours(profile, self.name) if profile.examples_known or profile.raw_text else None
        assumptions = (
            [f"{training_tokens(profile):,.0f} training tokens ({DEFAULT_EPOCHS:g} epochs)"] if hours else []
        )
        if memory:
            assumptions += list(memory.assumptions)
        launch = launch_of(profile, self.name) if shape else None
        if launch:
            assumptions.insert(0, launch.why)
        usd = training_cost(profile, self.name) if hours else None
        call = usd_per_call(profile, *call_tokens(profile, self.name))
        return MethodEstimate(
            memory=memory,
            device_gib=profile.device_gib,
            hours=hours,
            usd=usd,
            per_call_usd=call,
            assumptions=(*assumptions, *estimate_basis(profile, self.name)),
            per_call_range=call_usd_range(self.name, call),
            launch=launch,
        )

    def steps(self, profile: Profile, drafting: Drafting) -> tuple[Step, ...]:
        """Train on the examples, then evaluate the tuned weights without retrieval."""
        numbers: dict[str, Any] = dict(drafting.numbers)
        train = TrainStep(arm=self.name, method=self.name, **numbers)  # type: ignore[arg-type]
        return (train, EvaluateStep(arm=self.name, weights=self.name))


def _group_setup(profile: Profile, use: MemoryUse) -> MemorySetup:
    """Return the setup of a training for its memory: on one device, or on all GPUs as they share it."""
    setup = training_setup(profile)
    if profile.devices == 1 or profile.model_shape is None:
        return setup
    return replace(setup, devices=profile.devices, parallel=device_plan(profile, use).parallel)


class Full(Lora):
    """Train all weights: for small models, very different fields and billions of tokens.

    It learns most and forgets most, needs the most memory, and gives a whole model to store for every task.
    """

    name = "full"
    serves: ClassVar[Mapping[Need, float]] = {
        **Lora.serves,
        Need.STYLE: 0.95,
        Need.FORMAT: 1.0,
        Need.CAPACITY: 1.0,
        Need.SIMPLE: 0.1,
    }


class QLora(Lora):
    """LoRA on a base model in 4 bits: a quarter of the memory for weights, somewhat slower.

    For when LoRA in 16 bits does not fit. It saves memory for weights, not for activations.
    """

    name = "qlora"
    serves: ClassVar[Mapping[Need, float]] = {
        **Lora.serves,
        Need.STYLE: 0.95,
        Need.FORMAT: 0.95,
        Need.CAPACITY: 0.2,
        Need.PRECISION: 0.0,
        Need.HEADROOM: 1.0,
        Need.SCALE: 0.95,
        Need.SIMPLE: 0.2,
    }

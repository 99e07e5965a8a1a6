"""LoRA: train small adapters beside frozen weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from advisor.cost import (
    EPOCHS,
    Estimate,
    basis,
    call_tokens,
    out_of_pocket,
    per_call,
    training_hours,
    training_tokens,
)
from advisor.methods.base import Drafting, Method
from advisor.methods.blocks import (
    Blocker,
    blocked_by,
    no_data,
    no_memory,
    over_budget,
    remote_model,
    too_slow,
)
from advisor.profile import Profile
from advisor.rules.base import Need
from advisor.tokens import training_setup
from runners.memory import Use, smallest
from runners.plan import EvaluateStep, Step, TrainStep

CHECKS = (no_data, no_memory, too_slow, remote_model, over_budget)


class Lora(Method):
    """Train small adapters beside the frozen base: the usual way to teach tone, format and skill.

    Nearly all of full tuning's gain at a fraction of its memory, and a file of megabytes to store. It does
    not teach facts that can be relied on or cited.
    """

    name = "lora"
    serves: ClassVar[Mapping[Need, float]] = {
        Need.FACTS: 0.1, Need.STYLE: 1.0, Need.FORMAT: 1.0, Need.TRAIN: 1.0, Need.CAPACITY: 0.3,
        Need.THRIFT: 1.0, Need.PRECISION: 1.0, Need.SCALE: 1.0, Need.SPEED: 1.0, Need.SIMPLE: 0.25,
    }  # fmt: skip

    def blocked(self, p: Profile) -> tuple[Blocker, ...]:
        """No data, no memory, no time, no weights or no money."""
        return blocked_by(p, self.name, *CHECKS)

    def estimate(self, p: Profile) -> Estimate:
        """Training memory with every free saving on, hours and USD of training, a call without examples."""
        use: Use = self.name  # type: ignore[assignment]
        shape = None if p.remote else p.model_shape
        memory = smallest(shape, use, training_setup(p)) if shape else None
        hours = training_hours(p, self.name) if p.examples_known or p.raw_text else None
        said = [f"{training_tokens(p):,.0f} training tokens ({EPOCHS:g} epochs)"] if hours else []
        if memory:
            said += list(memory.assumptions)
        usd = out_of_pocket(p, self.name) if hours else None
        call = per_call(p, *call_tokens(p, self.name))
        return Estimate(memory, p.device_gib, hours, usd, call, (*said, *basis(p, self.name)))

    def steps(self, p: Profile, drafting: Drafting) -> tuple[Step, ...]:
        """Train on the examples, then evaluate the tuned weights without retrieval."""
        numbers: dict[str, Any] = dict(drafting.numbers)
        train = TrainStep(arm=self.name, method=self.name, **numbers)  # type: ignore[arg-type]
        return (train, EvaluateStep(arm=self.name, weights=self.name))

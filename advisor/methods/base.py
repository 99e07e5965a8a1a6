"""The base class of methods: what every way of adapting a model declares about itself."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from advisor.costs.call_prices import call_usd_range, usd_per_call
from advisor.costs.estimate import MethodEstimate, estimate_basis
from advisor.costs.hosting import answering_memory_of, answering_quantization
from advisor.costs.tokens import ANSWER_SECONDS, ANSWER_TOKENS, PROMPT_TOKENS, ZERO_RANGE, call_tokens
from advisor.methods.blockers import Blocker
from advisor.questionnaire.profile import Profile
from advisor.rules.base import Need
from runners.plan.schema import Step
from runners.plan.steps import NO_QUANTIZATION
from runners.resources.memory_estimate import estimate_inference_memory


@dataclass(frozen=True, slots=True)
class Drafting:
    """What a method needs to write its steps."""

    tuning: str | None = None
    """The tuning method of the plan: lora, qlora or full."""
    numbers: Mapping[str, object] = field(default_factory=dict)
    """Training settings for the tuning steps, with their reasons."""
    shots: int = 3


class Method:
    """One way of adapting a model; the docstring is what a user reads."""

    name: ClassVar[str] = ""
    serves: ClassVar[Mapping[Need, float]] = {}
    """How far it serves each need, 0 to 1; a missing need counts as 0."""

    def blocked(self, profile: Profile) -> tuple[Blocker, ...]:
        """Return what blocks it here, with numbers; empty when nothing does."""
        return ()

    def estimate(self, profile: Profile) -> MethodEstimate:
        """Return what it takes here: memory, hours, USD once, USD per call."""
        raise NotImplementedError

    def steps(self, profile: Profile, drafting: Drafting) -> tuple[Step, ...]:
        """Return the plan's steps for this method's arm (the index step is the plan's own)."""
        raise NotImplementedError

    @classmethod
    def text(cls) -> str:
        """Return the user's text: the docstring, unindented."""
        return inspect.cleandoc(cls.__doc__ or "")


def inference_estimate(
    profile: Profile, method: str, extra_tokens: float = 0.0, *assumptions: str
) -> MethodEstimate:
    """Estimate answering only: memory of the base with its cache, a call's price, no training time or money.

    Args:
        profile: the situation.
        method: the method's name.
        extra_tokens: tokens that the method adds to prompt and answer.
        assumptions: the method's own assumptions.
    """
    tokens = int(
        (profile.prompt_tokens or PROMPT_TOKENS) + (profile.answer_tokens or ANSWER_TOKENS) + extra_tokens
    )
    shape = None if profile.remote else profile.model_shape
    quantization, why = answering_quantization(profile)
    memory = (
        answering_memory_of(profile, quantization, tokens)
        if quantization != NO_QUANTIZATION
        else estimate_inference_memory(
            shape,
            tokens,
            0,
            weights="fp32" if profile.computes_in_fp32 else None,
            counter="process" if profile.has_gpu is False else "device",
            devices=profile.answering_devices,
        )
        if shape
        else None
    )
    call = usd_per_call(profile, *call_tokens(profile, method))
    if why:
        assumptions += (why,)
    return MethodEstimate(
        memory=memory,
        device_gib=profile.device_gib,
        hours=ZERO_RANGE,
        usd=ZERO_RANGE,
        per_call_usd=call,
        assumptions=(*assumptions, *estimate_basis(profile)),
        per_call_range=call_usd_range(method, call),
        seconds=ANSWER_SECONDS.get(method) if profile.remote else None,
    )

"""Which model the probe asks: the plan's, or, where that cannot run here, the default one as a stand-in."""

from __future__ import annotations

from dataclasses import dataclass

from advisor.facts import models as facts
from advisor.profile import Profile
from advisor.timing import ANSWER_TOKENS, DECODE_TOKENS_PER_S, PREFILL_TOKENS_PER_S, REFERENCE_PARAMS_B
from rag.errors import BadInput, CannotRun
from rag.types import OnEvent
from runners.accelerator import Probe
from runners.bench import Base, must_stay_local, obtain
from runners.endpoint import check_may_contact
from runners.machine import Machine, free_ram
from runners.memory import Setup, estimate
from runners.models import parse_remote
from runners.plan import Plan, PlanModel

MOST_SECONDS = 1800.0
"""A probe is a look before the work: a model that would take over half an hour here is not asked."""
PROMPT_TOKENS = 300
"""Tokens of a question with its passages and instructions, on average over the ways."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The model that is asked, and why it is not the plan's; "" when it is."""

    model: PlanModel
    base: Base
    why: str = ""


def choose(
    plan: Plan, profile: Profile, machine: Machine, answers: int, on_event: OnEvent | None = None
) -> Chosen:
    """Return the plan's model where it can answer so many questions here, else the default model with the reason.

    Raises BadInput for an endpoint that may not be contacted, CannotRun when not even the default can be had.
    """
    remote = parse_remote(plan.model.name)
    if remote:
        check_may_contact(remote.name, remote.url, must_stay_local(plan))
        return Chosen(plan.model, remote)
    why = too_large(profile, machine, answers)
    if not why:
        try:
            return Chosen(plan.model, obtain(plan.model, "base", on_event))
        except (CannotRun, BadInput) as problem:
            if plan.model.name == facts.DEFAULT:
                raise
            why = f"{plan.model.name} cannot be had here ({problem.message})"
    small = PlanModel(name=facts.DEFAULT)
    return Chosen(small, obtain(small, "base", on_event), why)


def too_large(profile: Profile, machine: Machine, answers: int) -> str:
    """Say why the model cannot answer so many questions here: memory, or time; "" when it can, or its size is unknown."""
    shape, params_b = profile.model_shape, profile.params_b
    if shape is None or not params_b:
        return ""
    cuda = machine.gpu_kind.value == "cuda"
    have = machine.gpu_memory_gib.value if cuda else free_ram(Probe()).value
    need = estimate(shape, "inference", Setup(seq_len=1024)).likely
    if have is not None and need > have:
        return f"{profile.model or 'the model'} needs about {need:.1f} GiB, {have:.1f} are free"
    each = PROMPT_TOKENS / PREFILL_TOKENS_PER_S + ANSWER_TOKENS / DECODE_TOKENS_PER_S
    seconds = answers * each * params_b / REFERENCE_PARAMS_B
    if not cuda and seconds > MOST_SECONDS:
        return f"{profile.model or 'the model'} would take about {seconds / 3600:.1f} hours without a GPU"
    return ""

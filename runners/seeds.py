"""Several training seeds for one plan: how far two runs of the same training differ."""

from __future__ import annotations

from rag.errors import UsageProblem
from runners.plan import Plan, Step, TrainStep


def with_seeds(plan: Plan, count: int) -> Plan:
    """Return the plan with ``count`` training runs for every tuned arm, seeds counted on from its first.

    The scores of an arm are averaged over them, question by question. UsageProblem when the plan trains nothing.
    """
    if not any(isinstance(step, TrainStep) for step in plan.steps):
        raise UsageProblem(f"--seeds {count} changes nothing: the plan trains no arm", "leave it out")
    return plan.model_copy(update={"steps": tuple(_seeded(step, count) for step in plan.steps)})


def _seeded(step: Step, count: int) -> Step:
    if not isinstance(step, TrainStep) or len(step.seeds) == count:
        return step
    first = step.seeds[0]
    reasons = {name: why for name, why in step.reasons.items() if name != "seeds"}  # it was of another count
    return step.model_copy(update={"seeds": tuple(range(first, first + count)), "reasons": reasons})

"""Whether a plan trains every tuned arm twice: only a second seed shows how much training itself varies."""

from __future__ import annotations

from advisor.costs.step_time import estimate_step_times
from advisor.questionnaire.profile import Profile
from runners.plan.schema import Plan, Step, with_seeds
from runners.plan.steps import TrainStep

MAX_SECOND_SEED_MINUTES = 5.0
"""Most that a second seed of all tuned arms may add to a trial, training and answers together, by the estimates."""


def with_second_seed(plan: Plan, profile: Profile, rows: int, questions: int) -> Plan:
    """Return the plan with two training seeds where the second costs little, else with one, and why in each step.

    ``rows`` is how many examples there are, ``questions`` how many questions the trial asks. What the second seed
    adds is the training of every tuned arm, at the likely speed of what trains here, and their answers.
    """
    if not any(isinstance(step, TrainStep) for step in plan.steps):
        return plan
    minutes = second_seed_minutes(plan, profile, rows, questions)
    if minutes is None:
        return with_seed_reasons(
            plan, "1 because the model's size is unknown, and so is what a second seed would take"
        )
    if minutes > MAX_SECOND_SEED_MINUTES:
        return with_seed_reasons(
            plan,
            f"1 because a second seed of all tuned arms would take about {_told(minutes)} more, above "
            f"{MAX_SECOND_SEED_MINUTES:g}; tunewise run --seeds 2 trains it",
        )
    why = f"2 because training itself varies, and a second seed of all tuned arms takes about {_told(minutes)} more"
    return with_seed_reasons(with_seeds(plan, 2), why)


def second_seed_minutes(plan: Plan, profile: Profile, rows: int, questions: int) -> float | None:
    """Return the minutes that a second seed of every tuned arm adds; None when the model's size is unknown."""
    if profile.model_shape is None:
        return None
    one, two = (
        sum(seconds for _, seconds in estimate_step_times(with_seeds(plan, count), rows, questions, profile))
        for count in (1, 2)
    )
    return (two - one) / 60


def with_seed_reasons(plan: Plan, why: str) -> Plan:
    """Return the plan whose train steps say why they have so many seeds."""
    return plan.model_copy(update={"steps": tuple(_because(step, why) for step in plan.steps)})


def _because(step: Step, why: str) -> Step:
    if not isinstance(step, TrainStep):
        return step
    return step.model_copy(update={"reasons": {**step.reasons, "seeds": why}})


def _told(minutes: float) -> str:
    return f"{minutes:.0f} minutes" if minutes >= 10 else f"{minutes:.1f} minutes"

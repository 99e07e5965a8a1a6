"""Whether a plan trains every tuned arm with a second seed, which shows how much training itself varies."""

from __future__ import annotations

from advisor.costs.step_time import estimate_step_times, model_profiles
from advisor.questionnaire.profile import Profile
from runners.plan.arm_names import split_arm
from runners.plan.schema import Plan, Step, with_seeds
from runners.plan.steps import TrainStep

MAX_SECOND_SEED_MINUTES = 5.0
"""The most that a second seed of all tuned arms may add to a trial, training and answers together, by the
estimates.
"""


def with_second_seed(plan: Plan, profile: Profile, rows: int, questions: int) -> Plan:
    """Return the plan with two training seeds where the second takes little time, else with one.

    The second seed adds the training of every tuned arm, at the likely speed of the device here, and their
    answers.

    Args:
        plan: the drafted plan.
        profile: model and hardware.
        rows: number of examples.
        questions: number of questions that the trial asks.
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
            f"1 because a second seed of all tuned arms would take about {_minutes(minutes)} more, above "
            f"{MAX_SECOND_SEED_MINUTES:g}; tunewise run --seeds 2 trains it",
        )
    why = f"2 because training itself varies, and a second seed of all tuned arms takes about {_minutes(minutes)} more"
    return with_seed_reasons(with_seeds(plan, 2), why)


def second_seed_minutes(plan: Plan, profile: Profile, rows: int, questions: int) -> float | None:
    """Return the minutes that a second seed of every tuned arm adds; None if the model's size is unknown."""
    profiles = model_profiles(plan, profile)
    trained = (split_arm(step.arm)[1] for step in plan.steps if isinstance(step, TrainStep))
    if any(profiles[alias].model_shape is None for alias in trained):
        return None
    one, two = (
        sum(seconds for _, seconds in estimate_step_times(with_seeds(plan, count), rows, questions, profile))
        for count in (1, 2)
    )
    return (two - one) / 60


def with_seed_reasons(plan: Plan, why: str) -> Plan:
    """Return the plan whose train steps state the reason for their number of seeds."""
    return plan.model_copy(update={"steps": tuple(_with_reason(step, why) for step in plan.steps)})


def _with_reason(step: Step, why: str) -> Step:
    """Return a train step with the reason for its seeds; other steps unchanged."""
    if not isinstance(step, TrainStep):
        return step
    return step.model_copy(update={"reasons": {**step.reasons, "seeds": why}})


def _minutes(minutes: float) -> str:
    return f"{minutes:.0f} minutes" if minutes >= 10 else f"{minutes:.1f} minutes"

"""Measure the speed of a plan's trainings on this machine before they are announced, and store it for later plans.

:func:`measure_plan_speeds` is called where torch is loaded anyway: by ``tunewise run``, ``train`` and ``demo``.
:mod:`advisor.costs.training_time` then uses the stored speeds, as it uses the matrix speed of ``doctor --calibrate``.
"""

from __future__ import annotations

from collections.abc import Sequence

from advisor.costs import training_time
from advisor.costs.step_time import passage_tokens, train_seconds
from advisor.costs.tokens import row_tokens
from advisor.questionnaire.gather import profile_of_plan
from advisor.questionnaire.profile import Profile
from rag.errors import CannotRun
from runners.plan.schema import Plan
from runners.plan.steps import TrainStep
from runners.plan.train_config import TrainConfig
from runners.resources import calibration
from runners.resources.calibration import TrainingSpeed
from runners.resources.model_shape import ModelShape
from runners.tokenization.token_estimate import CHARS_PER_TOKEN

MIN_ESTIMATED_SECONDS = 60.0
"""Trainings of less than this are not measured: the measurement would take a good part of their time."""
USUAL_LEARNT = 0.4
"""Share of a row's tokens that are learnt, where answers were not counted."""


def measure_plan_speeds(plan: Plan, examples: int, profile: Profile | None = None) -> tuple[str, ...]:
    """Measure how fast this machine trains each arm of a plan, for about two seconds, and store the speeds.

    Nothing is measured for a GPU, for an endpoint, for a model of unknown shape, or where the arms train for less than
    a minute by the estimate.

    Args:
        plan: the plan.
        examples: rows that are trained on.
        profile: hardware and model; by default those of the plan's answers on this machine.

    Returns:
        A line for each arm that was measured.
    """
    profile = profile or profile_of_plan(plan)
    shape = profile.model_shape
    steps = [step for step in plan.steps if isinstance(step, TrainStep)]
    seconds = sum(len(step.seeds) * train_seconds(step, plan, profile, examples) for step in steps)
    if shape is None or profile.remote or profile.has_gpu is not False or seconds < MIN_ESTIMATED_SECONDS:
        return ()
    prefix = len(plan.prompts.system) / CHARS_PER_TOKEN
    speeds: list[TrainingSpeed] = []
    lines = []
    for step in steps:
        row = row_tokens(profile) + (passage_tokens(plan) if step.rows == "retrieval" else 0)
        config = step.config(step.seeds[0], None).replace(kernels=plan.kernels)
        learnt = (profile.answer_tokens or USUAL_LEARNT * row) / row
        # Half of the two seconds for each of the usual two kinds of rows.
        speed = training_speed(shape, config, row, prefix, learnt, 2.0 / max(2, len(steps)))
        speeds.append(speed)
        lines.append(speed_line(step.arm, speed))
    return *lines, *store_speeds(speeds)


def training_speed(
    shape: ModelShape, config: TrainConfig, row: float, prefix: float, learnt: float, seconds: float = 2.0
) -> TrainingSpeed:
    """Measure how fast this machine trains on rows of ``row`` tokens, of which the first ``prefix`` are common.

    Args:
        shape: the model.
        config: settings of the training.
        row: tokens of a row.
        prefix: first tokens that all rows share.
        learnt: share of the tokens that are targets.
        seconds: time of the measurement.
    """
    from runners.preflight.speed_probe import RowsOfRun, measure_training_speed

    return measure_training_speed(shape, config, RowsOfRun(row, prefix, learnt), seconds)


def store_speeds(speeds: Sequence[TrainingSpeed]) -> tuple[str, ...]:
    """Add measured speeds to the stored calibration, which is made where there is none; later estimates use them.

    Returns:
        Why they could not be stored, in one line; nothing where they were.
    """
    if not speeds:
        return ()
    stored = training_time.stored_calibration().calibration or calibration.calibrate(seconds=1.0)
    updated = stored.with_training(speeds)
    try:
        calibration.store_calibration(updated)
    except (CannotRun, OSError) as error:
        return (f"the measured speed could not be stored, so the times below do not use it: {error}",)
    training_time.stored_calibration.cache_clear()
    return ()


def speed_line(arm: str, speed: TrainingSpeed) -> str:
    """Return a line with the measured speed of an arm's training."""
    return (
        f"train:{arm}: {1 / speed.seconds_per_token:,.0f} tokens/s measured here just now "
        f"({speed.dtype}, {speed.threads} {'thread' if speed.threads == 1 else 'threads'})"
    )

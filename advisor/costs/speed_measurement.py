"""Measure the speed of a plan's trainings on this machine before they are announced, and store it for later plans.

:func:`measure_plan_speeds` is called where torch is loaded anyway: by ``tunewise run``, ``train`` and ``demo``.
:mod:`advisor.costs.training_time` then uses the stored speeds, as it uses the matrix speed of ``doctor --calibrate``.
"""

from __future__ import annotations

from collections.abc import Sequence

from advisor.costs import training_time
from advisor.costs.step_time import model_profiles, passage_tokens, train_seconds
from advisor.costs.tokens import row_tokens
from advisor.questionnaire.profile import Profile
from rag.errors import CannotRun, system_reason
from runners.plan.arm_names import split_arm
from runners.plan.schema import Plan
from runners.plan.steps import TrainStep
from runners.plan.train_config import TrainConfig
from runners.preflight.speed_probe import MAX_TABLE, PROBE_LAYERS, RowsOfRun, measure_training_speed
from runners.resources import calibration, usage
from runners.resources.calibration import TrainingSpeed
from runners.resources.gpu import MachineProbe
from runners.resources.machine import GIB, detect_machine, free_ram
from runners.resources.model_shape import ModelShape
from runners.tokenization.token_estimate import CHARS_PER_TOKEN

MIN_ESTIMATED_SECONDS = 60.0
"""Trainings of less than this are not measured: the measurement would take a good part of their time."""
BYTES_PER_PARAMETER = 16
"""Of the measured blocks at most: fp32 weights, gradients and two moments."""
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
    profiles = model_profiles(plan, profile)
    return tuple(
        line for alias in profiles for line in _measure_model(plan, alias, examples, profiles[alias])
    )


def _measure_model(plan: Plan, alias: str, examples: int, profile: Profile) -> tuple[str, ...]:
    """Measure and store the training speeds of one model's arms; of a plan with one model its alias is ""."""
    shape = profile.model_shape
    steps = _train_steps(plan, alias)
    seconds = sum(len(step.seeds) * train_seconds(step, plan, profile, examples) for step in steps)
    if shape is None or shape.assumed or profile.remote or profile.has_gpu is not False:
        return ()
    if seconds < MIN_ESTIMATED_SECONDS:
        return ()
    if calibration.calibration_path() is None or not _can_be_measured(shape):
        return ()
    prefix = len(plan.prompts.system) / CHARS_PER_TOKEN
    speeds: list[TrainingSpeed] = []
    lines = []
    with usage.measure_step_contention() as contention:
        for step in steps:
            row = _row_tokens(plan, step, profile)
            config = step.config(step.seeds[0], None).replace(kernels=plan.kernels)
            learnt = (profile.answer_tokens or USUAL_LEARNT * row) / row
            # Half of the two seconds for each of the usual two kinds of rows.
            speed = training_speed(shape, config, row, prefix, learnt, 2.0 / max(2, len(steps)))
            speeds.append(speed)
            lines.append(speed_line(step.arm, speed))
    return *lines, *store_speeds(speeds, contention.lost)


def training_measured(plan: Plan, alias: str = "") -> bool:
    """Return whether the estimates of a model's trainings are speeds that were measured here, for one arm at least."""
    profile = model_profiles(plan)[alias]
    shape, speeds = profile.model_shape, training_time.training_device(profile).speeds
    if shape is None or not speeds:
        return False
    return any(
        training_time.measured_speed(speeds, shape, step.method, _row_tokens(plan, step, profile))
        for step in _train_steps(plan, alias)
    )


def _train_steps(plan: Plan, alias: str) -> list[TrainStep]:
    """Return the train steps of the model of an alias."""
    return [step for step in plan.steps if isinstance(step, TrainStep) and split_arm(step.arm)[1] == alias]


def measure_run_seconds(
    shape: ModelShape, config: TrainConfig, rows: int, tokens: int, learnt: int, prefix: float
) -> tuple[float, TrainingSpeed] | None:
    """Measure and store the speed of one training on this CPU, and return the seconds that it will take.

    None where it would take less than a minute by the estimate.

    Args:
        shape: the model.
        config: settings of the training.
        rows: rows of one pass.
        tokens: tokens of one pass.
        learnt: those of them that are targets.
        prefix: first tokens that all rows share.
    """
    machine = detect_machine()
    row = tokens / max(1, rows)
    device = training_time.cpu_device(machine.cpu_cores.value, machine.bf16.value)
    work = [(tokens * config.epochs, row)]
    if training_time.training_seconds(shape, config.method, device, work).likely < MIN_ESTIMATED_SECONDS:
        return None
    if calibration.calibration_path() is None or not _can_be_measured(shape):
        return None
    with usage.measure_step_contention() as contention:
        speed = training_speed(shape, config, row, prefix, learnt / tokens)
    store_speeds([speed], contention.lost)
    return speed.seconds_per_token * tokens * config.epochs, speed


def _can_be_measured(shape: ModelShape) -> bool:
    """Return whether the measured blocks of a model fit into half of the free memory, in fp32 with gradients."""
    parameters = PROBE_LAYERS * sum(rows * columns for rows, columns in shape.matrices()) + MAX_TABLE
    return parameters * BYTES_PER_PARAMETER / GIB < free_ram(MachineProbe()).value / 2


def _row_tokens(plan: Plan, step: TrainStep, profile: Profile) -> float:
    """Return the tokens of a row that a step trains on, with its passages."""
    return row_tokens(profile) + (passage_tokens(plan) if step.rows == "retrieval" else 0)


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
    return measure_training_speed(shape, config, RowsOfRun(row, prefix, learnt), seconds)


def store_speeds(speeds: Sequence[TrainingSpeed], lost: float = 0.0) -> tuple[str, ...]:
    """Add measured speeds to the stored calibration, which is made where there is none; later estimates use them.

    Speeds that were measured while other programs used the processor are not stored: they would make every later
    estimate too long.

    Args:
        speeds: what was measured.
        lost: share of the wanted processor time that other programs took meanwhile, from 0 to 1.

    Returns:
        Why they were not stored, in one line; nothing where they were.
    """
    if not speeds:
        return ()
    if note := usage.contention_note(lost):
        return (f"{note}; this speed is not kept for later estimates",)
    stored = training_time.stored_calibration().calibration or calibration.calibrate(seconds=1.0)
    updated = stored.with_training(speeds)
    try:
        calibration.store_calibration(updated)
    except (CannotRun, OSError) as error:
        return (
            f"the measured speed could not be stored, so the times below do not use it: {system_reason(error)}",
        )
    training_time.stored_calibration.cache_clear()
    return ()


def speed_line(arm: str, speed: TrainingSpeed) -> str:
    """Return a line with the measured speed of an arm's training."""
    return (
        f"train:{arm}: {1 / speed.seconds_per_token:,.0f} tokens/s measured here just now "
        f"({speed.dtype}, {speed.threads} {'thread' if speed.threads == 1 else 'threads'})"
    )

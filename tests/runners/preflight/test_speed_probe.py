"""The measured speed of training: every method and path gives a time for a whole step of the model."""

from __future__ import annotations

import pytest

from runners.plan.train_config import TrainConfig
from runners.preflight.speed_probe import RowsOfRun, measure_training_speed
from runners.resources.model_shape import ModelShape

SHAPE = ModelShape(3_000_000, 6, 64, 4, 2, 16, 128, 2000)


@pytest.mark.parametrize(
    ("method", "kernels", "gated"),
    [("lora", "auto", True), ("full", "auto", False), ("qlora", "plain", True)],
)
def test_speed_is_measured_for_every_method_and_path(method: str, kernels: str, gated: bool) -> None:
    shape = ModelShape(3_000_000, 6, 64, 4, 2, 16, 128, 2000, gated=gated)
    config = TrainConfig(method=method, rank=4, alpha=8.0, kernels=kernels, batch_tokens=200)
    speed = measure_training_speed(shape, config, RowsOfRun(24.0, 6.0, 0.4), seconds=0.02)
    assert (speed.method, speed.layers, speed.vocab) == (method, 6, 2000)
    assert (speed.row_tokens, speed.prefix_tokens, speed.batch_tokens) == (24, 6, 200)
    assert 0 < speed.seconds_per_token < 1


def test_a_model_of_many_more_blocks_takes_longer() -> None:
    """The same blocks, 6 and 600 of them: the step's time is that of its blocks."""
    config = TrainConfig(rank=4, alpha=8.0, batch_tokens=200)
    few, many = (
        measure_training_speed(
            ModelShape(3_000_000, layers, 64, 4, 2, 16, 128, 2000), config, RowsOfRun(24.0), seconds=0.1
        ).seconds_per_token
        for layers in (6, 600)
    )
    assert many > 5 * few


@pytest.mark.slow  # a wide model
def test_rows_longer_than_a_pass_are_measured_on_fewer_tokens() -> None:
    """A wide model's rows are too much for two seconds: the measured pass is shorter, the row counts as it is."""
    shape = ModelShape(2_000_000_000, 2, 4096, 32, 8, 128, 8192, 1000)
    config = TrainConfig(rank=4, alpha=8.0, batch_tokens=4000)
    speed = measure_training_speed(shape, config, RowsOfRun(2000.0), seconds=0.01)
    assert speed.row_tokens == 2000
    assert speed.seconds_per_token > 0

"""The memory estimate against runs of this project on a CPU, measured by ``python -m benchmarks.memory_runs``."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.memory_runs import SHAPES
from runners.catalog import models
from runners.plan.train_config import TrainConfig
from runners.resources.memory_estimate import CPU_ACCURACY
from runners.resources.model_shape import ModelShape, read_shape
from runners.training.gradient_checkpointing import likely_training_gib

LIKELY_WITHIN = 0.25

# What training added to the process, in GiB: peak resident set less what was resident before the model was loaded.
# 2026-11-26, one thread of an Intel Xeon with AMX-BF16, Linux, glibc 2.41, torch 2.13, 64 kernels in oneDNN's cache.
# Name, model, settings, path, rows of the largest pass, its longest row, tokens computed, tokens learnt, GiB.
RUNS: tuple[tuple[str, str, dict[str, Any], str, int, int, int, int, float], ...] = (
    ("lora", "smollm2-135m", {}, "fast", 13, 79, 700, 373, 1.088),
    ("lora again", "smollm2-135m", {}, "fast", 13, 79, 700, 373, 1.059),
    ("full", "smollm2-135m", {"method": "full"}, "fast", 12, 87, 674, 347, 2.758),
    ("qlora", "smollm2-135m", {"method": "qlora"}, "fast", 12, 87, 674, 347, 1.153),
    ("plain lora", "smollm2-135m", {"kernels": "plain"}, "plain", 12, 87, 1044, 347, 1.863),
    (
        "plain full",
        "smollm2-135m",
        {"method": "full", "kernels": "plain"},
        "plain",
        12,
        87,
        1044,
        347,
        2.913,
    ),
    ("rows with passages", "smollm2-135m", {}, "fast", 5, 240, 865, 123, 1.643),
    ("262,144 tokens", "gemma3-270m", {"method": "full"}, "fast", 13, 87, 687, 371, 5.926),
    ("experts", "qwen3-moe", {}, "fast", 13, 87, 687, 371, 1.249),
)


def shape_of(name: str) -> ModelShape:
    """Return the shape of a recorded run's model."""
    if name in SHAPES:
        return read_shape(SHAPES[name])
    found = models.find_model(f"{name}-instruct")
    assert found is not None
    assert found.shape is not None
    return found.shape


@pytest.mark.parametrize("run", RUNS, ids=[run[0] for run in RUNS])
def test_estimate_is_near_a_recorded_run(run: tuple[Any, ...]) -> None:
    _, model, settings, path, rows, longest, tokens, learnt, measured = run
    shape, config = shape_of(model), TrainConfig(**settings)
    fast = path == "fast"
    fused = fast and config.method != "full" and shape.llama_like
    likely = likely_training_gib(
        shape,
        config,
        longest,
        tokens if fast else rows * longest,
        half=True,
        checkpointing=False,
        fused=fused,
        target_tokens=learnt,
        packed=fast,
    )
    assert likely == pytest.approx(measured, rel=LIKELY_WITHIN)
    assert CPU_ACCURACY.high * likely >= measured

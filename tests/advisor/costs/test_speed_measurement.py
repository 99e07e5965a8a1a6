"""Measured speeds of training: used for the same model and similar rows, and not measured where nothing is gained."""

from __future__ import annotations

from datetime import date
from importlib.metadata import version
from pathlib import Path

import pytest

from advisor.costs.speed_measurement import measure_plan_speeds, speed_line, store_speeds
from advisor.costs.training_time import (
    cpu_device,
    flops_per_token,
    measured_device,
    measured_speed,
    stored_calibration,
    training_device,
    training_seconds,
)
from advisor.questionnaire.answers import Answers
from advisor.questionnaire.gather import complete_situation
from runners.catalog import models
from runners.plan.schema import parse_plan
from runners.resources.calibration import (
    Calibration,
    MatrixSpeed,
    StoredCalibration,
    TrainingSpeed,
    processor_name,
    read_calibration,
    store_calibration,
)
from runners.resources.machine import Detected, Machine
from runners.resources.model_shape import ModelShape

CPU = MatrixSpeed("cpu", processor_name(), {"fp32": 1e11, "bf16": 4e11}, threads=2)
HERE = Machine(
    gpu_kind=Detected("none", "by hand"),
    gpu_count=Detected(0, "by hand"),
    gpu_memory_gib=Detected(0.0, "by hand"),
    gpu_name=Detected("", "by hand"),
    ram_gib=Detected(24.0, "by hand"),
    cpu_cores=Detected(2, "by hand"),
    disk_gib=Detected(100.0, "by hand"),
    bf16=Detected(True, "by hand"),
)


def shape_of(name: str) -> ModelShape:
    """Return the shape of a known model."""
    found = models.find_model(name)
    assert found is not None
    assert found.shape is not None
    return found.shape


SMOL = shape_of("smollm2-135m-instruct")


def speed(method: str = "lora", row: int = 100, seconds: float = 0.002) -> TrainingSpeed:
    """Return a measured speed of SmolLM2-135M."""
    size = (SMOL.layers, SMOL.hidden, SMOL.intermediate, SMOL.vocab)
    return TrainingSpeed(method, *size, row, 20, 1024, "bfloat16", 2, seconds)


def test_measured_speed_is_used_for_the_same_model_and_similar_rows() -> None:
    """100 tokens at 2 ms each, whatever the matrix speed; of a longer row also its attention."""
    device = measured_device(CPU, "2026-11-26", speeds=(speed(),))
    assert training_seconds(SMOL, "lora", device, [(10_000, 100)]).likely == pytest.approx(20)
    found = training_seconds(SMOL, "lora", device, [(10_000, 200)])
    more = flops_per_token(SMOL, "lora", 200, False) / flops_per_token(SMOL, "lora", 100, False)
    assert found.likely == pytest.approx(20 * more)
    assert (found.low, found.high) == pytest.approx((found.likely / 1.5, found.likely * 1.5))


def test_measured_speed_is_not_used_for_others() -> None:
    speeds = (speed(), speed(row=300, seconds=0.003), speed("full", seconds=0.006))
    assert measured_speed(speeds, SMOL, "lora", 260) == speeds[1]
    assert measured_speed(speeds, SMOL, "full", 90) == speeds[2]
    assert measured_speed(speeds, SMOL, "qlora", 100) is None
    assert measured_speed(speeds, SMOL, "lora", 2000) is None, "rows of another kind"
    assert measured_speed(speeds, shape_of("smollm2-360m-instruct"), "lora", 100) is None
    newer = speed(seconds=0.004)
    assert measured_speed((*speeds, newer), SMOL, "lora", 100) == newer
    plain = measured_device(CPU, "2026-11-26")
    assert training_seconds(SMOL, "qlora", plain, [(100, 100)]) == training_seconds(
        SMOL, "qlora", measured_device(CPU, "2026-11-26", speeds=speeds), [(100, 100)]
    )


def test_stored_speeds_reach_the_device_of_this_machine_only() -> None:
    stored = StoredCalibration(Calibration(date(2026, 11, 26), version("torch"), CPU, training=(speed(),)))
    detected = complete_situation(Answers(), HERE).profile
    assert training_device(detected, stored).speeds == (speed(),)
    described = complete_situation(Answers().put("flag", {"gpu_kind": "none", "cpu_cores": 2}), HERE).profile
    assert training_device(described, stored) == cpu_device(2), "written answers never depend on this machine"


@pytest.mark.parametrize(
    ("answers", "examples"),
    [({"gpu_kind": "cuda", "gpu_memory_gib": 24}, 5000), ({"gpu_kind": "none", "cpu_cores": 2}, 1)],
)
def test_nothing_is_measured_for_a_gpu_or_a_short_training(answers: dict[str, object], examples: int) -> None:
    plan = parse_plan(
        {
            "name": "p",
            "choice": "lora",
            "model": {"name": "smollm2-135m-instruct"},
            "data": {"examples": "e", "questions": "q"},
            "steps": [
                {"kind": "train", "arm": "lora", "epochs": 2},
                {"kind": "evaluate", "arm": "lora", "weights": "lora"},
            ],
            "weights": {"style": 1},
            "answers": {
                key: {"value": value, "source": "flag"}
                for key, value in {"model": "smollm2-135m-instruct", **answers}.items()
            },
        }
    )
    assert measure_plan_speeds(plan, examples) == ()


def test_speed_line_names_speed_dtype_and_threads() -> None:
    assert speed_line("lora", speed()) == (
        "train:lora: 500 tokens/s measured here just now (bfloat16, 2 threads)"
    )


def test_speed_of_a_busy_machine_is_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A speed measured beside other programs is named and not kept; one measured on a quiet machine is kept."""
    place = tmp_path / "calibration.json"
    monkeypatch.setenv("TUNEWISE_CALIBRATION", str(place))
    stored_calibration.cache_clear()
    store_calibration(Calibration(date(2026, 11, 26), version("torch"), CPU))
    (note,) = store_speeds([speed()], lost=0.6)
    assert note.startswith("the machine was busy: other programs took 60%")
    assert "not kept for later estimates" in note
    kept = read_calibration().calibration
    assert kept is not None
    assert kept.training == ()
    assert store_speeds([speed()], lost=0.05) == ()
    kept = read_calibration().calibration
    assert kept is not None
    assert kept.training == (speed(),)
    stored_calibration.cache_clear()

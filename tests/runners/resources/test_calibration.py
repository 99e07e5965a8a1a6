"""Calibration of matrix speed: measuring, storing, and ignoring one that is damaged or of another machine."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from rag.errors import CannotRun
from runners.resources import calibration
from runners.resources.calibration import (
    MAX_TRAINING_SPEEDS,
    Calibration,
    MatrixSpeed,
    StoredCalibration,
    TrainingSpeed,
)

GOOD = Calibration(
    date(2026, 11, 25),
    version("torch"),
    MatrixSpeed("cpu", calibration.processor_name(), {"fp32": 2e11, "bf16": 8e11}, threads=2),
)

SPEED = TrainingSpeed("lora", 30, 576, 1536, 49152, 83, 20, 1024, "bfloat16", 2, 0.001)


def test_training_speeds_are_stored_and_replaced_by_newer_ones(tmp_path: Path) -> None:
    """A file without them is the one of earlier versions; one of the same rows and model replaces the old one."""
    assert "training" not in GOOD.to_json()
    measured = GOOD.with_training([SPEED, replace(SPEED, method="full")])
    calibration.store_calibration(measured, tmp_path)
    assert calibration.read_calibration(tmp_path).calibration == measured
    newer = measured.with_training([replace(SPEED, seconds_per_token=0.002)])
    assert [(speed.method, speed.seconds_per_token) for speed in newer.training] == [
        ("full", 0.001),
        ("lora", 0.002),
    ]
    many = GOOD.with_training(replace(SPEED, row_tokens=n) for n in range(1, 100))
    assert len(many.training) == MAX_TRAINING_SPEEDS
    assert many.training[-1].row_tokens == 99


def test_stored_calibration_is_read_back(tmp_path: Path) -> None:
    assert calibration.read_calibration(tmp_path) == StoredCalibration()
    assert calibration.store_calibration(GOOD, tmp_path) == tmp_path / calibration.CALIBRATION_FILE
    assert calibration.read_calibration(tmp_path) == StoredCalibration(GOOD)
    with_card = replace(
        GOOD, cuda=MatrixSpeed("cuda", "a card", {"fp32": 5e13, "bf16": 3e14}, memory_gib=79.1)
    )
    calibration.store_calibration(with_card, tmp_path)
    assert calibration.read_calibration(tmp_path).calibration == with_card
    assert [path.name for path in tmp_path.iterdir()] == [calibration.CALIBRATION_FILE]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "null",
        "{}",
        '{"schema": 1}',
        "[" * 100_000,
        "\x00",
        '{"schema": 2}',
        json.dumps({**GOOD.to_json(), "day": "yesterday"}),
        json.dumps({**GOOD.to_json(), "cpu": {**GOOD.cpu.to_json(), "flops": {"fp32": -1, "bf16": 1e12}}}),
        json.dumps(
            {**GOOD.to_json(), "cpu": {**GOOD.cpu.to_json(), "flops": {"fp32": "fast", "bf16": 1e12}}}
        ),
        json.dumps({**GOOD.to_json(), "cpu": {**GOOD.cpu.to_json(), "threads": 0}}),
        json.dumps({**GOOD.to_json(), "cpu": None}),
        json.dumps({**GOOD.to_json(), "training": [{"method": "lora"}]}),
        json.dumps({**GOOD.with_training([replace(SPEED, seconds_per_token=-1.0)]).to_json()}),
    ],
)
def test_damaged_calibration_is_ignored_with_reason(tmp_path: Path, text: str) -> None:
    (tmp_path / calibration.CALIBRATION_FILE).write_text(text, "utf-8")
    found = calibration.read_calibration(tmp_path)
    assert found.calibration is None
    assert "tunewise doctor --calibrate" in found.ignored
    assert "\n" not in found.ignored


def test_folder_or_binary_file_as_calibration_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "a" / calibration.CALIBRATION_FILE).mkdir(parents=True)
    (tmp_path / calibration.CALIBRATION_FILE).write_bytes(b"\xff\xfe\x00")
    assert calibration.read_calibration(tmp_path / "a").ignored
    assert calibration.read_calibration(tmp_path).ignored


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (replace(GOOD, torch="1.0.0"), "measured with torch 1.0.0"),
        (replace(GOOD, cpu=replace(GOOD.cpu, name="Z80")), "measured on Z80"),
    ],
)
def test_calibration_of_other_machine_or_torch_is_ignored(
    tmp_path: Path, other: Calibration, reason: str
) -> None:
    calibration.store_calibration(other, tmp_path)
    found = calibration.read_calibration(tmp_path)
    assert found.calibration is None
    assert reason in found.ignored


def test_calibrate_measures_cpu() -> None:
    found = calibration.calibrate(seconds=0.2, day=date(2026, 11, 25))
    assert found.day == date(2026, 11, 25)
    assert found.cpu.threads >= 1
    assert all(1e8 < flops < 1e15 for flops in found.cpu.flops.values())
    assert found.cpu.best[1] == max(found.cpu.flops.values())


def test_calibrate_measures_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU: its matrix speed is measured beside the CPU's")
    found = calibration.calibrate(seconds=0.4).cuda
    assert found is not None
    assert found.flops["bf16"] > 1e12
    assert found.memory_gib > 1


def test_store_calibration_refuses_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(CannotRun, match="cannot write"):
        calibration.store_calibration(GOOD, tmp_path / "file")

"""doctor: what it prints about the matrix speed, and measuring it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

Run = Callable[..., CompletedProcess[str]]


def test_doctor_calibrate_measures_matrix_speed(tunewise: Run, tmp_path: Path) -> None:
    named = {"TUNEWISE_CALIBRATION": str(tmp_path / "calibration.json")}
    before = json.loads(tunewise("doctor", "--json", **named).stdout)["calibration"]
    assert "not measured" in before["text"]
    measured = tunewise("doctor", "--calibrate", "--json", **named)
    assert measured.returncode == 0, measured.stderr
    calibration = json.loads(measured.stdout)["calibration"]
    assert calibration["cpu"]["flops"]["bf16"] > 1e8
    assert "GFLOP/s bf16" in tunewise("doctor", **named).stdout
    (tmp_path / "calibration.json").write_text("{", "utf-8")
    broken = tunewise("doctor", **named)
    assert broken.returncode == 0
    assert "cannot be read" in broken.stdout


def test_plan_ignores_broken_calibration(tunewise: Run, tmp_path: Path) -> None:
    (tmp_path / "calibration.json").write_text("[[", "utf-8")
    answers = [
        "--set",
        "task_needs_facts=none",
        "--set",
        "behaviour_gap=high",
        "--set",
        "labelled_examples=99",
    ]
    file = str(tmp_path / "calibration.json")
    done = tunewise("plan", *answers, "--yes", "--json", TUNEWISE_CALIBRATION=file)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["choice"]

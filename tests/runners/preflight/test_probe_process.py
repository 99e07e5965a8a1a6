"""Checks of device, memory and disk, and the device probe in a child process."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from runners.data.examples import Example
from runners.models.resolve import Model
from runners.plan.train_config import TrainConfig
from runners.preflight import machine_checks
from runners.preflight.machine_checks import (
    MemoryNeed,
    largest_batch,
    memory_check,
    needed_memory,
    probe_checks,
)
from runners.preflight.probe_process import ProbeResult, quick_probe, run_probe
from runners.preflight.report import PreflightCheck
from runners.resources.machine import Detected
from runners.tokenization.chat_template import ChatTokenizer

FREE = {"gib": 8.0}
DEVICE = {"device": "CPU", "dtype": "bfloat16", "how": "asked for", "error": 0.003}
STEP = {"loss": 2.0, "norm": 1.0, "seconds": 2.0, "tokens": 1000, "rows": 8, "peak_gib": 1.5, "path": "fast"}


def checks_of(
    ended: str = "", config: TrainConfig | None = None, **findings: dict[str, Any]
) -> dict[str, PreflightCheck]:
    """Return the checks of a probe's findings, by code."""
    probe = ProbeResult({"free": FREE, "device": DEVICE, **findings}, ended)
    return {check.code: check for check in probe_checks(probe, config or TrainConfig(), 10_000, 8.0)}


def test_largest_batch_is_the_longest_rows(tiny: Model, examples: tuple[Example, ...]) -> None:
    encoded = [ChatTokenizer(tiny.folder).example(row) for row in examples]
    rows = largest_batch(encoded, 256)
    longest = max(len(row.ids) for row in encoded)
    assert len(rows[0].ids) == longest
    assert len(rows) == 256 // longest
    assert len(largest_batch(encoded, 1)) == 1


def test_probe_over_memory_limit_is_killed(tiny: Model, examples: tuple[Example, ...]) -> None:
    row = ChatTokenizer(tiny.folder).example(examples[0])
    probe = run_probe(tiny, TrainConfig(), [row], None, recompute=False, most_gib=0.01)
    assert (probe.ended, probe.findings) == ("memory", {})


def test_failed_step_names_activity_and_error() -> None:
    check = checks_of("OSError: the weights are broken")["PF023"]
    assert (check.level, check.text) == (
        "stop",
        "a step failed while loading: OSError: the weights are broken",
    )


def test_quick_probe_checks_arithmetic_in_this_process() -> None:
    probe = quick_probe(TrainConfig(method="qlora"))
    assert [check.level for check in probe_checks(probe, TrainConfig(method="qlora"), 0, None)] == [
        "ok",
        "ok",
    ]


@pytest.mark.parametrize("error", [0.3, math.inf, math.nan])
def test_arithmetic_error_stops(error: float) -> None:
    assert checks_of(device={**DEVICE, "error": error}, row=STEP, batch=STEP)["PF020"].level == "stop"


def test_device_without_working_torch_stops() -> None:
    probe = ProbeResult({}, "killed by signal 4")
    (device,) = probe_checks(probe, TrainConfig(), 0, None)
    assert (device.code, device.level, "signal 4" in device.text) == ("PF020", "stop", True)


def test_failing_or_inexact_four_bit_layer_stops() -> None:
    config = TrainConfig(method="qlora")
    assert checks_of("No module named 'bitsandbytes'", config)["PF021"].level == "stop"
    off = {"version": "1", "error": 0.9}
    assert checks_of("", config, four_bit=off, row=STEP, batch=STEP)["PF021"].level == "stop"
    fine = {"version": "1", "error": 0.1}
    assert checks_of("", config, four_bit=fine, row=STEP, batch=STEP)["PF021"].level == "ok"


def test_measured_step_fits_is_tight_or_stops() -> None:
    fits = checks_of(row=STEP, batch=STEP)["PF023"]
    assert (fits.level, fits.text.startswith("fits: 1.50 GiB")) == ("ok", True)
    assert "so the run about 20 seconds" in fits.text
    assert checks_of(row=STEP, batch={**STEP, "peak_gib": 7.9})["PF023"].level == "warn"
    half = checks_of("memory", row=STEP)["PF023"]
    assert (half.level, "the longest row fits, 2,048 tokens at once do not" in half.text) == ("warn", True)
    none = checks_of("memory")["PF023"]
    assert (none.level, "--method qlora" in none.next) == ("stop", True)


def test_non_finite_loss_or_different_prompt_stops() -> None:
    assert checks_of(row={**STEP, "loss": math.nan}, batch=STEP)["PF023"].level == "stop"
    assert checks_of(row={**STEP, "norm": math.inf}, batch=STEP)["PF023"].level == "stop"
    assert checks_of(prompt={"same": False}, row=STEP, batch=STEP)["PF009"].level == "stop"


def test_estimated_memory_grows_with_rank(tiny: Model) -> None:
    small, large = (needed_memory(tiny, TrainConfig(rank=rank), 100) for rank in (4, 512))
    assert small is not None
    assert large is not None
    assert small.likely < large.likely
    assert small.low < small.likely < small.high
    assert small.verdict == "yes"
    assert memory_check(small, 100, TrainConfig()).level == "ok"


def test_memory_check_suggests_smaller_settings() -> None:
    full = TrainConfig(method="full")
    check = memory_check(
        MemoryNeed(low=9, likely=10, high=11, free=4.0, how="available memory", checkpointing=False),
        300,
        full,
    )
    assert (check.level, check.text.startswith("does not fit: about 10.0 GiB")) == ("stop", True)
    assert "--method lora" in check.next
    assert "--micro-tokens 300" in check.next
    assert (
        memory_check(
            MemoryNeed(low=9, likely=10, high=11, free=10.5, how="", checkpointing=False), 300, full
        ).level
        == "warn"
    )
    assert (
        memory_check(
            MemoryNeed(low=9, likely=10, high=11, free=None, how="", checkpointing=False), 300, full
        ).level
        == "ok"
    )
    assert memory_check(None, 300, full).level == "ok"


def test_full_disk_stops(tiny: Model, tmp_path: Path) -> None:
    full = TrainConfig(method="full")
    assert machine_checks.check_training_disk(tiny, full, tmp_path).level == "ok"
    assert machine_checks.needed_disk_gib(tiny, full) > machine_checks.needed_disk_gib(
        tiny, TrainConfig(rank=1)
    )
    check = machine_checks.check_training_disk(tiny, full, tmp_path, Detected(0.1, "free space here"))
    assert (check.code, check.level, "0.1 GiB free" in check.text) == ("PF024", "stop", True)

"""Device, memory and disk: one real step in a child process, and what is made of whatever it finds."""

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
from runners.resources.machine import Detected as Seen
from runners.tokenization.chat_template import ChatTokenizer

FREE = {"gib": 8.0}
DEVICE = {"device": "CPU", "dtype": "bfloat16", "how": "asked for", "error": 0.003}
STEP = {"loss": 2.0, "norm": 1.0, "seconds": 2.0, "tokens": 1000, "rows": 8, "peak_gib": 1.5, "path": "fast"}


def judged(
    ended: str = "", config: TrainConfig | None = None, **told: dict[str, Any]
) -> dict[str, PreflightCheck]:
    """The checks made of a rehearsal's findings, by code."""
    found = ProbeResult({"free": FREE, "device": DEVICE, **told}, ended)
    return {check.code: check for check in probe_checks(found, config or TrainConfig(), 10_000, 8.0)}


def test_the_largest_batch_is_the_longest_rows(tiny: Model, examples: tuple[Example, ...]) -> None:
    encoded = [ChatTokenizer(tiny.folder).example(row) for row in examples]
    rows = largest_batch(encoded, 256)
    longest = max(len(row.ids) for row in encoded)
    assert len(rows[0].ids) == longest
    assert len(rows) == 256 // longest
    assert len(largest_batch(encoded, 1)) == 1


def test_a_child_that_takes_too_much_is_ended(tiny: Model, examples: tuple[Example, ...]) -> None:
    row = ChatTokenizer(tiny.folder).example(examples[0])
    found = run_probe(tiny, TrainConfig(), [row], None, recompute=False, most_gib=0.01)
    assert (found.ended, found.findings) == ("memory", {})


def test_a_step_that_fails_says_where_and_why() -> None:
    check = judged("OSError: the weights are broken")["PF023"]
    assert (check.level, check.text) == (
        "stop",
        "a step failed while loading: OSError: the weights are broken",
    )


def test_the_quick_way_tries_arithmetic_in_this_process() -> None:
    found = quick_probe(TrainConfig(method="qlora"))
    assert [check.level for check in probe_checks(found, TrainConfig(method="qlora"), 0, None)] == [
        "ok",
        "ok",
    ]


@pytest.mark.parametrize("error", [0.3, math.inf, math.nan])
def test_arithmetic_that_is_off_stops(error: float) -> None:
    assert judged(device={**DEVICE, "error": error}, row=STEP, batch=STEP)["PF020"].level == "stop"


def test_a_device_that_does_not_compute_at_all_stops() -> None:
    found = ProbeResult({}, "killed by signal 4")
    (device,) = probe_checks(found, TrainConfig(), 0, None)
    assert (device.code, device.level, "signal 4" in device.text) == ("PF020", "stop", True)


def test_four_bit_layers_that_fail_or_are_off_stop() -> None:
    config = TrainConfig(method="qlora")
    assert judged("No module named 'bitsandbytes'", config)["PF021"].level == "stop"
    off = {"version": "1", "error": 0.9}
    assert judged("", config, four_bit=off, row=STEP, batch=STEP)["PF021"].level == "stop"
    fine = {"version": "1", "error": 0.1}
    assert judged("", config, four_bit=fine, row=STEP, batch=STEP)["PF021"].level == "ok"


def test_a_step_that_fits_is_tight_or_does_not() -> None:
    fits = judged(row=STEP, batch=STEP)["PF023"]
    assert (fits.level, fits.text.startswith("fits: 1.50 GiB")) == ("ok", True)
    assert "so the run about 20 seconds" in fits.text
    assert judged(row=STEP, batch={**STEP, "peak_gib": 7.9})["PF023"].level == "warn"
    half = judged("memory", row=STEP)["PF023"]
    assert (half.level, "the longest row fits, 2,048 tokens at once do not" in half.text) == ("warn", True)
    none = judged("memory")["PF023"]
    assert (none.level, "--method qlora" in none.next) == ("stop", True)


def test_a_loss_that_is_no_number_or_a_prompt_that_differs_stops() -> None:
    assert judged(row={**STEP, "loss": math.nan}, batch=STEP)["PF023"].level == "stop"
    assert judged(row={**STEP, "norm": math.inf}, batch=STEP)["PF023"].level == "stop"
    assert judged(prompt={"same": False}, row=STEP, batch=STEP)["PF009"].level == "stop"


def test_memory_is_estimated_for_the_real_settings(tiny: Model) -> None:
    small, large = (needed_memory(tiny, TrainConfig(rank=rank), 100) for rank in (4, 512))
    assert small is not None
    assert large is not None
    assert small.likely < large.likely
    assert small.low < small.likely < small.high
    assert small.verdict == "yes"
    assert memory_check(small, 100, TrainConfig()).level == "ok"


def test_what_does_not_fit_says_what_would() -> None:
    full = TrainConfig(method="full")
    check = memory_check(MemoryNeed(9, 10, 11, 4.0, "available memory", False), 300, full)
    assert (check.level, check.text.startswith("does not fit: about 10.0 GiB")) == ("stop", True)
    assert "--method lora" in check.next
    assert "--micro-tokens 300" in check.next
    assert memory_check(MemoryNeed(9, 10, 11, 10.5, "", False), 300, full).level == "warn"
    assert memory_check(MemoryNeed(9, 10, 11, None, "", False), 300, full).level == "ok"
    assert memory_check(None, 300, full).level == "ok"


def test_a_disk_that_is_too_full_stops(tiny: Model, tmp_path: Path) -> None:
    full = TrainConfig(method="full")
    assert machine_checks.check_training_disk(tiny, full, tmp_path).level == "ok"
    assert machine_checks.needed_disk_gib(tiny, full) > machine_checks.needed_disk_gib(
        tiny, TrainConfig(rank=1)
    )
    check = machine_checks.check_training_disk(tiny, full, tmp_path, Seen(0.1, "free space here"))
    assert (check.code, check.level, "0.1 GiB free" in check.text) == ("PF024", "stop", True)

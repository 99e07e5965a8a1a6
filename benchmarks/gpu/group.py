"""The parts of the acceptance run that need several GPUs: DDP and FSDP2 over NCCL, started by torchrun.

Unverified: no machine with several GPUs has run them yet. They call the command line alone, and compare each GPU's memory
and the tokens a second with the estimates. NCCL refuses two processes on one GPU, so with one there is nothing to measure.
With ``--device cpu`` two processes over gloo check the script.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.gpu.parts import Row, Setting, table_row, training_task
from runners.models.fingerprint import read_json
from runners.resources.memory_estimate import MemoryEstimate, estimate_memory
from runners.resources.memory_terms import MemorySetup, ParallelKind
from runners.resources.model_shape import ModelShape, read_shape

FAMILY = "llama"
DEVICE_TOKENS = 2048
"""Tokens of each GPU in an optimiser step."""
SAMPLE_S = 0.2
"""Seconds between two looks at the memory of the GPUs."""
LIMIT_S = 220
"""Most seconds of one training."""


def group_part(parallel: ParallelKind) -> Callable[[Setting], list[Row]]:
    """Return the part that trains one family by LoRA and in full on all GPUs, shared in one way."""

    def measure(setting: Setting) -> list[Row]:
        count = visible_gpus(setting)
        what = f"train {parallel}"
        if count < 2:
            why = "one GPU: NCCL refuses two processes on it, and one process is no group"
            return [table_row(FAMILY, what, "tunewise", None, "tokens/s", why)]
        rows: list[Row] = []
        for method in ("lora", "full"):
            rows += _measured(setting, parallel, method, count)
        return rows

    return measure


def visible_gpus(setting: Setting) -> int:
    """Return the number of processes: one for each GPU that torch sees, two on a CPU."""
    if setting.tiny:
        return 2
    import torch

    return int(torch.cuda.device_count())


def group_rows(setting: Setting) -> Path:
    """Write the rows of the training parts as a file of chats, once, and return it."""
    path = setting.work / f"group-rows{'-tiny' if setting.tiny else ''}.jsonl"
    if not path.is_file():
        rows = training_task(setting, FAMILY).train
        path.write_text("".join(json.dumps({"messages": row.messages}) + "\n" for row in rows), "utf-8")
    return path


def group_command(setting: Setting, parallel: str, method: str, count: int, out: Path) -> list[str]:
    """Return the command that trains on ``count`` processes of this machine."""
    base = setting.model(FAMILY)
    tokens = setting.amount(DEVICE_TOKENS, 128)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    command += ["-m", "advisor", "train", "--examples", str(group_rows(setting)), "--method", method]
    command += [
        "--model",
        str(base.folder),
        "--out",
        str(out),
        "--parallel",
        parallel,
        "--optimizer",
        "adamw",
    ]
    command += [
        "--epochs",
        "1",
        "--batch-tokens",
        str(count * tokens),
        "--seed",
        "14",
        "--overwrite",
        "--json",
    ]
    return command


def _measured(setting: Setting, parallel: ParallelKind, method: str, count: int) -> list[Row]:
    """Train once and return the rows of speed and memory beside their estimates; the reason where it failed."""
    what = f"train {method} {parallel} on {count}"
    out = setting.work / f"group-{parallel}-{method}"
    shutil.rmtree(out, ignore_errors=True)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if setting.tiny:
        environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with MemoryWatch(active=not setting.tiny) as watch:
        try:
            done = subprocess.run(
                group_command(setting, parallel, method, count, out),
                env=environment,
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
            )
        except subprocess.TimeoutExpired:
            return [table_row(FAMILY, what, "tunewise", None, "tokens/s", f"no end in {LIMIT_S} s")]
    results = [line for line in done.stdout.splitlines() if line.startswith('{"schema"')]
    if done.returncode or not results:
        reason = " ".join(done.stderr.split())[-300:] or f"exit code {done.returncode}"
        return [table_row(FAMILY, what, "tunewise", None, "tokens/s", reason)]
    result: dict[str, Any] = json.loads(results[-1])
    expected = 0.0 if setting.tiny else expected_speed(setting, method, parallel, count)
    speed = result["tokens_per_s"]
    note = f"estimated {expected:,.0f} tokens/s, {speed / expected:.2f} of it measured" if expected else ""
    rows = [table_row(FAMILY, what, "tunewise", speed, "tokens/s", note)]
    if setting.tiny:
        rows.append(table_row(FAMILY, what, "tunewise", None, "GiB on a GPU", "memory is that of GPUs alone"))
        return rows
    estimate = expected_memory(setting, method, parallel, count)
    for number, gib in enumerate(watch.peaks):
        note = f"estimated {estimate.likely:.2f} GiB, {gib / estimate.likely:.2f} of it measured"
        rows.append(table_row(FAMILY, f"{what}, GPU {number}", "tunewise", gib, "GiB", note))
    return rows


def expected_speed(setting: Setting, method: str, parallel: ParallelKind, count: int) -> float:
    """Return the estimated tokens a second of all GPUs, from the matrix speed of one, measured now."""
    import torch

    from advisor.catalog import gpus
    from advisor.costs.training_time import device_group, measured_device, tokens_per_second
    from runners.resources.calibration import calibrate

    measured, found = calibrate(), gpus.find_gpu(torch.cuda.get_device_name())
    if measured.cuda is None or found is None:
        return 0.0
    group = device_group((found,), count, parallel, count * DEVICE_TOKENS)
    device = measured_device(measured.cuda, measured.day.isoformat(), group=group)
    task = training_task(setting, FAMILY)
    return tokens_per_second(_shape(setting), method, task.tokens / len(task.train), device).likely


def _shape(setting: Setting) -> ModelShape:
    return read_shape(read_json(setting.model(FAMILY).folder / "config.json"))


def expected_memory(setting: Setting, method: str, parallel: ParallelKind, count: int) -> MemoryEstimate:
    """Return the estimate of each GPU's memory for these trainings, with the context of the device."""
    setup = MemorySetup(batch=2, seq_len=1024, checkpointing=False, devices=count, parallel=parallel)
    return estimate_memory(_shape(setting), method, replace(setup, optimizer="adamw"))  # type: ignore[arg-type]


class MemoryWatch:
    """Look at the memory of all GPUs while a block runs; ``peaks`` has each one's most, in GiB."""

    def __init__(self, active: bool) -> None:
        """Start nothing yet; with ``active`` False nothing is looked at."""
        self.peaks: list[float] = []
        self._active = active
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryWatch:
        """Start to look."""
        if self._active:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop looking."""
        self._ended.set()
        if self._active:
            self._thread.join()

    def _watch(self) -> None:
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        while not self._ended.wait(SAMPLE_S):
            shown = subprocess.run(query, capture_output=True, text=True, check=False).stdout
            used = [float(line) / 1024 for line in shown.splitlines() if line.strip().isdecimal()]
            before = self.peaks or [0.0] * len(used)
            self.peaks = [max(pair) for pair in zip(before, used, strict=False)]


GROUP_PARTS: dict[str, Callable[[Setting], list[Row]]] = {
    "ddp": group_part("ddp"),
    "fsdp": group_part("fsdp"),
}
"""The parts that need several GPUs, by name."""

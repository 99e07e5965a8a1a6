"""Run :mod:`runners.preflight.device_probe` in a child process, watch its memory and collect its findings.

A child process, because a step that does not fit in memory, or an instruction that this processor lacks, kills the
process it runs in. Imports no torch.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from runners.data.examples import Example
from runners.models.resolve import Model
from runners.plan.train_config import TrainConfig
from runners.resources.machine import GIB
from runners.tokenization.chat_template import EncodedRow

PROBE_TIMEOUT_S = 600.0
"""Longest wait for the next finding, in seconds; loading a large model takes minutes."""


@dataclass
class ProbeResult:
    """The findings of a device probe and how it ended."""

    findings: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The values of each finding, by its kind, in the order of their arrival."""
    ended: str = ""
    """"" when the probe was completed; memory, time, or the last line of the child's stderr."""
    peak_gib: float = 0.0
    """The highest resident memory that the parent process observed."""

    @property
    def last_activity(self) -> str:
        """What the probe was doing when it ended."""
        last = next(reversed(self.findings), "start")
        return {
            "free": "arithmetic",
            "device": "loading",
            "four_bit": "loading",
            "prompt": "loading",
            "loaded": "the longest row",
            "row": "a whole micro-batch",
        }.get(last, last)


def run_probe(
    base: Model,
    config: TrainConfig,
    rows: Sequence[EncodedRow],
    example: Example | None,
    recompute: bool,
    most_gib: float | None = None,
) -> ProbeResult:
    """Probe the device, 4-bit layers where they are used, the prompt, and training steps, in a child process.

    Args:
        base: The base model.
        config: Settings of the run.
        rows: Rows of the largest micro-batch, the longest first; without any no step is taken.
        example: A chat whose prompt is rendered by transformers too; None for none.
        recompute: Whether activations are recomputed in the backward pass.
        most_gib: Resident memory at which the child is killed, before the system runs out of memory and kills some
            process; None for no limit.
    """
    request = {
        "base": {**_fields(base), "folder": str(base.folder)},
        "config": config.to_json(),
        "recompute": recompute,
        "four_bit": config.method == "qlora",
        "messages": list(example.messages[:-1]) if example else [],
        "rows": [{"ids": row.ids, "learnt": row.learnt, "line": row.line} for row in rows],
    }
    packages = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (packages, os.environ.get("PYTHONPATH", ""))))
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "runners.preflight.device_probe"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        return _watch(child, json.dumps(request), most_gib)
    finally:
        child.kill()
        child.wait()


def quick_probe(config: TrainConfig) -> ProbeResult:
    """Probe arithmetic, and 4-bit layers where they are used, in this process, which starts the run anyway."""
    from runners.preflight import device_probe

    result = ProbeResult()
    try:
        result.findings["device"] = device_probe.probe_arithmetic()
        if config.method == "qlora":
            result.findings["four_bit"] = device_probe.probe_four_bit()
    except (RuntimeError, ImportError, OSError, AssertionError) as error:
        result.ended = f"{type(error).__name__}: {error}"
    return result


def _watch(child: subprocess.Popen[str], request: str, most_gib: float | None) -> ProbeResult:
    """Send the request to the child and collect its findings until it ends, or exceeds memory or time."""
    lines: queue.Queue[str | None] = queue.Queue()
    errors: list[str] = []
    threads = (
        threading.Thread(target=_send_request, args=(child, request), daemon=True),
        threading.Thread(target=_read_lines, args=(child, lines), daemon=True),
        threading.Thread(target=lambda: errors.extend(child.stderr or ()), daemon=True),
    )
    for thread in threads:
        thread.start()
    result = ProbeResult()
    last_line_at = time.monotonic()
    while True:
        result.peak_gib = max(result.peak_gib, _resident_gib(child.pid))
        if most_gib is not None and result.peak_gib > most_gib:
            result.ended = "memory"
            return result
        if time.monotonic() - last_line_at > PROBE_TIMEOUT_S:
            result.ended = "time"
            return result
        try:
            line = lines.get(timeout=0.05)
        except queue.Empty:
            continue
        last_line_at = time.monotonic()
        if line is None:
            break
        finding = json.loads(line)
        result.findings[finding.pop("found")] = finding
    code = child.wait()
    threads[2].join(timeout=5)
    if "end" not in result.findings:
        result.ended = _failure(code, errors)
    return result


def _failure(code: int, errors: Sequence[str]) -> str:
    """Return why the child ended: "memory", the last line of its stderr, or its exit code."""
    last_line = next((line.strip() for line in reversed(errors) if line.strip()), "")
    if (
        code == -9  # SIGKILL, which is how the system ends a process when memory runs out
        or "OutOfMemoryError" in last_line
        or last_line.startswith("MemoryError")
        or "not enough memory" in last_line
    ):
        return "memory"
    # A refusal is a sentence for the user, without the name of its class.
    last_line = last_line.removeprefix("rag.errors.BadInput: ")
    return last_line or (f"killed by signal {-code}" if code < 0 else f"exit code {code}")


def _fields(base: Model) -> dict[str, Any]:
    """Return the fields of a model by name."""
    return {name: getattr(base, name) for name in base.__slots__}


def _resident_gib(pid: int) -> float:
    """Return the resident memory of a process in GiB, 0 when it has ended."""
    try:
        return float(psutil.Process(pid).memory_info().rss) / GIB
    except psutil.Error:
        return 0.0


def _send_request(child: subprocess.Popen[str], request: str) -> None:
    """Write the request to the child's stdin."""
    assert child.stdin is not None
    try:
        child.stdin.write(request)
        child.stdin.close()
    except OSError:
        return  # it ended before it read; its stderr has the reason


def _read_lines(child: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    """Put each line of the child's stdout into the queue, then None at its end."""
    for line in child.stdout or ():
        lines.put(line)
    lines.put(None)

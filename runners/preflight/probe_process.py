"""Starts :mod:`runners.preflight.device_probe` in a child process, watches its memory, and hears what it finds.

A child, because the step that does not fit, or an instruction that this processor lacks, kills its process.
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
"""Longest wait for the next finding; loading a large model takes minutes."""


@dataclass
class ProbeResult:
    """What a rehearsal found, by kind, and how it ended."""

    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    ended: str = ""
    """"" when it ran to its end; memory, time, or what the child's last words were."""
    peak_gib: float = 0.0
    """The most that was seen from outside."""

    @property
    def doing(self) -> str:
        """Return what the child was about when it ended."""
        last = next(reversed(self.told), "start")
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
    """Try the device, 4-bit layers where they are used, the prompt, and one step on ``rows``, the longest first.

    The child is killed when it takes ``most_gib`` (resident, on a CPU), before the system has to choose.
    """
    asked = {
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
        return _watch(child, json.dumps(asked), most_gib)
    finally:
        child.kill()
        child.wait()


def quick_probe(config: TrainConfig) -> ProbeResult:
    """Try arithmetic, and 4-bit layers where they are used, in this process: for a run that starts next anyway."""
    from runners.preflight import device_probe

    found = ProbeResult()
    try:
        found.told["device"] = device_probe.probe_arithmetic()
        if config.method == "qlora":
            found.told["four_bit"] = device_probe.probe_four_bit()
    except (RuntimeError, ImportError, OSError, AssertionError) as error:
        found.ended = f"{type(error).__name__}: {error}"
    return found


def _watch(child: subprocess.Popen[str], asked: str, most_gib: float | None) -> ProbeResult:
    lines: queue.Queue[str | None] = queue.Queue()
    errors: list[str] = []
    threads = (
        threading.Thread(target=_feed, args=(child, asked), daemon=True),
        threading.Thread(target=_read, args=(child, lines), daemon=True),
        threading.Thread(target=lambda: errors.extend(child.stderr or ()), daemon=True),
    )
    for thread in threads:
        thread.start()
    found, heard = ProbeResult(), time.monotonic()
    while True:
        found.peak_gib = max(found.peak_gib, _resident(child.pid))
        if most_gib is not None and found.peak_gib > most_gib:
            found.ended = "memory"
            return found
        if time.monotonic() - heard > PROBE_TIMEOUT_S:
            found.ended = "time"
            return found
        try:
            line = lines.get(timeout=0.05)
        except queue.Empty:
            continue
        heard = time.monotonic()
        if line is None:
            break
        said = json.loads(line)
        found.told[said.pop("found")] = said
    code = child.wait()
    threads[2].join(timeout=5)
    if "end" not in found.told:
        found.ended = _last_words(code, errors)
    return found


def _last_words(code: int, errors: Sequence[str]) -> str:
    said = next((line.strip() for line in reversed(errors) if line.strip()), "")
    if (
        code == -9
        or "OutOfMemoryError" in said
        or said.startswith("MemoryError")
        or "not enough memory" in said
    ):
        return "memory"
    return said or (f"killed by signal {-code}" if code < 0 else f"exit code {code}")


def _fields(base: Model) -> dict[str, Any]:
    return {name: getattr(base, name) for name in base.__slots__}


def _resident(pid: int) -> float:
    try:
        return float(psutil.Process(pid).memory_info().rss) / GIB
    except psutil.Error:
        return 0.0


def _feed(child: subprocess.Popen[str], asked: str) -> None:
    assert child.stdin is not None
    try:
        child.stdin.write(asked)
        child.stdin.close()
    except OSError:
        return  # it ended before it read; its last words tell why


def _read(child: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    for line in child.stdout or ():
        lines.put(line)
    lines.put(None)

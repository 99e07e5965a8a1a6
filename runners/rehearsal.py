"""Starts :mod:`runners.probe` in a child process, watches its memory, and turns what it finds into checks.

A child, because the step that does not fit, or an instruction that this processor lacks, kills its process.
"""

from __future__ import annotations

import json
import math
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from runners.chat import Encoded
from runners.complaints import Check
from runners.data import Example
from runners.machine import GIB
from runners.models import Model
from runners.room import smaller
from runners.tuning import TrainConfig

LIMIT_S = 600.0
"""Longest wait for the next finding; loading a large model takes minutes."""
ROUNDING = {"bfloat16": 0.02, "float16": 0.005, "float32": 1e-3}
"""Largest difference from fp32 that a dtype's rounding explains."""
NF4 = 0.25
"""The same for 4-bit weights: nf4 is off by about a tenth."""
TIGHT = 0.9
"""From this share of the free memory on, the rest of the machine must stay quiet."""


@dataclass
class Found:
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
        return {"free": "arithmetic", "device": "loading", "four_bit": "loading", "prompt": "loading",
                "loaded": "the longest row", "row": "a whole micro-batch"}.get(last, last)  # fmt: skip


def rehearse(
    base: Model, config: TrainConfig, rows: Sequence[Encoded], example: Example | None, recompute: bool,
    most_gib: float | None = None,
) -> Found:  # fmt: skip
    """Try the device, 4-bit layers where they are used, the prompt, and one step on ``rows``, the longest first.

    The child is killed when it takes ``most_gib`` (resident, on a CPU), before the system has to choose.
    """
    asked = {
        "base": {**_fields(base), "folder": str(base.folder)}, "config": config.to_json(), "recompute": recompute,
        "four_bit": config.method == "qlora", "messages": list(example.messages[:-1]) if example else [],
        "rows": [{"ids": row.ids, "learnt": row.learnt, "line": row.line} for row in rows],
    }  # fmt: skip
    packages = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, (packages, os.environ.get("PYTHONPATH", ""))))
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "runners.probe"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, encoding="utf-8", env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    try:
        return _watch(child, json.dumps(asked), most_gib)
    finally:
        child.kill()
        child.wait()


def quick(config: TrainConfig) -> Found:
    """Try arithmetic, and 4-bit layers where they are used, in this process: for a run that starts next anyway."""
    from runners import probe

    found = Found()
    try:
        found.told["device"] = probe.arithmetic()
        if config.method == "qlora":
            found.told["four_bit"] = probe.four_bit()
    except (RuntimeError, ImportError, OSError, AssertionError) as error:
        found.ended = f"{type(error).__name__}: {error}"
    return found


def _watch(child: subprocess.Popen[str], asked: str, most_gib: float | None) -> Found:
    lines: queue.Queue[str | None] = queue.Queue()
    errors: list[str] = []
    threads = (
        threading.Thread(target=_feed, args=(child, asked), daemon=True),
        threading.Thread(target=_read, args=(child, lines), daemon=True),
        threading.Thread(target=lambda: errors.extend(child.stderr or ()), daemon=True),
    )
    for thread in threads:
        thread.start()
    found, heard = Found(), time.monotonic()
    while True:
        found.peak_gib = max(found.peak_gib, _resident(child.pid))
        if most_gib is not None and found.peak_gib > most_gib:
            found.ended = "memory"
            return found
        if time.monotonic() - heard > LIMIT_S:
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


def checks(found: Found, config: TrainConfig, steps_tokens: int, free: float | None) -> Iterator[Check]:
    """Yield the checks of device, 4-bit layers, prompt and step; ``steps_tokens`` is what the run trains on."""
    yield _device(found)
    if config.method == "qlora":
        yield _four_bit(found)
    if not found.told.get("prompt", {"same": True})["same"]:
        yield Check(
            "PF009", "stop", "transformers begins an answer with other tokens than training here did",
            next="give the model folder the tokenizer and template that belong together",
        )  # fmt: skip
    if "free" in found.told:
        yield _step(found, config, steps_tokens, free)


def _device(found: Found) -> Check:
    told = found.told.get("device")
    if told is None:
        return Check(
            "PF020", "stop", f"torch does not work here: {found.ended}", next="see `tunewise doctor`"
        )
    text = f"{told['device']}, {told['dtype']} ({told['how']})"
    if told["error"] > ROUNDING.get(told["dtype"], 0.02) or math.isnan(told["error"]):
        return Check(
            "PF020", "stop", f"{text}: a product differs from fp32 by {told['error']:.1%}, which rounding cannot explain",
            next="update torch or the driver: losses would be wrong or NaN",
        )  # fmt: skip
    return Check("PF020", "ok", f"{text}; products agree with fp32 within {told['error']:.1%}")


def _four_bit(found: Found) -> Check:
    told = found.told.get("four_bit")
    if told is None:
        return Check(
            "PF021", "stop", f"a 4-bit layer does not work here: {found.ended}",
            next="use --method lora, or install a bitsandbytes that fits this machine",
        )  # fmt: skip
    if not told["error"] <= NF4:
        text = f"a 4-bit layer is off by {told['error']:.0%}, forward or back"
        return Check("PF021", "stop", text, next="use --method lora, or update bitsandbytes")
    return Check(
        "PF021", "ok", f"bitsandbytes {told['version']}, forward and back within {told['error']:.0%}"
    )


def _step(found: Found, config: TrainConfig, steps_tokens: int, free: float | None) -> Check:
    row, batch = found.told.get("row"), found.told.get("batch")
    todo = f"use {smaller(config, row['tokens'] if row else config.micro_tokens)}"
    has = "" if free is None else f" of {free:.1f} GiB free"
    if row is None and found.ended == "memory":
        text = f"not even the longest row fits: over {found.peak_gib:.1f}{has} at {found.doing}"
        return Check("PF023", "stop", text, next=todo)
    if row is None:
        return Check("PF023", "stop", f"a step failed while {found.doing}: {found.ended}", next="see --debug")
    if not math.isfinite(row["loss"]) or not math.isfinite(row["norm"]):
        text = f"the first loss is {row['loss']}, its gradient's norm {row['norm']}"
        return Check("PF023", "stop", text, next="the base is damaged, or its dtype overflows on this device")
    if batch is None:
        text = f"tight: the longest row fits, {config.micro_tokens:,} tokens at once do not{has}"
        return Check("PF023", "warn", text, next=f"the run will halve them until they fit; or {todo}")
    speed = batch["tokens"] / max(batch["seconds"], 1e-9)
    text = f"{batch['peak_gib']:.2f} GiB at its peak{has}; {batch['tokens']:,} tokens took {batch['seconds']:.1f} s"
    text += f", so the run about {_duration(steps_tokens / speed)}"
    if free is not None and batch["peak_gib"] > TIGHT * free:
        return Check("PF023", "warn", f"tight: {text}", next=todo)
    return Check("PF023", "ok", f"fits: {text}")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


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

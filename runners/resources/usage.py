"""The most memory that a piece of work held, and how much of it was its own: reset before it, read after it.

How much of the processor others took while something was timed here: a time from a busy machine is no measurement.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from runners.resources.machine import GIB


@dataclass(slots=True)
class PeakMemory:
    """Filled when the work has ended; GiB, None where the system does not tell."""

    gib: float | None = None
    """On the GPU where one was used: what torch had reserved. Else the resident set of the whole process."""
    held_gib: float | None = None
    """What was held before the work began: libraries, an index, an embedder. On a GPU: in tensors."""
    own_gib: float | None = None
    """The highest that the work rose above what was held before it. On a GPU counted in tensors, as estimates are."""
    on_gpu: bool = False


@contextmanager
def measure_peak() -> Iterator[PeakMemory]:
    """Measure the work inside: on a GPU what torch took, on Linux the process's own highest resident set.

    What nothing refers to any more is given back first: else the work would fill it unseen. On other systems a
    process's peak cannot be reset, so nothing is told rather than the peak of earlier work.
    """
    found = PeakMemory()
    release_memory()
    before, resettable = tensors_gib(), _reset()
    resident = resident_gib()
    try:
        yield found
    finally:
        if _cuda():
            cuda = sys.modules["torch"].cuda
            found.on_gpu = True
            found.gib = _gib(cuda.max_memory_reserved())
            found.held_gib, found.own_gib = before, round(_gib(cuda.max_memory_allocated()) - before, 3)
        elif resettable:
            found.gib, found.held_gib = highest_resident_gib(), resident
            if found.gib is not None and resident is not None:
                found.own_gib = round(found.gib - resident, 3)


def release_memory() -> None:
    """Collect what nothing refers to, and give freed pages back to the system where the C library can (glibc)."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def tensors_gib() -> float:
    """Return the GiB of tensors on the GPU now; 0 where torch is not at work on one in this process."""
    return _gib(sys.modules["torch"].cuda.memory_allocated()) if _cuda() else 0.0


def resident_gib() -> float | None:
    """Return this process's resident set in GiB; None where the system does not tell."""
    return _status("VmRSS:")


def highest_resident_gib() -> float | None:
    """Return the highest resident set since the start of this program, or since it was reset; Linux only.

    Not ``ru_maxrss``: a child that was started by ``vfork`` begins with its parent's.
    """
    return _status("VmHWM:")


def _cuda() -> bool:
    """Whether torch is at work on a GPU in this process; it is not imported for the question."""
    torch = sys.modules.get("torch")
    return bool(torch and torch.cuda.is_available() and torch.cuda.is_initialized())


def _reset() -> bool:
    if _cuda():
        sys.modules["torch"].cuda.reset_peak_memory_stats()
    try:
        Path("/proc/self/clear_refs").write_text("5", "ascii")
    except OSError:
        return False
    return True


def _status(name: str) -> float | None:
    try:
        lines = Path("/proc/self/status").read_text("ascii", errors="replace").splitlines()
    except OSError:
        return None
    kib = next((int(line.split()[1]) for line in lines if line.startswith(name)), None)
    return None if kib is None else _gib(kib * 1024)


def _gib(size: float) -> float:
    return round(float(size) / GIB, 3)


MAX_CONTENTION = 0.15
"""Share of the wanted processor time that others may take. Two threads of two cores that wait for each other lose
at least as much speed; on a quiet machine repeated timings differ by a few percent."""
MIN_SECONDS = 0.2
"""Shorter work is not judged: the system counts in hundredths of a second."""


@dataclass(slots=True)
class CpuContention:
    """Filled when the work has ended."""

    lost: float = 0.0
    """Share of the processor time wanted that others took, between 0 and 1; 0 where nothing can be told."""


@contextmanager
def measure_contention(threads: int | None = None) -> Iterator[CpuContention]:
    """Watch the processor during the work inside, which wants so many ``threads`` (None: every core).

    All that ran elsewhere counts as others, and what a virtual machine's host withheld (steal). Not seen are the limits
    of a container.
    """
    found = CpuContention()
    before, began = _spent(), time.monotonic()
    try:
        yield found
    finally:
        seconds = time.monotonic() - began
        if seconds >= MIN_SECONDS:
            others = max(0.0, _spent() - before) / seconds
            cores = psutil.cpu_count() or 1
            found.lost = lost_share(min(threads or cores, cores), cores, others)


def lost_share(threads: int, cores: int, others: float) -> float:
    """Return the share that is lost of ``threads`` cores where ``others`` keep so many of all ``cores`` busy."""
    return round(min(1.0, max(0.0, (threads + others - cores) / threads)), 3)


def contention_note(share: float) -> str:
    """Say that a time is too long, "" where it is not."""
    if share <= MAX_CONTENTION:
        return ""
    return f"the machine was busy: others took {share:.0%} of the processor time that this wanted"


def _spent() -> float:
    """Return the processor seconds spent on this machine so far by all but this process and its ended children."""
    all_of_it, own = psutil.cpu_times(), psutil.Process().cpu_times()
    busy = sum(getattr(all_of_it, name, 0.0) for name in ("user", "system", "irq", "softirq", "steal"))
    return float(busy + getattr(all_of_it, "nice", 0.0) - sum(own[:4]))

"""Measure peak memory and CPU contention of a block of code.

:func:`measure_peak` resets the peak counters before the block and reads them after it: the peak and the part of it
that the block itself allocated. :func:`measure_contention` returns how much of the processor other processes took
while the block was timed: a time measured on a busy machine is not reliable.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from runners.resources.machine import GIB

MAX_CONTENTION = 0.15
"""Share of the wanted processor time that other processes may take. Two threads of two cores that wait for each
other lose at least as much speed; on a quiet machine repeated timings differ by a few percent."""
SPIN_VARIABLE = "GOMP_SPINCOUNT"
QUIET_SPIN_COUNT = "20000"
SHARED_SPIN_COUNT = "1000"
FREE_CORE_SHARE = 0.4
"""Cores that other processes may keep busy on a machine that counts as quiet."""
MIN_SECONDS = 0.2
"""Contention of shorter work is not measured: the system counts in hundredths of a second."""


@dataclass(slots=True)
class PeakMemory:
    """Peak memory in GiB, set when the block has ended; None where the system does not report it."""

    gib: float | None = None
    """Peak: on a GPU the memory that torch had reserved, else the resident set of the whole process."""
    held_gib: float | None = None
    """Memory held before the block: libraries, an index, an embedder. On a GPU: in tensors."""
    own_gib: float | None = None
    """Peak less what was held before the block. On a GPU counted in tensors, as estimates are."""
    on_gpu: bool = False


@contextmanager
def measure_peak() -> Iterator[PeakMemory]:
    """Measure the peak memory of the block: on a GPU torch's, on Linux the process's highest resident set.

    Unreferenced memory is released first, as the block could otherwise fill it without raising the peak. On other
    systems the peak of a process cannot be reset, so the values stay None rather than report that of earlier work.
    """
    peak = PeakMemory()
    release_memory()
    tensors_before = tensors_gib()
    resettable = _reset_peak()
    resident_before = resident_gib()
    try:
        yield peak
    finally:
        if counters := _gpu_counters():
            peak.on_gpu = True
            peak.gib = _gib(counters.max_memory_reserved())
            peak.held_gib = tensors_before
            peak.own_gib = round(_gib(counters.max_memory_allocated()) - tensors_before, 3)
        elif resettable:
            peak.gib = highest_resident_gib()
            peak.held_gib = resident_before
            if peak.gib is not None and resident_before is not None:
                peak.own_gib = round(peak.gib - resident_before, 3)


def release_memory() -> None:
    """Run the garbage collector, and return freed pages to the system where the C library can (glibc)."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def tensors_gib() -> float:
    """Return the GiB of tensors on the GPU now; 0 where torch uses none in this process."""
    counters = _gpu_counters()
    return _gib(counters.memory_allocated()) if counters else 0.0


def resident_gib() -> float | None:
    """Return this process's resident set in GiB; None where the system does not report it."""
    return _status("VmRSS:")


def highest_resident_gib() -> float | None:
    """Return the highest resident set in GiB since the program started or the peak was reset; Linux only.

    ``ru_maxrss`` is not used: a child started by ``vfork`` inherits its parent's value.
    """
    return _status("VmHWM:")


def _gpu_counters() -> Any:
    """Return torch's module that counts the memory of the GPU that this process uses (torch.cuda, torch.xpu), else None.

    torch is not imported to find out.
    """
    torch = _loaded_torch()
    modules = (torch.cuda, torch.xpu) if torch else ()
    return next((module for module in modules if module.is_available() and module.is_initialized()), None)


def _loaded_torch() -> Any:
    """Return torch where it is imported, else None; one that another thread is importing is waited for."""
    if "torch" not in sys.modules:
        return None
    import torch

    return torch


def _reset_peak() -> bool:
    """Reset the peak counters of torch and of the process; False where the process's cannot be reset."""
    if counters := _gpu_counters():
        counters.reset_peak_memory_stats()
    try:
        # proc(5): writing 5 resets the peak resident set (VmHWM) to the current one.
        Path("/proc/self/clear_refs").write_text("5", "ascii")
    except OSError:
        return False
    return True


def _status(name: str) -> float | None:
    """Return a memory line of /proc/self/status in GiB, None where there is none."""
    try:
        lines = Path("/proc/self/status").read_text("ascii", errors="replace").splitlines()
    except OSError:
        return None
    kib = next((int(line.split()[1]) for line in lines if line.startswith(name)), None)
    return None if kib is None else _gib(kib * 1024)


def _gib(size: float) -> float:
    """Return bytes as GiB, to three digits."""
    return round(float(size) / GIB, 3)


@dataclass(slots=True)
class CpuContention:
    """CPU contention during a block, set when the block has ended."""

    lost: float = 0.0
    """Share of the wanted processor time that other processes took, from 0 to 1; 0 where it is not measured."""


@contextmanager
def measure_contention(threads: int | None = None) -> Iterator[CpuContention]:
    """Measure how much processor time other processes took during the block.

    All time outside this process counts, and time that a virtual machine's host withheld (steal). The limits of a
    container are not seen.

    Args:
        threads: number of threads that the block uses; None is every core.
    """
    contention = CpuContention()
    before = _others_cpu_seconds()
    started = time.monotonic()
    try:
        yield contention
    finally:
        seconds = time.monotonic() - started
        if seconds >= MIN_SECONDS:
            others = max(0.0, _others_cpu_seconds() - before) / seconds
            cores = psutil.cpu_count() or 1
            contention.lost = lost_share(min(threads or cores, cores), cores, others)


@contextmanager
def measure_step_contention() -> Iterator[CpuContention]:
    """Measure the contention of a step of a run: for the threads that torch uses, and 0 where a GPU did the work."""
    with measure_contention(compute_threads()) as contention:
        yield contention
    if _gpu_counters():
        contention.lost = 0.0


def compute_threads() -> int | None:
    """Return the threads that torch computes with, or would by OMP_NUM_THREADS; None for every core. Imports no torch."""
    if torch := _loaded_torch():
        return int(torch.get_num_threads())
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdecimal() and int(wanted) else None


def idle_spin_count(others: float, cores: int) -> str:
    """Return the GOMP_SPINCOUNT for a machine of which other processes keep ``others`` cores busy.

    An idle OpenMP thread spins for a while before it sleeps. Where a core is free for it, a long while is faster (2 cores:
    1,315 tokens/s with 20,000, 995 with 1,000); where others want its core, it takes the time of the thread it waits for
    (beside one busy process 520 and 816; under a load of 5 a step took 1,139 ms and 445).
    """
    return SHARED_SPIN_COUNT if others > FREE_CORE_SHARE * max(1.0, cores / 4) else QUIET_SPIN_COUNT


def adapt_spinning_to_load(seconds: float = 0.2) -> bool:
    """Shorten the spinning of idle OpenMP threads where other processes use this machine, and return whether it did.

    Has an effect only before torch is first imported, and none where the user has set GOMP_SPINCOUNT to another value
    than the command line's.

    Args:
        seconds: how long the load is observed.
    """
    if "torch" in sys.modules or os.environ.get(SPIN_VARIABLE, QUIET_SPIN_COUNT) != QUIET_SPIN_COUNT:
        return False
    before = _others_cpu_seconds()
    time.sleep(seconds)
    others = max(0.0, _others_cpu_seconds() - before) / seconds
    os.environ[SPIN_VARIABLE] = idle_spin_count(others, psutil.cpu_count() or 1)
    return os.environ[SPIN_VARIABLE] != QUIET_SPIN_COUNT


def lost_share(threads: int, cores: int, others: float) -> float:
    """Return the share of the wanted processor time that is lost: (threads + others - cores) / threads, in [0, 1].

    Args:
        threads: cores that the measured work wants.
        cores: cores of the machine.
        others: cores that other processes keep busy, on average.
    """
    return round(min(1.0, max(0.0, (threads + others - cores) / threads)), 3)


def is_contended(share: float, most: float = MAX_CONTENTION) -> bool:
    """Return whether other processes took so much of the needed processor time that a measured time is too long."""
    return share > most


def contention_note(share: float) -> str:
    """Return a note that a measured time is too long because of contention, "" where it is not."""
    if not is_contended(share):
        return ""
    return f"the machine was busy: other programs took {share:.0%} of the processor time that this needed"


def busy_note(lost: Mapping[str, float]) -> str:
    """Return which times were measured while the machine was busy, and that they are not stored; "" for none.

    Args:
        lost: the share of processor time that other processes took, by step.
    """
    busy = [name for name, share in lost.items() if contention_note(share)]
    if not busy:
        return ""
    worst = contention_note(max(lost[name] for name in busy))
    times = "the time is too long, and is" if len(busy) == 1 else "these times are too long, and are"
    return f"{', '.join(busy)}: {worst}; {times} not kept for later estimates"


def _others_cpu_seconds() -> float:
    """Return the processor seconds spent on this machine so far by all but this process and its ended children."""
    machine, own = psutil.cpu_times(), psutil.Process().cpu_times()
    busy = sum(getattr(machine, name, 0.0) for name in ("user", "system", "irq", "softirq", "steal"))
    return float(busy + getattr(machine, "nice", 0.0) - sum(own[:4]))

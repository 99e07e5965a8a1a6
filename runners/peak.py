"""The most memory that a piece of work held: reset before it, read after it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runners.machine import GIB


@dataclass(slots=True)
class Peak:
    """Filled when the work has ended."""

    gib: float | None = None
    """GiB on the GPU where one was used, else of this process; None where the system does not tell."""


@contextmanager
def measured() -> Iterator[Peak]:
    """Measure the work inside: on a GPU what torch reserved, on Linux the process's own highest resident set.

    The process counts with everything it holds already: model, index, libraries. On other systems its peak cannot
    be reset, so nothing is told rather than the peak of earlier work.
    """
    found = Peak()
    resettable = _reset()
    try:
        yield found
    finally:
        found.gib = _read() if resettable else None


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
        return _cuda()
    return True


def _read() -> float | None:
    if _cuda():
        return round(float(sys.modules["torch"].cuda.max_memory_reserved()) / GIB, 3)
    try:
        lines = Path("/proc/self/status").read_text("ascii", errors="replace").splitlines()
    except OSError:
        return None
    kib = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
    return None if kib is None else round(kib * 1024 / GIB, 3)

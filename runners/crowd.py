"""How much of the processor others took while something was timed here: a time from a busy machine is no measurement."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

MOST_LOST = 0.15
"""Share of the wanted processor time that others may take. Two threads of two cores that wait for each other lose
at least as much speed; on a quiet machine repeated timings differ by a few percent."""
LEAST_SECONDS = 0.2
"""Shorter work is not judged: the system counts in hundredths of a second."""


@dataclass(slots=True)
class Crowd:
    """Filled when the work has ended."""

    lost: float = 0.0
    """Share of the processor time wanted that others took, between 0 and 1; 0 where nothing can be told."""


@contextmanager
def watched(threads: int | None = None) -> Iterator[Crowd]:
    """Watch the processor during the work inside, which wants so many ``threads`` (None: every core).

    All that ran elsewhere counts as others, and what a virtual machine's host withheld (steal). Not seen are the limits
    of a container.
    """
    found = Crowd()
    before, began = _spent(), time.monotonic()
    try:
        yield found
    finally:
        seconds = time.monotonic() - began
        if seconds >= LEAST_SECONDS:
            others = max(0.0, _spent() - before) / seconds
            cores = psutil.cpu_count() or 1
            found.lost = lost(min(threads or cores, cores), cores, others)


def lost(threads: int, cores: int, others: float) -> float:
    """Return the share that is lost of ``threads`` cores where ``others`` keep so many of all ``cores`` busy."""
    return round(min(1.0, max(0.0, (threads + others - cores) / threads)), 3)


def text(share: float) -> str:
    """Say that a time is too long, "" where it is not."""
    if share <= MOST_LOST:
        return ""
    return f"the machine was busy: others took {share:.0%} of the processor time that this wanted"


def _spent() -> float:
    """Return the processor seconds spent on this machine so far by all but this process and its ended children."""
    all_of_it, own = psutil.cpu_times(), psutil.Process().cpu_times()
    busy = sum(getattr(all_of_it, name, 0.0) for name in ("user", "system", "irq", "softirq", "steal"))
    return float(busy + getattr(all_of_it, "nice", 0.0) - sum(own[:4]))

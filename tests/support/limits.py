"""Limits that only end what hangs, and measures that the load of the machine does not change."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

HANG_S = 600.0
"""A child process, thread or server of a test that takes longer hangs; the longest takes some twenty seconds alone."""


def wait_until(condition: Callable[[], object], pause: float = 0.02) -> None:
    """Wait until a condition holds; an AssertionError when it never does."""
    end = time.monotonic() + HANG_S
    while not condition():
        assert time.monotonic() < end, "what is waited for did not come"
        time.sleep(pause)


def children_seconds() -> float:
    """Return the processor time of all children of this process that have ended and were waited for."""
    times = os.times()
    return times.children_user + times.children_system

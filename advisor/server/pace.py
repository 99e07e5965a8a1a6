"""How many requests a minute come from one address."""

from __future__ import annotations

import math
import time
from collections import OrderedDict

MOST = 10_000
"""Addresses remembered."""


class Pace:
    """Lets each address have so many requests a minute, in bursts of as many."""

    def __init__(self, per_minute: int) -> None:
        """Keep the rate; 0 lets everything through."""
        self._rate, self._burst = per_minute / 60, float(per_minute)
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, address: str) -> int:
        """Take a request of an address; return 0, or the seconds after which it may come again."""
        if not self._rate:
            return 0
        now = time.monotonic()
        left, then = self._left.pop(address, (self._burst, now))
        left = min(self._burst, left + (now - then) * self._rate)
        wait = 0 if left >= 1 else math.ceil((1 - left) / self._rate)
        self._left[address] = (left if wait else left - 1, now)
        if len(self._left) > MOST:
            self._left.popitem(last=False)
        return wait

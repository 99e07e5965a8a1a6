"""When and how to ask a server again: exponential backoff with jitter, Retry-After honoured, requests paced."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

AGAIN = frozenset({408, 409, 429, 500, 502, 503, 504, 520, 522, 524, 529})
"""Statuses that may pass: timeouts, conflicts, too many requests, and what is wrong with the server."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often and how long to wait; "full jitter" spreads clients that were refused together (AWS, Brooker 2015)."""

    tries: int = 6
    first: float = 0.5
    """Seconds before the second try at most; doubled each time."""
    longest: float = 30.0
    patience: float = 120.0
    """The longest Retry-After that is waited for; a server that asks for more is given up on."""

    def wait(self, attempt: int, asked: float | None, draw: Callable[[], float] = random.random) -> float:
        """Return the seconds to wait after the attempt (1 is the first); at least what the server asked for."""
        own = min(self.longest, self.first * 2 ** (attempt - 1)) * draw()
        return own if asked is None else asked + min(own, 1.0)


def retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Return the seconds a Retry-After header means, given as seconds or as a date (RFC 9110 10.2.3)."""
    if not value:
        return None
    try:
        return max(0.0, float(value)) if float(value) < float("inf") else None
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())


class Pace:
    """At most so many requests a minute, evenly spaced; safe to share between threads."""

    def __init__(self, per_minute: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        """None is no limit; `clock` gives seconds."""
        self._gap = 60.0 / per_minute if per_minute else 0.0
        self._clock, self._lock, self._next = clock, threading.Lock(), 0.0

    def turn(self) -> float:
        """Take the next place in line; return the seconds to wait for it."""
        with self._lock:
            now = self._clock()
            at = max(now, self._next)
            self._next = at + self._gap
            return at - now

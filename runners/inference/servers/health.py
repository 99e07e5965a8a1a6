"""One server that generates text: whether it answers, which models it has, how many requests it has.

A thread for each server asks its ``/models`` every few seconds: the call that every OpenAI-compatible server has, and the
one that says whether a model of a name is still there. A server that is down comes back by a check that passes, so no
request is spent on finding out.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import Any

from rag.errors import BadInput
from runners.inference.http_client import HttpClient, OnNote, RequestLimits, ServerFailure
from runners.models import endpoint

MAX_CONNECTIONS = 1000
"""Open connections to one server; the concurrent requests are bounded by those who make them."""
CHECKS_UNTIL_HANGING = 2
"""Checks in a row that must time out until a server counts as hanging: a single one may be a moment of load."""
NOT_ASKED = "not asked yet"
"""The reason why a server is not up before its first check."""
NAMES_SHOWN = 10
"""Models of a server that a message lists."""


@dataclass(frozen=True, slots=True)
class HealthTimes:
    """When a server is checked, and when it is given up; seconds. Chosen, not measured.

    With these values a server that hangs is given up at most 16 s after its last sign of life.
    """

    check_every: float = 5.0
    """Between two checks of a server."""
    check_again: float = 1.0
    """After a check that timed out, until the next one."""
    check_timeout: float = 5.0
    """For the answer of a check."""
    silence: float = 60.0
    """Without a word of any answer, until a server is given up although it passes checks. A request that waits for its turn
    is waited for as long as others get words."""
    rest: float = 5.0
    """How long a server is left alone after a lost request at least; doubled with each loss in a row."""
    longest_rest: float = 60.0
    """How long at most."""


class Server:
    """A server at one address; safe to share between threads.

    Attributes:
        url: address of its API.
        in_flight: requests that it is answering.
        failures: requests that it has lost so far.
        models: its models by id when it was last checked, with what it says of where each comes from ("" where it says
            nothing; vLLM names the folder of an adapter); None before.
        hangs: whether it has taken connections without answering checks.
        last_word: time of the monotonic clock when it last sent a part of an answer.
    """

    def __init__(
        self, url: str, limits: RequestLimits, times: HealthTimes | None = None, on_note: OnNote = None
    ) -> None:
        """Prepare a server; nothing is sent before the first check.

        Args:
            url: address of its API, without ``/chat/completions``.
            limits: rate, time-outs and retries of requests.
            times: times of checks.
            on_note: called when it goes down and when it is back.
        """
        self.url = url
        self.times = times or HealthTimes()
        self.in_flight = 0
        self.failures = 0
        self.models: dict[str, str] | None = None
        self.hangs = False
        self.last_word = 0.0
        self._on_note = on_note
        key = endpoint.api_key(url).value
        if on_note and (unused := endpoint.unused_key_note(url)):
            on_note(unused)
        connections = replace(limits, at_once=MAX_CONNECTIONS)
        self.client = HttpClient(url, "the server", connections, key, on_note)
        self._reason = NOT_ASKED
        self._down_since = time.monotonic()
        self._rest_until = 0.0
        self._losses = 0
        self._late_checks = 0
        self._lock = threading.Lock()
        self._checking = threading.Lock()
        self._closed = threading.Event()
        self._watcher: threading.Thread | None = None

    @property
    def reason(self) -> str:
        """Why it is down; "" when it is up."""
        return self._reason

    @property
    def up(self) -> bool:
        """Whether requests are sent to it."""
        return not self._reason

    def has(self, name: str) -> bool:
        """Return whether it is up and has a model of this name."""
        return self.up and self.models is not None and name in self.models

    def why_not(self, name: str) -> str:
        """Return why it cannot be asked for a model: it is down, or the models that it has instead."""
        if self._reason:
            return self._reason
        there = sorted(self.models or ())
        more = f" and {len(there) - NAMES_SHOWN} more" if len(there) > NAMES_SHOWN else ""
        return f"{self.url} has no model {name!r}; it has: {', '.join(there[:NAMES_SHOWN]) or 'none'}{more}"

    def check(self) -> bool:
        """Ask for its models now and return whether it answered; one that answers is up again, whatever it lost before."""
        with self._checking:
            return self._check(time.monotonic())

    def watch(self) -> None:
        """Start the thread that checks it, once."""
        with self._lock:
            if self._watcher is None:
                self._watcher = threading.Thread(target=self._watch, daemon=True, name=f"watch-{self.url}")
                self._watcher.start()

    def close(self) -> None:
        """End the checks and close the connections."""
        self._closed.set()
        self.client.close()

    def begin(self) -> None:
        """Count a request as in flight."""
        with self._lock:
            self.in_flight += 1

    def end(self) -> None:
        """Count a request as ended."""
        with self._lock:
            self.in_flight -= 1

    def succeeded(self) -> None:
        """Note that a request was answered: earlier losses no longer count."""
        self._losses = 0

    def failed(self, failure: ServerFailure) -> None:
        """Note a lost request; without a usable answer, or with 502 and above, the server counts as down.

        Other statuses (500, too many requests) are of this request, and the server goes on getting others.
        """
        with self._lock:
            self.failures += 1
            if failure.status is not None and failure.status < 502:
                return
            self._losses += 1
            times = self.times
            rest = min(times.longest_rest, times.rest * 2 ** (self._losses - 1))
            self._rest_until = time.monotonic() + rest
        self._go_down(str(failure))

    def to_json(self) -> dict[str, Any]:
        """Return its state, for ``/health``."""
        down = None if self.up else round(time.monotonic() - self._down_since, 1)
        return {
            "server": self.url,
            "up": self.up,
            "reason": self._reason or None,
            "down_seconds": down,
            "in_flight": self.in_flight,
            "lost": self.failures,
        }

    def _watch(self) -> None:
        while not self._closed.wait(self._pause()):
            with self._checking:
                self._check(self._rest_until)

    def _pause(self) -> float:
        return self.times.check_again if self._late_checks else self.times.check_every

    def _check(self, up_from: float) -> bool:
        """Ask for its models; one that answers is up again from a time of the monotonic clock on."""
        try:
            rows = self.client.models(self.times.check_timeout)
        except (
            ServerFailure,
            BadInput,
            RuntimeError,
        ) as error:  # the last by httpx2 when it was closed meanwhile
            late = isinstance(error, ServerFailure) and error.late
            self._late_checks = self._late_checks + 1 if late else 0
            self.hangs = self._late_checks >= CHECKS_UNTIL_HANGING
            if not late or self.hangs or not self.up:
                self._go_down(str(error))
            return False
        self._late_checks = 0
        self.hangs = False
        self.models = {str(row["id"]): str(row.get("root") or "") for row in rows}
        if time.monotonic() >= up_from:
            self._come_up()
        return True

    def _go_down(self, reason: str) -> None:
        with self._lock:
            news = self.up or self._reason == NOT_ASKED
            self._reason = reason
            if news:
                self._down_since = time.monotonic()
        if news:
            self._note(f"{self.url} is down and is asked no more until it answers: {reason}")

    def _come_up(self) -> None:
        with self._lock:
            was_down, first = not self.up, self._reason == NOT_ASKED
            self._reason = ""
        if was_down and not first:
            self._note(f"{self.url} is back after {time.monotonic() - self._down_since:.0f} s")

    def _note(self, text: str) -> None:
        if self._on_note and not self._closed.is_set():
            self._on_note(text)

"""A model at several servers, asked as if it were one: the server with the fewest requests first, the next where it fails.

:class:`ServerPool` stands in for :class:`runners.inference.http_client.HttpClient` in a generator. A request is sent again
only while nothing of its answer has been passed on: a stream that has begun ends with an error. Each request runs on a
thread of its own, because a connection to a server that hangs cannot be ended from outside: it is left behind.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from rag.errors import CannotRun
from runners.inference.http_client import (
    NO_DEADLINE,
    BrokenStream,
    OnNote,
    RequestCaller,
    RequestLimits,
    ServerFailure,
)
from runners.inference.servers.health import Server
from runners.models.endpoint import EndpointRefused

POLL_SECONDS = 0.25
"""How often a request without news looks whether its server hangs and whether its caller still waits."""
TEXT_FIELDS = ("content", "reasoning_content", "reasoning", "tool_calls")
"""Fields of a streamed message whose first text makes an answer begin."""

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class NoServerAnswers(CannotRun):
    """None of the servers of a model has answered a request; the message names each with its reason."""


class ServerPool:
    """The servers that have one model; safe to share between threads, and servers between pools.

    Raises BadInput for what a server will never accept, NoServerAnswers when none of them answers, BrokenStream when a
    stream ends after it has begun.
    """

    def __init__(
        self, name: str, servers: Sequence[Server], limits: RequestLimits, on_note: OnNote = None
    ) -> None:
        """Prepare a pool.

        Args:
            name: the model's name at the servers.
            servers: the servers, each with that model.
            limits: the number of rounds over all servers and the waits between them, in ``backoff``.
            on_note: called with a sentence for each request that goes to another server.
        """
        self.name = name
        self.server = f"{name} at {', '.join(server.url for server in servers)}"
        self.retries = 0
        self._servers = tuple(servers)
        self._limits = limits
        self._on_note = on_note
        self._turns = itertools.count()
        self._last_asked = dict.fromkeys(self._servers, -1)
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def close(self) -> None:
        """Stop waiting between rounds; the servers are closed by those who share them."""
        self._closed.set()

    def object(
        self, body: dict[str, Any], caller: RequestCaller = NO_DEADLINE
    ) -> tuple[dict[str, Any], float]:
        """Return the JSON object that a server answers, and the seconds it took, without waits and failed attempts."""

        def ask(server: Server) -> tuple[dict[str, Any], float]:
            attempt = _Attempt(server, lambda: iter([server.client.object_once(body, caller)]), caller, None)
            answer = next(attempt)
            server.succeeded()
            server.end()
            return answer

        return self._first_answer(ask, caller)

    def events(self, body: dict[str, Any], caller: RequestCaller = NO_DEADLINE) -> Iterator[dict[str, Any]]:
        """Yield the objects of a server's event stream; another server is asked only until the first words have come."""

        def begin(server: Server) -> tuple[Server, _Attempt[dict[str, Any]], list[dict[str, Any]]]:
            attempt = _Attempt(
                server, lambda: server.client.events_once(body, caller), caller, server.times.silence
            )
            try:
                opening: list[dict[str, Any]] = []
                for event in attempt:
                    opening.append(event)
                    if _has_begun(event):
                        break
                return server, attempt, opening
            except BaseException:
                attempt.leave()
                raise

        server, attempt, opening = self._first_answer(begin, caller)
        try:
            yield from opening
            yield from attempt
            server.succeeded()
        except ServerFailure as failure:
            server.failed(failure)
            # Clients of a server see this: the address and the reason are in the note that the server is down.
            text = "the answer broke off at its server, and a stream that has begun is not repeated"
            raise BrokenStream(text, "ask again") from failure
        finally:
            attempt.leave()
            server.end()

    def _first_answer(self, ask: Callable[[Server], ResultT], caller: RequestCaller) -> ResultT:
        """Return what the first server answers that does not fail; it stays counted as in flight.

        Every server is asked at most once in a round; between rounds there is a wait, for as long as the caller waits.
        """
        backoff = self._limits.backoff
        reasons: dict[str, str] = {}
        for number in range(1, backoff.tries + 1):
            asked: list[float] = []
            for server in self._in_turn(reasons):
                if not caller.is_waiting() or time.monotonic() >= caller.deadline:
                    raise CannotRun(f"the request to {self.server} was cancelled", "ask again")
                try:
                    return ask(server)
                except ServerFailure as failure:
                    server.failed(failure)
                    reasons[server.url] = str(failure)
                    asked += [failure.retry_after_s] if failure.retry_after_s is not None else []
                except EndpointRefused as refused:
                    reasons[server.url] = refused.message
                except BaseException:
                    server.end()
                    raise
                server.end()
                self._count_retry(server, reasons[server.url])
            wait = backoff.wait(number, min(asked, default=None))
            if (
                number == backoff.tries
                or wait > backoff.patience
                or time.monotonic() + wait >= caller.deadline
            ):
                break
            if self._closed.wait(wait) or not caller.is_waiting():
                break
        why = "; ".join(dict.fromkeys(reasons.values())) or "no server is up"
        raise NoServerAnswers(f"no server answers for {self.name}: {why}", "start one, then ask again")

    def _in_turn(self, reasons: dict[str, str]) -> Iterator[Server]:
        """Yield each server that can be asked, the least busy one first, each counted as in flight.

        Where all that are left are down, they are checked now: rather that than an answer that there is none.
        """
        left = list(self._servers)
        while left:
            server = self._take(left)
            if server is None:
                server = left[0]
                left.remove(server)
                if not server.check() or not server.has(self.name):
                    reasons[server.url] = server.why_not(self.name)
                    continue
                server.begin()
            else:
                left.remove(server)
            yield server

    def _take(self, servers: Sequence[Server]) -> Server | None:
        """Return the least busy of the servers that can be asked, in turn among equals; None where none can."""
        with self._lock:
            able = [server for server in servers if server.has(self.name)]
            if not able:
                return None
            chosen = min(able, key=lambda server: (server.in_flight, self._last_asked[server]))
            self._last_asked[chosen] = next(self._turns)
            chosen.begin()
            return chosen

    def _count_retry(self, server: Server, reason: str) -> None:
        self.retries += 1
        if self._on_note:
            others = "another server is asked" if len(self._servers) > 1 else "it is asked again"
            self._on_note(f"{reason}: {others}")


class _Attempt(Generic[ItemT]):
    """One request at one server, on a thread of its own; iterating over it gives what the server sends.

    Raises ServerFailure where the server fails, hangs or is silent for too long, CannotRun when its caller no longer waits.
    """

    def __init__(
        self,
        server: Server,
        send: Callable[[], Iterator[ItemT]],
        caller: RequestCaller,
        silence: float | None,
    ) -> None:
        """Send the request.

        Args:
            server: the server.
            send: sends the request and yields what comes back; runs on the thread.
            caller: who waits for the answer.
            silence: seconds without a word of any answer until the server is given up; None for no limit but the client's.
        """
        self._server = server
        self._send = send
        self._caller = caller
        self._silence = silence
        self._items: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()
        self._left = False
        self._ended = False
        threading.Thread(target=self._run, daemon=True, name=f"ask-{server.url}").start()

    def leave(self) -> None:
        """Wait no longer; the thread ends with the next thing that the server sends, or at its time-out."""
        self._left = True

    def __iter__(self) -> _Attempt[ItemT]:
        return self

    def __next__(self) -> ItemT:
        """Return the next item."""
        if self._ended:
            raise StopIteration
        since = time.monotonic()
        while True:
            try:
                is_item, value = self._items.get(timeout=POLL_SECONDS)
            except queue.Empty:
                self._check_patience(time.monotonic() - max(since, self._server.last_word))
                continue
            if is_item:
                result: ItemT = value
                return result
            self._ended = True
            if value is None:
                raise StopIteration
            raise value

    def _check_patience(self, silent: float) -> None:
        """Raise an error where waiting on makes no sense."""
        server = self._server
        if self._left or not self._caller.is_waiting():
            raise CannotRun(f"the request to {server.url} was cancelled", "ask again")
        if server.hangs:
            raise ServerFailure(f"{server.url} hangs: it answers no checks", late=True)
        if self._silence is not None and silent > self._silence:
            raise ServerFailure(f"{server.url} sent no word for {self._silence:.0f} s", late=True)

    def _run(self) -> None:
        try:
            items = self._send()
            for item in items:
                self._server.last_word = time.monotonic()
                if self._left:
                    close: Callable[[], None] = getattr(items, "close", lambda: None)
                    close()
                    return
                self._items.put((True, item))
            self._items.put((False, None))
        except BaseException as error:
            self._items.put((False, error))


def _has_begun(event: dict[str, Any]) -> bool:
    """Return whether an event holds the first words or the end of an answer."""
    choices = event.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        delta = choice.get("delta") if isinstance(choice, dict) else None
        if isinstance(choice, dict) and choice.get("finish_reason"):
            return True
        if isinstance(delta, dict) and any(delta.get(name) for name in TEXT_FIELDS):
            return True
    return False

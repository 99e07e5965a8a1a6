"""Chat requests to an OpenAI-compatible server with retries and a request rate; the answer is one object or a stream.

The requests are sent by the official ``openai`` client (:mod:`runners.inference.servers.openai_client`). What it does not
do stays here:

- Retries (:class:`Backoff`). The library's own are silent, sleep on when the client is closed or the caller has left, and
  are not counted by :class:`RequestPacer`, which spaces requests to a number a minute.
- Reading a stream. The library takes a connection that ends in the middle of an answer for the end of the answer, and
  raises bare errors of ``json`` and of UTF-8 for events that are malformed.
- Parameters that a server refuses (:mod:`runners.inference.servers.dialect`): they are left out or renamed, because
  "OpenAI-compatible" is a family. OpenAI's own reasoning models take `max_completion_tokens` and no temperature, others
  forbid every parameter they do not know. Requests and answers stay dictionaries, which hold fields that the library's
  types do not have.

Nothing is logged.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Generator as Running
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

from rag.errors import BadInput, CannotRun, Problem
from runners.inference.servers.dialect import FORM_FIELD, OnNote, ServerDialect, may_refuse_form
from runners.models import endpoint

if TYPE_CHECKING:
    import httpx2
    import openai

RETRIED_STATUSES = frozenset({408, 409, 429, 500, 502, 503, 504, 520, 522, 524, 529})
"""Statuses that may be temporary: timeouts, conflicts, too many requests, and faults of the server."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069]+")
"""Characters that steer a terminal, or that are invisible."""

MOST_BYTES = 64 << 20
"""Longest answer in bytes; a stream takes about 300 bytes a token."""

ResponseT = TypeVar("ResponseT")


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often to retry and how long to wait, with "full jitter", which spreads clients over time (AWS, Brooker 2015)."""

    tries: int = 6
    """Attempts in all."""
    first: float = 0.5
    """Most seconds before the second attempt; doubled each time."""
    longest: float = 30.0
    """Most seconds before any attempt."""
    patience: float = 120.0
    """The longest Retry-After in seconds that is waited for; a server that asks for more is given up on."""

    def wait(self, attempt: int, asked: float | None, draw: Callable[[], float] = random.random) -> float:
        """Return the seconds to wait after an attempt; at least what the server asked for.

        Args:
            attempt: Number of the failed attempt, from 1.
            asked: Seconds of the server's Retry-After header, None without one.
            draw: Returns a random number between 0 and 1.
        """
        own = min(self.longest, self.first * 2 ** (attempt - 1)) * draw()
        # Up to a second more than asked for, so that clients which were told the same time do not return together.
        return own if asked is None else asked + min(own, 1.0)


def retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Return a Retry-After header in seconds, None for none or an invalid one; it holds seconds or a date.

    RFC 9110, section 10.2.3. ``now`` is the time that a date is compared with.
    """
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


class RequestPacer:
    """Rate limiter for requests, evenly spaced; safe to share between threads."""

    def __init__(self, per_minute: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Allow `per_minute` requests a minute, None for no limit; `clock` returns seconds."""
        self._gap = 60.0 / per_minute if per_minute else 0.0
        self._clock = clock
        self._lock = threading.Lock()
        self._next = 0.0

    def reserve(self) -> float:
        """Reserve the time of the next request; return the seconds until then."""
        with self._lock:
            now = self._clock()
            start = max(now, self._next)
            self._next = start + self._gap
            return start - now


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Concurrency, rate, timeouts and retries of the requests to a server."""

    at_once: int = 4
    """Concurrent requests."""
    per_minute: float | None = None
    """Requests a minute, evenly spaced; None for no limit."""
    connect: float = 10.0
    """Seconds to connect."""
    read: float = 120.0
    """Seconds without a byte until a request counts as lost."""
    most_bytes: int = MOST_BYTES
    """Longest answer."""
    backoff: Backoff = field(default_factory=Backoff)


@dataclass(frozen=True, slots=True)
class RequestCaller:
    """Until when the caller of a request waits for its answer, and whether it still does."""

    deadline: float = math.inf
    """Time of the monotonic clock, in seconds."""
    is_waiting: Callable[[], bool] = lambda: True
    """Returns whether the answer is still needed."""


NO_DEADLINE = RequestCaller()
"""Waits for as long as it takes."""


class ServerFailure(Exception):
    """A failure of one request that may not occur at the next attempt, or at another server.

    ``status`` is the HTTP status of an answer that is an error; None where the connection failed or the answer is malformed.
    ``late`` says that a time-out ended it.
    """

    def __init__(
        self, reason: str, retry_after_s: float | None = None, status: int | None = None, late: bool = False
    ) -> None:
        """Store the reason, the server's Retry-After in seconds, its status, and whether it was a time-out."""
        super().__init__(reason)
        self.retry_after_s = retry_after_s
        self.status = status
        self.late = late


class BrokenStream(CannotRun):
    """A stream ended in the middle of an answer of which the caller has read a part."""


class HttpClient:
    """Requests to one endpoint; safe to share between threads.

    Raises BadInput for what the server will never accept (400, 401, 403, 404), CannotRun when it cannot be reached or
    keeps failing. Messages are one line, name the host, and never contain the key.
    """

    def __init__(self, url: str, name: str, limits: RequestLimits, key: str, on_note: OnNote = None) -> None:
        """Prepare a client that connects at the first request.

        Args:
            url: Address of the API, without ``/chat/completions``.
            name: Name of the model in messages.
            limits: Concurrency, rate, timeouts and retries.
            key: API key, "" for none.
            on_note: Called on the thread of the request, for each retry and each parameter that is left out.

        Raises:
            BadInput: The address, the key or the proxy of the environment cannot be used.
        """
        self.url = url.rstrip("/")
        self.name = name
        self.limits = limits
        self._key = key
        self.server = f"{name} at {endpoint.endpoint_host(url)}"
        self.retries = 0
        self._on_note = on_note
        self._dialect = ServerDialect(lambda change: self._note(f"{self.server} {change}"))
        self._pacer = RequestPacer(limits.per_minute)
        self._closed = threading.Event()
        self._client = _connect(self.url, key, limits.at_once)

    def close(self) -> None:
        """Close the connections and stop waiting."""
        self._closed.set()
        self._client.close()

    def object(
        self, body: dict[str, Any], caller: RequestCaller = NO_DEADLINE
    ) -> tuple[dict[str, Any], float]:
        """Return the JSON object that the server answers, and the seconds it took, without waits and failed attempts."""
        return self._retried(lambda: self.object_once(body, caller), caller)

    def object_once(
        self, body: dict[str, Any], caller: RequestCaller = NO_DEADLINE
    ) -> tuple[dict[str, Any], float]:
        """Return the same of one attempt; ServerFailure where another may succeed."""
        with self._failures(), self._sent(body, caller) as response:
            return self._parsed(self._text_of(response)), response.elapsed.total_seconds()

    def events(self, body: dict[str, Any], caller: RequestCaller = NO_DEADLINE) -> Iterator[dict[str, Any]]:
        """Yield the objects of the server's event stream; retried only until the first was received."""

        def open_stream() -> tuple[dict[str, Any], Running[dict[str, Any], None, None]]:
            events = self.events_once(body, caller)
            return next(events, {}), events

        first, others = self._retried(open_stream, caller)
        try:
            yield first
            yield from others
        except ServerFailure as error:
            raise BrokenStream(str(error), "ask again") from None
        finally:
            others.close()

    def events_once(
        self, body: dict[str, Any], caller: RequestCaller = NO_DEADLINE
    ) -> Running[dict[str, Any], None, None]:
        """Yield the same of one attempt; ServerFailure where another may succeed, also after some objects."""
        from runners.inference.servers.openai_client import lines_of

        with self._failures(), self._sent(body, caller) as response:
            yield from self._read_events(lines_of(self._bounded(response.iter_bytes())))

    def models(self, seconds: float) -> list[dict[str, Any]]:
        """Return the entries of the server's ``/models``; ServerFailure, also for a server without it."""
        import openai

        refused: openai.APIStatusError | None = None
        with self._failures():
            try:
                with self._client.models.with_streaming_response.list(timeout=seconds) as answer:
                    text = self._text_of(answer.http_response)
            except openai.APIStatusError as error:
                refused = error
        if refused is not None:
            reason = f"{self.url}/models answered {refused.status_code}{self._reason(_body_of(refused))}"
            if refused.status_code in (401, 403):
                reason += f"; {endpoint.key_hint(self.url)}"
            raise ServerFailure(reason, status=refused.status_code)
        rows = self._parsed(text).get("data")
        return [row for row in rows or () if isinstance(row, dict) and isinstance(row.get("id"), str)]

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn the errors of a connection into ServerFailure, and that of an address into BadInput."""
        import httpx2
        import openai

        try:
            yield
        except httpx2.InvalidURL as error:
            raise BadInput(f"the address {self.url} cannot be used: {error}") from None
        except (openai.APIConnectionError, httpx2.HTTPError) as error:
            # The library wraps what happens before the headers of the answer alone, and keeps the reason as the cause.
            cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else error
            late = isinstance(cause, httpx2.TimeoutException)
            raise ServerFailure(self._connection_failure(cause or error, late), late=late) from None

    @contextmanager
    def _sent(self, body: dict[str, Any], caller: RequestCaller) -> Iterator[httpx2.Response]:
        """Send a request at the allowed rate; give a successful response, its body not read yet, and close it."""
        import httpx2
        import openai

        refusal: Problem | None = None  # of this request with the form, while it is sent without
        while True:  # each iteration leaves out or renames one more parameter
            sent = self._dialect.adapt(body)
            if refusal:
                sent.pop(FORM_FIELD, None)
            self._closed.wait(self._pacer.reserve())
            left = caller.deadline - time.monotonic()
            if left <= 0 or not caller.is_waiting():
                raise CannotRun(f"the request to {self.server} was cancelled", "ask again")
            timeout = httpx2.Timeout(min(self.limits.read, left), connect=min(self.limits.connect, left))
            try:
                with self._client.chat.completions.with_streaming_response.create(
                    model=str(sent.get("model", "")),
                    # Replaced by those of `extra_body`, which may also hold parameters that the library does not know:
                    # messages given here would be walked through for their types, which takes a third of a request's time.
                    messages=[],
                    extra_body=sent,
                    timeout=timeout,
                ) as answer:
                    if refusal:
                        self._dialect.change([FORM_FIELD])
                    yield answer.http_response
                return
            except openai.APIStatusError as error:
                refused = error
            except UnicodeEncodeError:
                raise BadInput(
                    f"a text for {self.server} cannot be sent: it has half of a character (a lone surrogate)",
                    r"look for \ud800 to \udfff in the questions, the examples and the prompt",
                ) from None
            # Raised here, where the library's error, which may repeat the key, is no longer its context.
            problem = self._problem_of(sent, refused)
            if problem is None:
                continue
            if refusal or refused.status_code not in (400, 422) or not may_refuse_form(sent, problem.message):
                raise refusal or problem
            refusal = problem

    def _problem_of(self, sent: dict[str, Any], refused: openai.APIStatusError) -> Problem | None:
        """Return the error for an answer that is one; None where a parameter is to be changed for it.

        Raises:
            ServerFailure: another attempt may succeed.
            EndpointRefused: the server redirects.
        """
        status, response = refused.status_code, refused.response
        reason = self._reason(_body_of(refused))
        message = f"{self.server} answered {status}{reason}"
        if response.is_redirect:
            target = endpoint.endpoint_host(str(response.next_request.url)) if response.next_request else ""
            raise endpoint.EndpointRefused(
                f"{self.server} answered {status}: it redirects to {self._clean(target) or 'another address'}",
                "redirects are not followed, so that key and data reach no other host; name that address itself",
            )
        if status in RETRIED_STATUSES or status >= 500:
            raise ServerFailure(message, retry_after(response.headers.get("retry-after")), status)
        if status not in (400, 422) or not self._dialect.learn_from_refusal(sent, reason):
            error = endpoint.EndpointRefused if status in (401, 403, 404) else BadInput
            return error(message, _hint(status, f"{self.url}/chat/completions"))
        return None

    def _text_of(self, response: httpx2.Response) -> str:
        """Return the text of an answer."""
        return b"".join(self._bounded(response.iter_bytes())).decode("utf-8", errors="replace")

    def _bounded(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the pieces of an answer; a temporary error for one that is longer than any answer."""
        left = self.limits.most_bytes
        for chunk in chunks:
            left -= len(chunk)
            if left < 0:
                most = self.limits.most_bytes >> 20
                raise ServerFailure(f"{self.server} sent more than {most} MiB in one answer")
            yield chunk

    def _retried(self, once: Callable[[], ResponseT], caller: RequestCaller = NO_DEADLINE) -> ResponseT:
        """Return what ``once`` returns, called again after temporary errors for as long as the caller waits."""
        backoff = self.limits.backoff
        asked: float | None = None
        reason = ""
        attempt = 0
        for attempt in range(1, backoff.tries + 1):
            try:
                return once()
            except ServerFailure as error:
                asked, reason = error.retry_after_s, str(error)
            too_long = asked is not None and asked > backoff.patience
            if attempt == backoff.tries or too_long or self._closed.is_set():
                break
            seconds = backoff.wait(attempt, asked)
            if time.monotonic() + seconds >= caller.deadline or not caller.is_waiting():
                break
            self.retries += 1
            self._note(f"{reason}; asking again in {seconds:.1f} s (try {attempt + 1} of {backoff.tries})")
            self._closed.wait(seconds)
        tries = "1 try" if attempt == 1 else f"{attempt} tries"
        longer = f"; it asks to wait {asked:.0f} s" if asked is not None and asked > backoff.patience else ""
        raise CannotRun(
            f"{reason} ({tries}{longer})", "check the server and its address; a run continues with --resume"
        )

    def _note(self, text: str) -> None:
        """Report a sentence to the callback."""
        if self._on_note:
            self._on_note(text)

    def _read_events(self, lines: Iterator[str]) -> Iterator[dict[str, Any]]:
        """Yield the objects of the `data:` lines, up to [DONE]."""
        for line in lines:
            data = line.removeprefix("data:").strip()
            if not line.startswith("data:") or not data:
                continue
            if data == "[DONE]":
                return
            yield self._parsed(data)
        raise ServerFailure(f"{self.server} broke off in the middle of an answer")

    def _parsed(self, text: str) -> dict[str, Any]:
        """Return the JSON object of a text; a temporary error for anything else, and for an object with an error."""
        try:
            body = json.loads(text)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise ServerFailure(f"{self.server} sent no JSON object: {self._clean(text)!r}")
        if body.get("error"):
            raise ServerFailure(f"{self.server} sent an error{self._reason(text)}")
        return body

    def _reason(self, text: str) -> str:
        """Return ": " and the message in the body of an error, in one line; "" without one."""
        try:
            error = json.loads(text)
            error = error.get("error", error) if isinstance(error, dict) else error
            message = error.get("message", error) if isinstance(error, dict) else error
        except (ValueError, RecursionError):
            message = text
        clean = self._clean(str(message))
        return f": {clean}" if clean else ""

    def _clean(self, text: str) -> str:
        """Return a server's text on one line, without control characters, the key masked, at most 200 characters."""
        hidden = text.replace(self._key, "***") if self._key else text
        return " ".join(_CONTROL.sub(" ", hidden).split())[:200]

    def _connection_failure(self, error: BaseException, late: bool) -> str:
        """Return a message for a timeout or a lost connection."""
        kind = "did not answer in time" if late else "cannot be reached, or hung up"
        return f"{self.server} {kind} ({self._clean(str(error)) or type(error).__name__})"


def _connect(url: str, key: str, at_once: int) -> openai.OpenAI:
    """Return the official client; it is imported now, and not with this module, because that takes half a second."""
    # The library would set up the logging of the whole process by this variable while it is imported.
    level = os.environ.pop("OPENAI_LOG", None)
    try:
        from runners.inference.servers.openai_client import connect
    finally:
        if level is not None:
            os.environ["OPENAI_LOG"] = level
    return connect(url, key, at_once)


def _body_of(refused: openai.APIStatusError) -> str:
    """Return the text of an answer that is an error."""
    return refused.response.content.decode("utf-8", errors="replace")


def _hint(status: int, url: str) -> str:
    """Return the next step for a status that is an error."""
    if status in (401, 403):
        return endpoint.key_hint(url)
    if status == 404:
        return f"check the model's name, and that {url} is the address (openai:NAME@URL, with /v1 where it has one)"
    return "the server does not take this request"

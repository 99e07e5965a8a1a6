"""One JSON request to a server, retried and paced; its answer as an object, or as a stream of them. Never logs.

What a server does not take of a request, learnt from its refusals: what it names is left out from then on.

"OpenAI-compatible" is a family: OpenAI's own reasoning models take `max_completion_tokens` and no temperature, others
forbid every parameter they do not know.

When and how to ask a server again: exponential backoff with jitter, Retry-After honoured, requests paced.
"""

from __future__ import annotations

import json
import math
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx

from rag.errors import BadInput, CannotRun
from runners.models import endpoint

OPTIONAL_FIELDS = ("seed", "temperature", "top_p", "stream_options")
"""Parameters that an answer can be had without; messages and stop texts are not among them."""
RENAMED_FIELDS = {"max_tokens": "max_completion_tokens"}
_UNKNOWN = re.compile(
    r"unsupported|not support|unknown|unrecogni[sz]ed|unexpected|not permitted|not allowed|forbidden|deprecated",
    re.IGNORECASE,
)


class ServerDialect:
    """The changes that one server's requests need; safe to share between threads."""

    def __init__(self, on_change: Callable[[str], None] | None = None) -> None:
        """Start with none; `on_change` hears about each once, in words."""
        self._changes: dict[str, str] = {}
        self._lock, self._on_change = threading.Lock(), on_change

    def of(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return a request as the server takes it."""
        named = {self._changes.get(key, key): value for key, value in body.items()}
        return {key: value for key, value in named.items() if key}

    def learn(self, sent: Mapping[str, Any], said: str) -> bool:
        """Take a refusal of a request; return whether it names a parameter that can be changed, so try again."""
        wrong = [
            key
            for key in (*OPTIONAL_FIELDS, *RENAMED_FIELDS)
            if key in sent and re.search(rf"\b{key}\b", said)
        ]
        if not wrong or not _UNKNOWN.search(said):
            return False
        with self._lock:
            fresh = [key for key in wrong if key not in self._changes]
            self._changes |= {key: RENAMED_FIELDS.get(key, "") for key in fresh}
        tell = self._on_change or (lambda said: None)
        for key in fresh:
            tell(
                f"does not take {key}: {f'{RENAMED_FIELDS[key]} is sent instead' if key in RENAMED_FIELDS else 'it is left out'}"
            )
        return True


RETRIED_STATUSES = frozenset({408, 409, 429, 500, 502, 503, 504, 520, 522, 524, 529})
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


class RequestPacer:
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


ResponseT = TypeVar("ResponseT")
OnNote = Callable[[str], None] | None
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069]+")


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """How hard a server is asked."""

    at_once: int = 4
    """Requests under way at the same time."""
    per_minute: float | None = None
    """Requests a minute, evenly spaced; None is no limit of ours."""
    connect: float = 10.0
    """Seconds to connect."""
    read: float = 120.0
    """Seconds without a byte until a request counts as lost."""
    backoff: Backoff = field(default_factory=Backoff)


@dataclass(frozen=True, slots=True)
class RequestCaller:
    """Who waits for an answer: until when, and whether still."""

    until: float = math.inf
    """By the monotonic clock."""
    wanted: Callable[[], bool] = lambda: True


NO_DEADLINE = RequestCaller()
"""Waits for as long as it takes."""


class _Passing(Exception):
    """What may be gone at the next try."""

    def __init__(self, why: str, after: float | None = None) -> None:
        super().__init__(why)
        self.after = after


class HttpClient:
    """Requests to one address; safe to share between threads.

    Raises BadInput for what the server will never take (400, 401, 403, 404), CannotRun when it cannot be reached or
    goes on failing. Messages are one line, name the host, and never hold the key.
    """

    def __init__(self, url: str, name: str, limits: RequestLimits, key: str, on_note: OnNote = None) -> None:
        """Connect at the first request; `name` is what messages call the model.

        `on_note` hears, on the asking thread, of every wait for another try and of parameters given up.
        """
        self.url, self.name, self.limits, self._key = url, name, limits, key
        self.where = f"{name} at {endpoint.endpoint_host(url)}"
        self.retries, self._on_note = 0, on_note
        self._dialect = ServerDialect(lambda what: self._note(f"{self.where} {what}"))
        self._pace, self._closed = RequestPacer(limits.per_minute), threading.Event()
        try:
            self._client = httpx.Client(
                headers={"Authorization": f"Bearer {key}"} if key else {},
                timeout=httpx.Timeout(limits.read, connect=limits.connect),
                limits=httpx.Limits(max_connections=limits.at_once),
                # A redirect could carry the key and the data to a host that nobody named.
                follow_redirects=False,
                # A server of one's own is never behind a proxy that the environment names.
                trust_env=not endpoint.is_private(url),
            )
        except (UnicodeEncodeError, ValueError):
            raise BadInput(
                "the key in the environment is not one: it holds characters that a header cannot",
                f"set {endpoint.API_KEY_VARIABLES[0]} again, without quotes or line breaks",
            ) from None

    def close(self) -> None:
        """Close the connections and stop waiting."""
        self._closed.set()
        self._client.close()

    def object(self, body: dict[str, Any]) -> tuple[dict[str, Any], float]:
        """Return the JSON object that the server answers, and the seconds it took; waits and other tries are not in."""

        def once() -> tuple[dict[str, Any], float]:
            response = self._send(body)
            try:
                text = response.read().decode("utf-8", errors="replace")
            finally:
                response.close()
            return self._parsed(text), response.elapsed.total_seconds()

        return self._retried(once)

    def events(self, body: dict[str, Any], asker: RequestCaller = NO_DEADLINE) -> Iterator[dict[str, Any]]:
        """Yield the objects of the server's event stream; tried again only until the first has come."""

        def opened() -> tuple[httpx.Response, dict[str, Any], Iterator[dict[str, Any]]]:
            response = self._send(body, asker)
            try:
                events = self._read_events(response.iter_lines())
                return response, next(events, {}), events
            except BaseException:
                response.close()
                raise

        response, first, others = self._retried(opened, asker)
        try:
            yield first
            yield from others
        except _Passing as error:
            raise CannotRun(str(error), "ask again") from None
        except httpx.HTTPError as error:
            raise CannotRun(self._lost(error), "ask again") from None
        finally:
            response.close()

    def _send(self, body: dict[str, Any], asker: RequestCaller = NO_DEADLINE) -> httpx.Response:
        """Send in turn; return the response with its body still to be read, when it is a success."""
        while True:  # each time round, one parameter fewer
            sent = self._dialect.of(body)
            self._closed.wait(self._pace.turn())
            left = asker.until - time.monotonic()
            if left <= 0 or not asker.wanted():
                raise CannotRun(f"nobody waits for {self.where} any more", "ask again")
            timeout = httpx.Timeout(min(self.limits.read, left), connect=min(self.limits.connect, left))
            request = self._client.build_request("POST", self.url, json=sent, timeout=timeout)
            response = self._client.send(request, stream=True)
            if response.is_success:
                return response
            try:
                said = self._reason(response.read().decode("utf-8", errors="replace"))
            finally:
                response.close()
            what, status = f"{self.where} answered {response.status_code}{said}", response.status_code
            if status in RETRIED_STATUSES or status >= 500:
                raise _Passing(what, retry_after(response.headers.get("retry-after")))
            if status not in (400, 422) or not self._dialect.learn(sent, said):
                kind = endpoint.EndpointRefused if status in (401, 403, 404) else BadInput
                raise kind(what, _hint(status, self.url))

    def _retried(self, once: Callable[[], ResponseT], asker: RequestCaller = NO_DEADLINE) -> ResponseT:
        backoff, asked, why, attempt = self.limits.backoff, None, "", 0
        for attempt in range(1, backoff.tries + 1):
            try:
                return once()
            except _Passing as error:
                asked, why = error.after, str(error)
            except httpx.InvalidURL as error:
                raise BadInput(f"the address {self.url} cannot be used: {error}") from None
            except httpx.HTTPError as error:
                asked, why = None, self._lost(error)
            too_long = asked is not None and asked > backoff.patience
            if attempt == backoff.tries or too_long or self._closed.is_set():
                break
            seconds = backoff.wait(attempt, asked)
            if time.monotonic() + seconds >= asker.until or not asker.wanted():
                break
            self.retries += 1
            self._note(f"{why}; asking again in {seconds:.1f} s (try {attempt + 1} of {backoff.tries})")
            self._closed.wait(seconds)
        tries = "1 try" if attempt == 1 else f"{attempt} tries"
        longer = f"; it asks to wait {asked:.0f} s" if asked is not None and asked > backoff.patience else ""
        raise CannotRun(
            f"{why} ({tries}{longer})", "check the server and its address; a run goes on with --resume"
        )

    def _note(self, what: str) -> None:
        if self._on_note:
            self._on_note(what)

    def _read_events(self, lines: Iterator[str]) -> Iterator[dict[str, Any]]:
        """The objects of the `data:` lines, up to [DONE]."""
        for line in lines:
            data = line.removeprefix("data:").strip()
            if not line.startswith("data:") or not data:
                continue
            if data == "[DONE]":
                return
            yield self._parsed(data)
        raise _Passing(f"{self.where} broke off in the middle of an answer")

    def _parsed(self, text: str) -> dict[str, Any]:
        try:
            body = json.loads(text)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise _Passing(f"{self.where} sent no JSON object: {self._clean(text)!r}")
        if body.get("error"):
            raise _Passing(f"{self.where} sent an error{self._reason(text)}")
        return body

    def _reason(self, text: str) -> str:
        """What an error's body says, in one line."""
        try:
            error = json.loads(text)
            error = error.get("error", error) if isinstance(error, dict) else error
            said = error.get("message", error) if isinstance(error, dict) else error
        except ValueError:
            said = text
        clean = self._clean(str(said))
        return f": {clean}" if clean else ""

    def _clean(self, text: str) -> str:
        """A server's words on one line, without what steers a terminal, and without the key if it repeats it."""
        hidden = text.replace(self._key, "***") if self._key else text
        return " ".join(_CONTROL.sub(" ", hidden).split())[:200]

    def _lost(self, error: httpx.HTTPError) -> str:
        late = isinstance(error, httpx.TimeoutException)
        kind = "did not answer in time" if late else "cannot be reached, or hung up"
        return f"{self.where} {kind} ({self._clean(str(error)) or type(error).__name__})"


def _hint(status: int, url: str) -> str:
    if status in (401, 403):
        return f"the key is read from {' or '.join(endpoint.API_KEY_VARIABLES)} in the environment"
    if status == 404:
        return f"check the model's name, and that {url} is the address (openai:NAME@URL, with /v1 where it has one)"
    return "the server does not take this request"

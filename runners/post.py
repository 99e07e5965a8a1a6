"""One JSON request to a server, retried and paced; its answer as an object, or as a stream of them. Never logs."""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx

from rag.errors import BadInput, CannotRun
from runners import endpoint
from runners.dialect import Dialect
from runners.retry import AGAIN, Backoff, Pace, retry_after

Got = TypeVar("Got")
OnNote = Callable[[str], None] | None
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069]+")


@dataclass(frozen=True, slots=True)
class Limits:
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
class Asker:
    """Who waits for an answer: until when, and whether still."""

    until: float = math.inf
    """By the monotonic clock."""
    wanted: Callable[[], bool] = lambda: True


ANYBODY = Asker()
"""Waits for as long as it takes."""


class _Passing(Exception):
    """What may be gone at the next try."""

    def __init__(self, why: str, after: float | None = None) -> None:
        super().__init__(why)
        self.after = after


class Post:
    """Requests to one address; safe to share between threads.

    Raises BadInput for what the server will never take (400, 401, 403, 404), CannotRun when it cannot be reached or
    goes on failing. Messages are one line, name the host, and never hold the key.
    """

    def __init__(self, url: str, name: str, limits: Limits, key: str, on_note: OnNote = None) -> None:
        """Connect at the first request; `name` is what messages call the model.

        `on_note` hears, on the asking thread, of every wait for another try and of parameters given up.
        """
        self.url, self.name, self.limits, self._key = url, name, limits, key
        self.where = f"{name} at {endpoint.host(url)}"
        self.retries, self._on_note = 0, on_note
        self._dialect = Dialect(lambda what: self._note(f"{self.where} {what}"))
        self._pace, self._closed = Pace(limits.per_minute), threading.Event()
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
                f"set {endpoint.KEYS[0]} again, without quotes or line breaks",
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

    def events(self, body: dict[str, Any], asker: Asker = ANYBODY) -> Iterator[dict[str, Any]]:
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

    def _send(self, body: dict[str, Any], asker: Asker = ANYBODY) -> httpx.Response:
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
            if status in AGAIN or status >= 500:
                raise _Passing(what, retry_after(response.headers.get("retry-after")))
            if status not in (400, 422) or not self._dialect.learn(sent, said):
                kind = endpoint.Unwelcome if status in (401, 403, 404) else BadInput
                raise kind(what, _hint(status, self.url))

    def _retried(self, once: Callable[[], Got], asker: Asker = ANYBODY) -> Got:
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
        return f"the key is read from {' or '.join(endpoint.KEYS)} in the environment"
    if status == 404:
        return f"check the model's name, and that {url} is the address (openai:NAME@URL, with /v1 where it has one)"
    return "the server does not take this request"

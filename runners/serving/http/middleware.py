"""ASGI middleware that checks every request before the application reads it.

`LimitsMiddleware` checks, in this order, the Host header, the rate limit, the token, the Origin header, the content
type, and the size of the body. `RateLimiter` counts the requests a minute of each address.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import math
import time
import traceback
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from runners.serving.http.auth import AccessToken, is_loopback
from runners.serving.http.errors import ApiError, as_api_error
from runners.serving.http.service import ServerLimits

MAX_ADDRESSES = 10_000
"""Addresses that the rate limiter remembers; beyond them, the one not seen for longest is forgotten."""
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Message, Receive, Send], Awaitable[None]]

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
"""Headers added to every response that does not set them itself."""


@dataclass(frozen=True)
class AccessRules:
    """Which requests are accepted."""

    limits: ServerLimits = field(default_factory=ServerLimits)
    token: AccessToken | None = None
    """The token that every request must carry; None accepts requests without one."""
    open_paths: Collection[str] = ()
    """Paths that are sent without the token: a page that holds nothing of the run and gets all else with the token."""
    hosts: Collection[str] = ()
    """Names, besides this machine's own, that a Host header may give."""
    origins: Collection[str] = ()
    """Origins, besides the server's own, whose pages may send requests."""
    any_address: bool = False
    """Accept any IP address in the Host header, for a server that other machines reach; never an unknown name."""


class RateLimiter:
    """A token bucket for each address: `per_minute` requests a minute, in bursts of as many.

    Args:
        per_minute: the rate; 0 is no limit.
    """

    def __init__(self, per_minute: int) -> None:
        """Start with full buckets."""
        self._rate = per_minute / 60  # requests a second
        self._burst = float(per_minute)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def acquire(self, address: str) -> int:
        """Count a request; return 0 when it is within the rate, else the seconds after which to try again."""
        if not self._rate:
            return 0
        now = time.monotonic()
        tokens, updated = self._buckets.pop(address, (self._burst, now))
        tokens = min(self._burst, tokens + (now - updated) * self._rate)
        wait = 0 if tokens >= 1 else math.ceil((1 - tokens) / self._rate)
        self._buckets[address] = (tokens if wait else tokens - 1, now)
        if len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        return wait


class LimitsMiddleware:
    """Checks requests against the access rules, buffers their bodies, and adds security headers to responses.

    It is plain ASGI, because Starlette's `BaseHTTPMiddleware` hides a client's disconnect from the application.

    Args:
        app: the application behind it.
        access: which requests are accepted.
        on_done: called with path, status and seconds of each request.
    """

    def __init__(
        self, app: AsgiApp, access: AccessRules, on_done: Callable[[str, int, float], None] | None = None
    ) -> None:
        """Wrap the application."""
        self.app = app
        self.access = access
        self._on_done = on_done
        self._rate_limiter = RateLimiter(access.limits.per_minute)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with the reason why not."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.monotonic()
        status = 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                present = {name.lower() for name, _ in message.get("headers", ())}
                message["headers"] = [
                    *message.get("headers", ()),
                    *(
                        (name.encode(), value.encode())
                        for name, value in SECURITY_HEADERS.items()
                        if name.lower().encode() not in present
                    ),
                ]
            await send(message)

        try:
            receive = await self._admit(scope, receive)
            await self.app(scope, receive, send_with_headers)
        except ApiError as error:
            await _send_error(error, send_with_headers)
        finally:
            if self._on_done:
                self._on_done(scope["path"], status, time.monotonic() - started)

    async def _admit(self, scope: Message, receive: Receive) -> Receive:
        """Check a request and buffer its body; a bug in the checks is answered in the same shape as any error."""
        try:
            self._check(scope)
            if scope["method"] in ("POST", "PUT", "PATCH"):
                return _replay(await self._read_body(scope, receive), receive)
        except ApiError:
            raise
        except Exception as error:
            with suppress(OSError):  # stderr may have been closed
                traceback.print_exc()
            raise as_api_error(error) from error
        return receive

    def _check(self, scope: Message) -> None:
        """Raise `ApiError` for a request that may not pass."""
        headers = _headers(scope)
        host = headers.get("host", "")
        if not self._is_allowed_host(host):
            raise ApiError(
                400,
                "the Host header names no host of this server (--allow-host adds one)",
                code="host_not_allowed",
            )
        client = (scope.get("client") or ("",))[0]
        if wait := self._rate_limiter.acquire(client):
            raise ApiError(
                429,
                f"more than {self.access.limits.per_minute} requests a minute",
                code="rate_limit_exceeded",
                retry_after=wait,
            )
        token = None if scope["path"] in self.access.open_paths else self.access.token
        if token and not token.matches(headers.get("authorization", "")):
            raise ApiError(401, "a valid token is needed", code="invalid_api_key")
        origin = headers.get("origin")
        foreign = origin and origin.partition("://")[2].lower() != host.lower()
        if foreign and origin not in self.access.origins:
            raise ApiError(
                403,
                "pages of another origin may not ask here (--allow-origin lets one)",
                code="origin_not_allowed",
            )
        if scope["method"] in ("POST", "PUT", "PATCH"):
            content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
            # A page of another origin can send other content types without a CORS preflight request.
            if content_type != "application/json":
                raise ApiError(
                    415, "the body must be JSON: send Content-Type: application/json", code="not_json"
                )

    def _is_allowed_host(self, header: str) -> bool:
        """Return whether a Host header names this server; DNS rebinding brings the name of another site."""
        name = _without_port(header).lower()
        if name in map(str.lower, self.access.hosts) or is_loopback(name):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.access.any_address

    async def _read_body(self, scope: Message, receive: Receive) -> bytes:
        """Read the body; raise `ApiError` when it is too large or takes too long."""
        limit = self.access.limits.body_bytes
        parts = []
        size = 0
        length = _headers(scope).get("content-length", "0")
        announced = int(length) if length.isascii() and length.isdecimal() and len(length) < 20 else 0
        try:
            async with asyncio.timeout(self.access.limits.body_seconds):
                # A client that is still sending when the connection closes loses the answer: read a little too much.
                more = announced <= 4 * limit
                while more and size <= 4 * limit:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ApiError(400, "the request ended before its body did", code="incomplete_body")
                    size += len(message.get("body", b""))
                    if size <= limit:
                        parts.append(message.get("body", b""))
                    more = bool(message.get("more_body"))
        except TimeoutError:
            raise ApiError(408, "the body took too long to arrive", code="body_timeout") from None
        if max(size, announced) > limit:
            raise ApiError(413, f"the body is larger than {limit:,} bytes", code="body_too_large")
        return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the buffered body once, then passes on messages such as the disconnect."""
    sent = False

    async def receive_buffered() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_buffered


async def _send_error(error: ApiError, send: Send) -> None:
    body = json.dumps(error.body).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **error.headers}
    # The rest of a body that was not read must not be taken for the next request.
    headers["Connection"] = "close"
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def _headers(scope: Message) -> Mapping[str, str]:
    """Return the headers by lower-case name; the first of each name counts."""
    headers: dict[str, str] = {}
    for name, value in scope.get("headers", ()):
        headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
    return headers


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host

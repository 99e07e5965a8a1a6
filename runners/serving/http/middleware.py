"""What every request passes before anything reads it: host, origin, pace, token, kind and size.

How many requests a minute come from one address.
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
"""Addresses remembered."""


class RateLimiter:
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
        if len(self._left) > MAX_ADDRESSES:
            self._left.popitem(last=False)
        return wait


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


@dataclass(frozen=True)
class AccessRules:
    """Who may come in."""

    limits: ServerLimits = field(default_factory=ServerLimits)
    key: AccessToken | None = None
    hosts: Collection[str] = ()
    """Names, besides this machine's own, that a Host header may give."""
    origins: Collection[str] = ()
    """Origins of pages elsewhere that may ask."""
    open: bool = False
    """Whether it listens to other machines: then a Host header may be any address, though no unknown name."""


class LimitsMiddleware:
    """ASGI middleware; it is not one of Starlette's, which would hide a client's going away."""

    def __init__(
        self, app: AsgiApp, house: AccessRules, on_done: Callable[[str, int, float], None] | None = None
    ) -> None:
        """Guard the app; `on_done` hears path, status and seconds of each request."""
        self.app, self.house, self._on_done = app, house, on_done
        self._pace = RateLimiter(house.limits.per_minute)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it with the reason why not."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.monotonic(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name.lower() for name, _ in message.get("headers", ())}
                message["headers"] = [
                    *message.get("headers", ()),
                    *(
                        (n.encode(), v.encode())
                        for n, v in SECURITY_HEADERS.items()
                        if n.lower().encode() not in given
                    ),
                ]
            await send(message)

        try:
            receive = await self._admit(scope, receive)
            await self.app(scope, receive, sending)
        except ApiError as refused:
            await _answer(refused, sending)
        finally:
            if self._on_done:
                self._on_done(scope["path"], status, time.monotonic() - started)

    async def _admit(self, scope: Message, receive: Receive) -> Receive:
        """Check a request and take its body; a bug in here is answered in the same shape as one further in."""
        try:
            self._check(scope)
            if scope["method"] in ("POST", "PUT", "PATCH"):
                return _replayed(await self._body(scope, receive), receive)
        except ApiError:
            raise
        except Exception as error:
            with suppress(OSError):  # whoever read the log may have gone
                traceback.print_exc()
            raise as_api_error(error) from error
        return receive

    def _check(self, scope: Message) -> None:
        headers = _headers(scope)
        host = headers.get("host", "")
        if not self._host_is_ours(host):
            raise ApiError(
                400,
                "the Host header names no host of this server (--allow-host adds one)",
                code="host_not_allowed",
            )
        client = (scope.get("client") or ("",))[0]
        if wait := self._pace.wait(client):
            raise ApiError(
                429,
                f"more than {self.house.limits.per_minute} requests a minute",
                code="rate_limit_exceeded",
                retry_after=wait,
            )
        if self.house.key and not self.house.key.opens(headers.get("authorization", "")):
            raise ApiError(401, "a valid token is needed", code="invalid_api_key")
        origin = headers.get("origin")
        foreign = origin and origin.partition("://")[2].lower() != host.lower()
        if foreign and origin not in self.house.origins:
            raise ApiError(
                403,
                "pages of another origin may not ask here (--allow-origin lets one)",
                code="origin_not_allowed",
            )
        if scope["method"] in ("POST", "PUT", "PATCH"):
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            # A page elsewhere can send other kinds without asking first whether it may.
            if kind != "application/json":
                raise ApiError(
                    415, "the body must be JSON: send Content-Type: application/json", code="not_json"
                )

    def _host_is_ours(self, given: str) -> bool:
        """Whether a Host header is one that no foreign page can have: DNS rebinding brings a name of its own."""
        name = _without_port(given).lower()
        if name in map(str.lower, self.house.hosts) or is_loopback(name):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.house.open

    async def _body(self, scope: Message, receive: Receive) -> bytes:
        most, parts, size = self.house.limits.body_bytes, [], 0
        length = _headers(scope).get("content-length", "0")
        announced = int(length) if length.isascii() and length.isdecimal() and len(length) < 20 else 0
        try:
            async with asyncio.timeout(self.house.limits.body_seconds):
                while max(size, announced) <= most:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ApiError(400, "the request ended before its body did", code="incomplete_body")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if not message.get("more_body"):
                        break
        except TimeoutError:
            raise ApiError(408, "the body took too long to arrive", code="body_timeout") from None
        if max(size, announced) > most:
            raise ApiError(413, f"the body is larger than {most:,} bytes", code="body_too_large")
        return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Give the body once, then whatever comes: that the client has gone."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _answer(refused: ApiError, send: Send) -> None:
    body = json.dumps(refused.body).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **refused.headers}
    # What is left of a body that was not read must not be taken for the next request.
    headers["Connection"] = "close"
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def _headers(scope: Message) -> Mapping[str, str]:
    """The headers, the first of each name."""
    found: dict[str, str] = {}
    for name, value in scope.get("headers", ()):
        found.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
    return found


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host

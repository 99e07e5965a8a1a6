"""The official ``openai`` client for one endpoint, with everything that it sends and obeys chosen here.

Importing ``openai`` takes half a second of processor time, so this module is imported when the first client is made.

The library builds requests, keeps connections, applies time-outs and sorts errors. None of its environment variables has
an effect (``OPENAI_API_KEY``, ``OPENAI_BASE_URL``, ``OPENAI_ORG_ID``, ``OPENAI_PROJECT_ID``, ``OPENAI_CUSTOM_HEADERS``):
key and address are passed, and :class:`ChosenRequests` sends headers of its own in place of the library's, which tell the
operating system, the Python version and what ``OPENAI_CUSTOM_HEADERS`` holds. No organisation is named: a key has one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit
from urllib.request import getproxies

import httpx2
import openai

from rag.errors import BadInput
from rag.version import __version__
from runners.models import endpoint

MOST_ERROR_BYTES = 65_536
"""Bytes of the body of an error or a redirect that are read; messages show 200 characters."""
_NO_KEY = "none"
"""The library refuses to be without a key; this one is not sent."""
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")


def connect(address: str, key: str, at_once: int) -> openai.OpenAI:
    """Return a client of the API at an address; it connects at the first request and never repeats one.

    A public address is asked through the proxy of the environment (:func:`proxy_for`). Certificates are checked against the
    system's, or those in ``SSL_CERT_FILE`` or ``SSL_CERT_DIR``.

    Args:
        address: Address of the API, without ``/chat/completions``.
        key: API key, "" for none.
        at_once: Most connections.

    Raises:
        BadInput: The address, the key, the proxy or the file of certificates cannot be used.
    """
    _check_host(address)
    if not _HEADER_VALUE.fullmatch(key):
        raise BadInput(
            "the key in the environment is not one: it has characters that a header cannot contain",
            "set its variable again, without quotes or line breaks",
        )
    transport = ChosenRequests(address, key, _transport(address, at_once))
    return openai.OpenAI(
        api_key=key or _NO_KEY,
        # "" rather than None, for which the library would read its environment variable.
        admin_api_key="",
        organization="",
        project="",
        webhook_secret="",
        base_url=address,
        max_retries=0,
        http_client=httpx2.Client(transport=transport, trust_env=False, follow_redirects=False),
    )


class ChosenRequests(httpx2.BaseTransport):
    """Sends requests to one server with no other headers than those of this class; reads the beginning of errors."""

    def __init__(self, address: str, key: str, transport: httpx2.BaseTransport) -> None:
        """Prepare to send to the server of an address by way of another transport, with the key unless it is ""."""
        self._origin = _origin(httpx2.URL(address))
        self._transport = transport
        self._headers = {
            "Accept": "application/json, text/event-stream",
            "Content-Type": "application/json",
            "User-Agent": f"tunewise/{__version__}",
        }
        if key:
            self._headers["Authorization"] = f"Bearer {key}"

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; BadInput where its address is at another server than the key was chosen for."""
        if _origin(request.url) != self._origin:
            raise BadInput(
                f"a request for {self._origin[1]} would have gone to {request.url.host}",
                "the installed openai package changes addresses: install another version of it",
            )
        body = request.read()
        own = httpx2.Request(
            request.method,
            request.url,
            headers=self._headers,
            content=body or None,
            extensions=request.extensions,
        )
        response = self._transport.handle_request(own)
        if response.status_code >= 300 and isinstance(response.stream, httpx2.SyncByteStream):
            response.stream = _Beginning(response.stream, MOST_ERROR_BYTES)
        return response

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()


class _Beginning(httpx2.SyncByteStream):
    """The first bytes of a stream."""

    def __init__(self, stream: httpx2.SyncByteStream, most: int) -> None:
        self._stream = stream
        self._most = most

    def __iter__(self) -> Iterator[bytes]:
        left = self._most
        for chunk in self._stream:
            yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                return

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()


def lines_of(chunks: Iterable[bytes]) -> Iterator[str]:
    """Yield the lines of a stream of server-sent events, which end with a line feed, maybe after a carriage return.

    Not by ``str.splitlines``, which would cut JSON at the characters U+0085, U+2028 and U+2029 that it may hold.
    """
    parts: list[bytes] = []
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        parts.append(first)
        for other in others:
            yield b"".join(parts).decode("utf-8", errors="replace").removesuffix("\r")
            parts = [other]
    if last := b"".join(parts):
        yield last.decode("utf-8", errors="replace").removesuffix("\r")


def proxy_for(address: str) -> str:
    """Return the proxy that the environment names for an address, "" for none.

    ``HTTPS_PROXY`` or ``HTTP_PROXY`` by the address, then ``ALL_PROXY``, except for the hosts in ``NO_PROXY`` (a name stands
    for all below it, ``*`` for every host); on Windows and macOS the system's where these are not set. A server on this
    machine or at a private address is never behind it.
    """
    if endpoint.is_private(address):
        return ""
    proxies = getproxies()
    parts = urlsplit(address)
    proxy = proxies.get(parts.scheme) or proxies.get("all") or ""
    host = (parts.hostname or "").rstrip(".")
    for entry in proxies.get("no", "").lower().split(","):
        name = entry.strip().removeprefix("*.").lstrip(".")
        if name == "*" or (
            name and any(f".{text}".endswith(f".{name}") for text in (host, f"{host}:{parts.port}"))
        ):
            return ""
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def _transport(address: str, at_once: int) -> httpx2.HTTPTransport:
    """Return what opens the connections."""
    try:
        certificates = httpx2.create_ssl_context()
    except OSError as error:
        # The one of the two that httpx2 reads first.
        variable = "SSL_CERT_FILE" if os.environ.get("SSL_CERT_FILE") else "SSL_CERT_DIR"
        raise BadInput(
            f"{variable} is {os.environ.get(variable, '')!r}, where no certificates can be read: {error.strerror or error}",
            "name a file in PEM format, or unset the variable",
        ) from None
    proxy = proxy_for(address)
    try:
        return httpx2.HTTPTransport(
            verify=certificates,
            trust_env=False,
            limits=httpx2.Limits(max_connections=at_once),
            proxy=httpx2.Proxy(proxy) if proxy else None,
        )
    except ImportError:
        reason = "a SOCKS proxy needs the package socksio"
    except (ValueError, httpx2.InvalidURL):
        # Without its address, which may hold a password.
        reason = "it is no address like http://HOST:PORT"
    raise BadInput(
        f"the proxy that the environment names for {endpoint.endpoint_host(address)} cannot be used: {reason}",
        "change HTTPS_PROXY, HTTP_PROXY or ALL_PROXY, or name the host in NO_PROXY",
    )


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    """Return scheme, host and port of an address."""
    return url.scheme, url.host, url.port


def _check_host(address: str) -> None:
    """Raise BadInput when the connection would go to another host than the one that the key was chosen for."""
    try:
        connected = httpx2.URL(address)
    except httpx2.InvalidURL as error:
        raise BadInput(f"the address {address!r} cannot be used: {error}") from None
    checked = (urlsplit(address).hostname or "").lower()
    # httpx2 gives names in Unicode, urlsplit as they are written.
    raw = connected.raw_host.decode("ascii", "replace").lower().strip("[]")
    if checked not in (connected.host.lower(), raw):
        raise BadInput(
            f"the address {address!r} can be read as two hosts, {checked!r} and {connected.host!r}",
            "write it plainly, e.g. https://api.example.com/v1",
        )

"""An OpenAI-compatible endpoint: its address, its key, and what may be sent there. Light."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from rag.errors import BadInput

API_KEY_VARIABLES = ("TUNEWISE_API_KEY", "OPENAI_API_KEY")
"""Environment variables that may hold the key, first one first; it is read nowhere else and written nowhere."""


class EndpointRefused(BadInput):
    """A server that is there does not take our key, or has no such model: 401, 403, 404."""


def api_key(environ: Mapping[str, str] = os.environ, names: tuple[str, ...] = API_KEY_VARIABLES) -> str:
    """Return the key, "" where the environment has none: a server of one's own often wants none."""
    return next((environ[name].strip() for name in names if environ.get(name, "").strip()), "")


def endpoint_host(url: str) -> str:
    """Return an endpoint's host and port, as manifests and messages name it: no path, no credentials."""
    parts = urlsplit(url)
    name = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return f"{name}:{parts.port}" if parts.port else name


def is_private(url: str) -> bool:
    """Return whether a URL's host is this machine or has a private address, by its name alone.

    No name is looked up: one that only a name server could tell to be private counts as public.
    """
    name = (urlsplit(url).hostname or "").lower().rstrip(".")
    if name == "localhost" or name.endswith((".localhost", ".local", ".internal")):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_private or address.is_loopback or address.is_link_local


def check_may_contact(name: str, url: str, must_stay_local: bool) -> None:
    """Refuse an address that cannot be used, and one outside when the data must stay local; BadInput says why."""
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        raise BadInput(f"the endpoint of {name} has no usable host", "e.g. http://127.0.0.1:8000/v1")
    if parts.username or parts.password:
        raise BadInput(
            f"the address of {name} holds credentials, which would end up in files",
            f"leave them out and set {API_KEY_VARIABLES[0]}",
        )
    if must_stay_local and not is_private(url):
        raise BadInput(
            f"the data must stay local, and {name} is at {endpoint_host(url)}, which is not on this machine or a private network",
            "use a local endpoint or a local model, or answer data_must_stay_local with no",
        )

"""Address and key of an OpenAI-compatible endpoint, and whether data may be sent to it."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from rag.errors import BadInput

API_KEY_VARIABLES = ("TUNEWISE_API_KEY", "OPENAI_API_KEY")
"""Environment variables that may hold the key, in order; it is read from nowhere else and never written."""
_HOSTED_REASONING = re.compile(r"(?:^|/)(?:o[1-9](?:-|$)|gpt-(?:[5-9]|\d\d)|gpt-oss)")
"""Hosted models that reason and give the reasoning apart from the answer, or not at all."""
_OPEN_REASONING = re.compile(r"reason|(?:^|[-/])r1(?:$|[-:])|thinking(?!-off)|qwq|magistral|deepseek-r")
"""Models of open weights that always reason, whose server may leave the reasoning in the text."""
_NOT_REASONING = re.compile(r"non-?reasoning|non-?thinking|no-?think|chat-latest")
"""Variants of such models that do not reason."""


class EndpointRefused(BadInput):
    """The server answers but refuses the key or has no such model: HTTP 401, 403 or 404."""


def api_key(environ: Mapping[str, str] = os.environ, names: tuple[str, ...] = API_KEY_VARIABLES) -> str:
    """Return the key, "" when the environment has none: a local server often needs none."""
    return next((environ[name].strip() for name in names if environ.get(name, "").strip()), "")


def endpoint_host(url: str) -> str:
    """Return an endpoint's host and port, without path and credentials, for manifests and messages."""
    parts = urlsplit(url)
    name = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return f"{name}:{parts.port}" if parts.port else name


def is_private(url: str) -> bool:
    """Whether the host of a URL is this machine or has a private address, judged by its name alone.

    No DNS look-up is made: a name that only DNS could show to be private counts as public.
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
    """Raise BadInput for an unusable address, and for a public one when the data must stay local.

    Args:
        name: the model's name, for messages.
        url: address of the endpoint.
        must_stay_local: whether data may only be sent to this machine or a private network.
    """
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
            f"the data must stay local, and {name} is at {endpoint_host(url)}, "
            "which is not on this machine or a private network",
            "use a local endpoint or a local model, or answer data_must_stay_local with no",
        )


def reasons_by_name(name: str) -> str:
    """Return how a model behind a server reasons, by its name: "hosted", "open", or "" for one not known to."""
    plain = name.lower()
    if _NOT_REASONING.search(plain):
        return ""
    if _HOSTED_REASONING.search(plain):
        return "hosted"
    return "open" if _OPEN_REASONING.search(plain) else ""

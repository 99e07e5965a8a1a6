"""Address and key of an OpenAI-compatible endpoint, and whether data may be sent to it.

A plan or a bundle from someone else may name any address, so each key belongs to one host and is sent to no other.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from rag.errors import BadInput

OPENAI_HOST = "api.openai.com"
PROVIDERS: tuple[tuple[str, str, str], ...] = (
    ("gpt-", f"https://{OPENAI_HOST}/v1", "OPENAI_API_KEY"),
    ("claude-", "https://api.anthropic.com/v1", "ANTHROPIC_API_KEY"),
    ("gemini-", "https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
    ("deepseek-", "https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    ("mistral-", "https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
)
"""Providers with an OpenAI-compatible address: how names of their models begin, the address, and the variable of the key.
A key is sent to the host of its provider alone, unless the setting api_keys names the variable for another."""
API_KEY_HOSTS = "TUNEWISE_API_KEYS"
"""Environment variable of the setting api_keys: ``HOST=VARIABLE`` pairs, separated by commas."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?|\[[0-9a-f:]+\](:[0-9]{1,5})?")
_HOSTED_REASONING = re.compile(r"(?:^|/)(?:o[1-9](?:-|$)|gpt-(?:[5-9]|\d\d)|gpt-oss)")
"""Hosted models that reason and give the reasoning apart from the answer, or not at all."""
_OPEN_REASONING = re.compile(r"reason|(?:^|[-/])r1(?:$|[-:])|thinking(?!-off)|qwq|magistral|deepseek-r")
"""Models of open weights that always reason, whose server may leave the reasoning in the text."""
_NOT_REASONING = re.compile(r"non-?reasoning|non-?thinking|no-?think|chat-latest")
"""Variants of such models that do not reason."""


class EndpointRefused(BadInput):
    """The server answers but refuses the key or has no such model: HTTP 401, 403 or 404."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """The key for one host, and the environment variable that holds it; both "" where no key belongs to the host."""

    value: str = field(default="", repr=False)
    variable: str = ""


def api_key(url: str, environ: Mapping[str, str] = os.environ) -> ApiKey:
    """Return the key that belongs to the host of a URL; an empty one where none does: a local server often needs none.

    In this order: the setting ``api_keys`` (host to variable), the variables of :data:`PROVIDERS`,
    ``TUNEWISE_API_KEY`` for the host in ``TUNEWISE_API_HOST``. A host given without a port stands for all its ports.

    Raises:
        BadInput: the setting is invalid, or the key would be sent unencrypted over a network.
    """
    variable = next(
        (name for host, name in _key_variables(environ).items() if _same_host(url, host)),
        "",
    )
    key = ApiKey(environ.get(variable, "").strip(), variable) if variable else ApiKey()
    if key.value and urlsplit(url).scheme != "https" and not _is_this_machine(url):
        raise BadInput(
            f"{variable} would be sent to {endpoint_host(url)} unencrypted: its address begins with http",
            "use https, an address of this machine, or unset the variable where the server needs no key",
        )
    return key


def parse_key_hosts(pairs: str) -> dict[str, str]:
    """Return the variable of each host in ``HOST=VARIABLE,HOST=VARIABLE``.

    Raises:
        BadInput: for a host or a variable that is none; the value is not shown, because it may be a key.
    """
    variables: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in pairs.split(","))):
        host, _, variable = (part.strip() for part in pair.partition("="))
        if not _HOST.fullmatch(host.lower()):
            raise BadInput(
                "the setting api_keys has a name that is no host", "e.g. api.example.com, without https://"
            )
        if not _VARIABLE.fullmatch(variable):
            raise BadInput(
                f"the setting api_keys gives {host} something that is not the name of an environment variable",
                "put the key into a variable and write the variable's name: a key belongs into no file",
            )
        variables[host.lower()] = variable
    return variables


def unused_key_note(url: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return a sentence about a key that is set but not sent to the host of a URL; "" where there is none.

    OPENAI_API_KEY is mentioned for public hosts only: servers of one's own rarely need it.
    """
    if api_key(url, environ).value:
        return ""
    host = endpoint_host(url)
    if environ.get("TUNEWISE_API_KEY", "").strip():
        return f"TUNEWISE_API_KEY is not sent to {host}: set TUNEWISE_API_HOST={host} if it belongs there"
    if environ.get("OPENAI_API_KEY", "").strip() and not is_private(url):
        return f"OPENAI_API_KEY is sent to {OPENAI_HOST} alone, not to {host}: {key_hint(url)}"
    return ""


def key_hint(url: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return how to give a key to the host of a URL, or which variable the key was read from."""
    variable = api_key(url, environ).variable
    if variable and environ.get(variable, "").strip():
        return f"its key was read from {variable}; put one that it accepts there"
    host = endpoint_host(url)
    if variable:
        return f"set {variable} to the key of {host}"
    return f"set TUNEWISE_API_HOST={host} and TUNEWISE_API_KEY, or name its variable in the setting api_keys"


def _key_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variable of each host's key, the strongest first."""
    variables = parse_key_hosts(environ.get(API_KEY_HOSTS, ""))
    for _, address, variable in PROVIDERS:
        variables.setdefault(endpoint_host(address), variable)
    if host := environ.get("TUNEWISE_API_HOST", "").strip().lower():
        if not _HOST.fullmatch(host):
            raise BadInput(f"TUNEWISE_API_HOST is {host!r}", "give a host alone, e.g. api.example.com")
        variables.setdefault(host, "TUNEWISE_API_KEY")
    return variables


def _same_host(url: str, host: str) -> bool:
    """Return whether a URL is at a host, or at a host and port, as :func:`endpoint_host` writes them."""
    parts = urlsplit(url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    name = endpoint_host(url).lower().removesuffix(f":{parts.port}").rstrip(".")
    return host in (name, f"{name}:{port}")


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


def _is_this_machine(url: str) -> bool:
    """Whether the host of a URL is this machine, judged by its name alone."""
    name = (urlsplit(url).hostname or "").lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


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
            f"the address of {name} contains credentials, which would end up in files",
            f"remove them: {key_hint(f'{parts.scheme}://{parts.hostname}')}",
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

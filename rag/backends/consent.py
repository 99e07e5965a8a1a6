"""Where an index is, and whether it may be reached there: no server is connected to because a file says so.

A URL that a caller gives is that caller's own word. A URL that a folder (``backend.json``) or a plan names was chosen by the
folder's author, so its hosts must be in the user's setting ``index_hosts``: questions, documents and the password of libpq
go there. This holds for the loopback interface and for sockets too: behind a port of this machine there may be a tunnel or
another user's program. A folder of LanceDB on this machine is a path and needs none.

To hosts elsewhere such a URL may not weaken what protects the password: the server's certificate and name are verified,
and it is given no password, only the proof of one (SCRAM), unless the user's own PGSSLMODE and PGREQUIREAUTH say
otherwise.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from rag.backends.base import BACKEND_FILE, check_backend_url, is_backend_url, shown_url
from rag.errors import BadInput, UsageProblem
from rag.files import check_schema, parse_json

INDEX_HOSTS = "TUNEWISE_INDEX_HOSTS"
"""Environment variable of the setting index_hosts, its names separated by commas."""
DEFAULT_SOCKET = "localhost"
"""How the setting names the server that libpq finds without a host: the default socket of this machine."""
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
"""libpq's, each stricter than the one before."""
_NAME = re.compile(r"s3://[^/,\s]+|/[^,]*|(\[[^\]\s]+\]|[^\s,:/?#@\[\]]+)(:[0-9]{1,5})?")
"""A bucket, the folder of a socket, or a host, with or without a port."""


def stored_url(folder: Path | str) -> str | None:
    """Return the URL that a folder stands for, as its file has it; None for any other folder. It is not for connecting.

    Raises:
        BadInput: the folder's :data:`rag.backends.base.BACKEND_FILE` is damaged.
    """
    file = Path(folder) / BACKEND_FILE
    if not file.is_file():
        return None
    try:
        return str(check_schema(parse_json(file.read_text("utf-8")), "backend of an index", file)["url"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{file} is damaged: {error!r}", "build the index again") from None


def index_location(location: Path | str) -> Path | str:
    """Return where an index is, to open it: a folder, or a URL that may be connected to.

    Args:
        location: a folder, one that stands for a URL, or a URL, which is the caller's own.

    Raises:
        BadInput: as of :func:`stored_url` and :func:`allowed_url`.
    """
    if is_backend_url(str(location)):
        return str(location)
    url = stored_url(location)
    return Path(location) if url is None else allowed_url(url, Path(location) / BACKEND_FILE)


def allowed_url(url: str, named_by: Path | str, environ: Mapping[str, str] = os.environ) -> str:
    """Return a URL that a file names, as it may be connected to: with the parameters that protect the password.

    Args:
        url: of an index.
        named_by: the file, for messages.
        environ: has the setting, and libpq's variables, which are the user's own word.

    Raises:
        BadInput: the user has not allowed a host of it, or it weakens the connection.
    """
    try:
        check_backend_url(url)
    except UsageProblem as problem:
        raise BadInput(f"{named_by}: {problem.message}", problem.hint) from None
    places = url_places(url, environ)
    allowed = index_hosts_setting(environ)
    for place in places:
        if not {place, _without_port(place)} & allowed:
            raise BadInput(
                f"{named_by} names an index at {shown_url(url)}: questions, documents and a password would go to {place}, "
                "which you have not allowed",
                f'if that is right, write index_hosts = ["{place}"] in your settings file, or set {INDEX_HOSTS}={place}',
            )
    if urlsplit(url).scheme != "postgresql" or all(map(is_this_machine, places)):
        return url
    return _protected(url, named_by, environ)


def index_hosts_setting(environ: Mapping[str, str] = os.environ) -> frozenset[str]:
    """Return the names in the setting index_hosts, in lower case.

    Raises:
        BadInput: for one that is no host, socket folder or bucket.
    """
    return frozenset(parse_index_hosts(environ.get(INDEX_HOSTS, "").split(",")))


def parse_index_hosts(names: list[str]) -> list[str]:
    """Return names of hosts in lower case, without blanks and empty ones; BadInput for one that is none."""
    hosts = [name.strip() for name in names if name.strip()]
    for name in hosts:
        if not _NAME.fullmatch(name):
            raise BadInput(
                f"the setting index_hosts has {name!r}, which is no host",
                "e.g. db.example.org, db.example.org:5433, s3://bucket, or the folder of a socket",
            )
    return [name if name.startswith("/") else name.lower() for name in hosts]


def url_places(url: str, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return every place that connecting to a URL reaches, as the setting names it; none for a folder of this machine."""
    parts = urlsplit(url)
    if parts.scheme != "postgresql":
        return [f"s3://{parts.netloc.lower()}"] if parts.netloc else []
    given = dict(parse_qsl(parts.query))
    named = [parts.netloc.rpartition("@")[2], given.get("host", ""), given.get("hostaddr", "")]
    hosts = [unquote(host) for text in named if text for host in text.split(",")]
    hosts += [f"service-{given['service']}"] if "service" in given else []
    usual = environ.get("PGHOSTADDR") or environ.get("PGHOST") or DEFAULT_SOCKET
    hosts = [host or name for host in hosts or [""] for name in usual.split(",")]
    bracketed = [f"[{host}]" if host.count(":") > 1 and "[" not in host else host for host in hosts]
    return list(dict.fromkeys(host if host.startswith("/") else host.lower() for host in bracketed))


def is_this_machine(place: str) -> bool:
    """Return whether a place of :func:`url_places` is the loopback interface or a socket."""
    host = _without_port(place).strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.startswith(("/", "@"))


def _without_port(place: str) -> str:
    return place if place.startswith(("s3://", "/")) else re.sub(r"(?<!:):[0-9]*$", "", place)


def _protected(url: str, named_by: Path | str, environ: Mapping[str, str]) -> str:
    """Return a URL with the parameters that protect a password; BadInput where it asks for weaker ones."""
    given = dict(parse_qsl(urlsplit(url).query))
    least = environ.get("PGSSLMODE") or SSL_MODES[-1]
    accepted: dict[str, tuple[str, ...]] = {
        "sslmode": SSL_MODES[SSL_MODES.index(least) :] if least in SSL_MODES else SSL_MODES[-1:],
        "require_auth": (environ.get("PGREQUIREAUTH") or "scram-sha-256",),
        "gssencmode": (environ.get("PGGSSENCMODE") or "disable",),
        "ssl_min_protocol_version": (
            environ.get("PGSSLMINPROTOCOLVERSION") or "TLSv1.2",
            "TLSv1.2",
            "TLSv1.3",
        ),
    }
    if "sslrootcert" in given:
        accepted["sslrootcert"] = (environ.get("PGSSLROOTCERT", ""), "system")
    for name, values in accepted.items():
        if given.get(name, values[0]) not in values:
            raise BadInput(
                f"{named_by} asks for {name}={given[name]} at {shown_url(url)}: a file may not choose that, because the "
                f"password could reach another server ({name} is {values[0] or 'not set'})",
                f"take it out, or say so yourself: PG{name.replace('_', '').upper()}={given[name]}",
            )
    more = "&".join(f"{name}={quote(values[0])}" for name, values in accepted.items() if name not in given)
    return f"{url}{'&' if '?' in url else '?'}{more}" if more else url

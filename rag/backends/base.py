"""The protocol of a backend that an index can be written to, the table of backends by URL, and opening one."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import SplitResult, parse_qs, parse_qsl, unquote, urlsplit

import numpy as np

from rag.errors import UsageProblem
from rag.files import SCHEMA, write_json
from rag.search.backend import Backend, IndexFacts
from rag.stores.text import RowChange, RowSummary, StoredChunk
from rag.types import Document

BACKENDS: dict[str, str] = {
    "postgresql": "rag.backends.postgresql.backend:PostgresBackend",
    "lancedb": "rag.backends.lance.backend:LanceBackend",
    "lancedb+s3": "rag.backends.lance.backend:LanceBackend",
}
"""Scheme of a URL to "module:class"; the module is imported only when the backend is used."""
BACKEND_FILE = "backend.json"
"""File of a folder that stands for an index at a URL: the URL, and the generation that was built."""
_LANCE_PARAMETERS = frozenset({"search"})
URL_PARAMETERS: dict[str, frozenset[str]] = {
    "postgresql": frozenset(
        {
            "index",
            "vectors",
            "search",
            "host",
            "hostaddr",
            "port",
            "user",
            "dbname",
            "service",
            "sslmode",
            "sslrootcert",
            "sslcert",
            "sslkey",
            "sslcrl",
            "sslcrldir",
            "sslsni",
            "sslcertmode",
            "sslnegotiation",
            "ssl_min_protocol_version",
            "ssl_max_protocol_version",
            "require_auth",
            "channel_binding",
            "gssencmode",
            "krbsrvname",
            "target_session_attrs",
            "load_balance_hosts",
            "connect_timeout",
            "keepalives",
            "keepalives_idle",
            "keepalives_interval",
            "keepalives_count",
            "tcp_user_timeout",
            "application_name",
            "client_encoding",
            "options",
        }
    ),
    "lancedb": _LANCE_PARAMETERS,
    "lancedb+s3": _LANCE_PARAMETERS,
}
"""Scheme of a URL to its parameters: none holds a secret or names a file with passwords. Any other is refused, because
URLs end up in plans, run folders and logs. ``sslkey`` names a file of a key, whose own password has no place here."""
_SERVER_OPTIONS = re.compile(r"\s*(-c\s*[a-z_]+=[A-Za-z0-9._,-]+\s*)*")
"""Value of ``options``: settings of the server's own, ``-c NAME=VALUE``; those of extensions have a dot in their name."""
_PARAMETER_NAME = re.compile(r"[A-Za-z_]{1,40}")


@dataclass(frozen=True, slots=True)
class IndexChange:
    """What one publication changes: the rows that go and come, and what the new rows are searched by."""

    rows: RowChange
    """``chunks_in`` with the id 0 are given new ids; a row whose id is in ``chunks_out`` too replaces that row."""
    texts: Mapping[str, str]
    """The embedded text of every row that comes, by its hash (``StoredChunk.embedded``); BM25 counts its words."""
    vectors: Mapping[str, np.ndarray]
    """Its unit vector, float32 [dimension], by the same hash."""
    facts: Mapping[str, Any]
    """:func:`rag.indexing.writer.index_facts`: embedder, fingerprint, dimension, settings, record of the embedder."""


class BackendWriter(Protocol):
    """The only writer of an index, as long as its context is open; readers see nothing of it before :meth:`publish`."""

    def facts(self) -> IndexFacts | None:
        """Return the facts of the current generation; None for a new index."""

    def documents(self) -> dict[str, str]:
        """Return the content hash of each document, by id."""

    def summaries(self, documents: Collection[str]) -> list[RowSummary]:
        """Return the identity of each chunk of documents, by ascending chunk id."""

    def known_vectors(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the stored vectors of those hashes of embedded texts that the index has, by hash."""

    def publish(self, change: IndexChange) -> IndexFacts:
        """Write a change in one transaction, seen by readers whole or not at all; return the new generation's facts."""

    def state(self) -> bytes | None:
        """Return what :meth:`put_state` stored last, None if nothing was."""

    def put_state(self, state: bytes) -> None:
        """Store what the next update needs to leave unchanged files unread; it is no part of the index."""


class WritableBackend(Backend, Protocol):
    """A backend on a database, named by a URL."""

    @classmethod
    def open(cls, url: str) -> WritableBackend:
        """Open the current generation of the index at a URL; BadInput if there is none."""

    @classmethod
    def writer(cls, url: str) -> AbstractContextManager[BackendWriter]:
        """Return a context in which the caller is the only writer of the index at a URL, which is created if need be.

        Raises:
            BadInput: another process is writing the index.
        """

    def stored_chunks(self) -> Iterator[StoredChunk]:
        """Yield the rows of all chunks by ascending id, with the hashes of their embedded texts."""

    def stored_documents(self) -> Iterator[Document]:
        """Yield all documents by id with their source texts, without blocks."""

    def verify(self) -> dict[str, Any]:
        """Compare rows with their hashes and counts with the record; BadInput names the damage.

        Returns:
            ``search``: ``exact``, or how vectors are searched else; ``vectors``: ``halfvec`` if they are rounded.
        """


def is_backend_url(text: str) -> bool:
    """Return whether a text names a backend by its URL, not a folder."""
    scheme, separator, _ = text.partition("://")
    return bool(separator) and scheme.lower() in BACKENDS


def write_backend_file(folder: Path, url: str, generation: int) -> None:
    """Let a folder stand for an index at a URL; the URL never holds a password."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / BACKEND_FILE, {"schema": SCHEMA, "url": url, "generation": generation})


def shown_url(url: str) -> str:
    """Return a URL as messages show it: without a password and without parameters other than the index.

    Anything else is returned as it is.
    """
    if not is_backend_url(url):
        return url
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    index = next((pair for pair in parts.query.split("&") if pair.startswith("index=")), "")
    # urlunsplit would leave out the slashes of a URL without a host
    shown = f"{parts.scheme}://{re.split(':|%3A', user, flags=re.IGNORECASE)[0]}{at}{host}"
    path = re.split(";|%3B", parts.path, flags=re.IGNORECASE)[0]
    if parts.scheme == "postgresql":
        path = re.split("=|%3D", path, flags=re.IGNORECASE)[0]
    return f"{shown}{path}" + (f"?{index}" if re.fullmatch(r"index=[\w-]+", index) else "")


def check_backend_url(url: str) -> None:
    """Refuse a URL that names no backend, or that may hold a secret; nothing is connected or imported.

    Only the parameters of :data:`URL_PARAMETERS` are accepted. What is refused is not repeated, parameters' names aside.

    Raises:
        UsageProblem: with what to write.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise UsageProblem("not a URL of an index: its host cannot be read", _URL_FORM) from None
    if parts.scheme not in BACKENDS or "://" not in url:
        raise _unknown_scheme(parts.scheme)
    if re.search(r"[\x00-\x20\x7f]", url):
        raise UsageProblem("the URL of an index contains a blank or a control character", _URL_FORM)
    if _has_password(parts):
        raise UsageProblem(
            "the URL of an index must not contain a password: command lines and run folders are read by others",
            "give it by the environment variable PGPASSWORD or the file ~/.pgpass",
        )
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    if any(sign in unquote(url) for sign in "#;"):
        raise UsageProblem(
            "the URL of an index must not contain # or ;: what follows would be ignored", _URL_FORM
        )
    names = [name for name, _ in pairs]
    for name, value in pairs:
        shown = name if _PARAMETER_NAME.fullmatch(name) else "such a parameter"
        if name not in URL_PARAMETERS[parts.scheme]:
            raise UsageProblem(
                f"the URL of an index must not contain {shown}: it may carry credentials, or is unknown",
                "see the parameters in docs/backends.md; a password comes from PGPASSWORD or ~/.pgpass",
            )
        if names.count(name) > 1:
            raise UsageProblem(f"the URL of an index contains {name} twice", "write it once")
        if not _SERVER_OPTIONS.fullmatch(value) if name == "options" else "=" in value:
            raise UsageProblem(
                f"the URL of an index has a value of {name} that may carry credentials",
                "only options has values with =, as options=-c%20NAME%3DVALUE with a setting of the server's own",
            )
    if parts.scheme == "postgresql" and "=" in unquote(parts.path):
        raise UsageProblem("the URL of an index has a database's name with =", _URL_FORM)


_URL_FORM = "write postgresql://USER@HOST:PORT/DATABASE?index=NAME or lancedb:///FOLDER (docs/backends.md)"


def _has_password(parts: SplitResult) -> bool:
    """Return whether a URL holds a password as URLs or libpq's parameters do; LanceDB's takes no user either."""
    user, at, _ = parts.netloc.rpartition("@")
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    if any(name == "password" or (name == "user" and ":" in value) for name, value in pairs):
        return True
    return ":" in unquote(user) or bool(at and parts.scheme != "postgresql")


def url_hosts(url: str) -> list[str]:
    """Return every host that a URL can lead to, with its port where the URL names one; sockets are left out.

    libpq takes several hosts, and more from the parameters ``host``, ``hostaddr`` and ``service``.
    """
    parts = urlsplit(url)
    parameters = parse_qs(parts.query)
    named = [parts.netloc.rpartition("@")[2], *parameters.get("host", ()), *parameters.get("hostaddr", ())]
    hosts = [
        host for text in named for host in text.split(",") if host and not host.startswith(("/", "@", "%2F"))
    ]
    hosts = [f"[{host}]" if host.count(":") > 1 and "[" not in host else host for host in hosts]
    return [*hosts, *(f"service-{name}" for name in parameters.get("service", ()))]


def backend_class(url: str) -> type[WritableBackend]:
    """Return the backend of a URL's scheme.

    Raises:
        UsageProblem: no backend has this scheme.
    """
    scheme = urlsplit(url).scheme
    if scheme not in BACKENDS:
        raise _unknown_scheme(scheme)
    module, _, attribute = BACKENDS[scheme].partition(":")
    backend: type[WritableBackend] = getattr(import_module(module), attribute)
    return backend


def _unknown_scheme(scheme: str) -> UsageProblem:
    known = ", ".join(f"{name}://" for name in BACKENDS)
    return UsageProblem(f"no backend for an index at {scheme}://", f"there are: {known}")

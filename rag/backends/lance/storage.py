"""Where a LanceDB index is: its URL, the connection, the writer's lock, and LanceDB's errors as one line.

A folder of this machine is locked by :func:`rag.files.writer_lock`. On S3 the lock is an object that its owner renews:
the objects are numbered and written by conditional put, so that of two writers one at most gets the next number.
"""

from __future__ import annotations

import json
import os
import platform
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit
from uuid import uuid4

from rag.backends.base import check_backend_url
from rag.backends.files import GenerationReplaced
from rag.errors import BadInput, CannotRun, Problem, UsageProblem, install_hint
from rag.files import writer_lock
from rag.object_storage import modification_times, put_new, put_object, read_bytes, remove_objects

if TYPE_CHECKING:
    import lancedb

AUTO_SEARCH, EXACT_SEARCH, APPROXIMATE_SEARCH = "auto", "exact", "ivf_pq"
SEARCHES = (AUTO_SEARCH, EXACT_SEARCH, APPROXIMATE_SEARCH)
LOCK_SECONDS = 300
"""The lock of a writer on S3 that has not renewed it for so long is taken over."""
RENEWAL_SECONDS = 60
"""How often a writer on S3 renews its lock."""
_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
_NETWORK = {
    "connect_timeout": "5s",
    "timeout": "60s",
    "client_max_retries": "3",
    "client_retry_timeout": "60",
}
"""Options of LanceDB's S3 client; LanceDB itself repeats a failed request some times more. A server that is gone is noticed
within seconds; one that takes requests and answers none only after minutes, because slow storage must not be given up."""
_LOCK_FOLDER = "writer-lock"


@dataclass(frozen=True, slots=True)
class LanceAddress:
    """A URL of an index in LanceDB, checked."""

    shown: str
    """The URL as messages show it."""
    uri: str
    """What LanceDB connects to: a folder, or ``s3://bucket/prefix``."""
    search: str
    """``auto`` (exact below a size, IVF_PQ above), ``exact`` or ``ivf_pq``."""
    lock_seconds: float = LOCK_SECONDS
    """After so long the lock of a writer on S3 that has not renewed it is taken over."""

    @property
    def folder(self) -> Path | None:
        """The folder of this machine; None on S3."""
        return None if self.uri.startswith("s3://") else Path(self.uri)

    @classmethod
    def parse(cls, url: str) -> LanceAddress:
        """Read a URL: ``lancedb:///ABSOLUTE/FOLDER`` or ``lancedb+s3://BUCKET/PREFIX``, with ``?search=`` if wanted.

        Raises:
            UsageProblem: it is none, holds credentials or unknown parameters.
        """
        parts = urlsplit(url)
        shape = "write lancedb:///ABSOLUTE/FOLDER or lancedb+s3://BUCKET/PREFIX"
        if "@" in parts.netloc or ":" in parts.netloc:
            raise UsageProblem(
                f"the {parts.scheme}:// URL contains credentials or a port, which do not belong there",
                f"{_CREDENTIALS}; the endpoint is AWS_ENDPOINT_URL",
            )
        shown = f"{parts.scheme}://{parts.netloc}{parts.path}"
        path = unquote(parts.path).rstrip("/")
        if parts.scheme == "lancedb" and (parts.netloc or not path):
            raise UsageProblem(f"{shown} names no folder of this machine", shape)
        if parts.scheme == "lancedb+s3" and not (parts.netloc and path.strip("/")):
            raise UsageProblem(f"{shown} names no folder in a bucket", shape)
        if ".." in path.split("/") or parts.fragment:
            raise UsageProblem(f"{shown} contains '..' or '#'", "write the whole path")
        parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
        search = parameters.pop("search", AUTO_SEARCH)
        if parameters or search not in SEARCHES:
            unusable = next(iter(parameters), f"search={search}")
            raise UsageProblem(
                f"{shown}: {unusable} is no parameter of it", f"there is search={'|'.join(SEARCHES)}"
            )
        check_backend_url(url)
        return cls(shown, path if parts.scheme == "lancedb" else f"s3://{parts.netloc}{path}", search)


def connect_lance(address: LanceAddress, *, create: bool = False) -> lancedb.DBConnection:
    """Connect to LanceDB.

    Args:
        address: of the index.
        create: make the folder if it is not there.

    Raises:
        BadInput: there is no such folder.
        CannotRun: LanceDB is not installed, or the storage cannot be reached.
    """
    folder = address.folder
    if folder is not None and not create and not folder.is_dir():
        raise BadInput(f"there is no index at {address.shown}: no such folder", build_hint(address))
    options = None if folder is not None else _storage_options(address)
    # LanceDB's own log would write warnings between the lines of this program
    os.environ.setdefault("LANCEDB_LOG", "error")
    try:
        import lancedb
    except ImportError as error:
        raise CannotRun(f"{address.shown} needs the package {error.name}", install_hint("lancedb")) from None
    with lance_errors(address):
        return lancedb.connect(address.uri, storage_options=options)


def build_hint(address: LanceAddress) -> str:
    """Return how an index is built at the address."""
    return f"build it first: tunewise index build --to '{address.shown}' --documents DOCUMENTS"


def _storage_options(address: LanceAddress) -> dict[str, str]:
    """Return LanceDB's options for S3 from the environment; it reads credentials and region there itself."""
    options = dict(_NETWORK)
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not endpoint:
        return options
    options["aws_endpoint"] = endpoint
    parts = urlsplit(endpoint)
    if parts.scheme != "https":
        if not _is_loopback(parts.hostname or ""):
            raise CannotRun(
                f"{address.shown}: the endpoint {parts.scheme}://{parts.hostname} is not encrypted",
                "use https; plain http is for this machine only",
            )
        options["allow_http"] = "true"
    return options


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


# What LanceDB's messages hold, what that means, and what to do; {0} is the URL
_CAUSES: tuple[tuple[str, str, str], ...] = (
    ("NoSuchBucket", "{0}: there is no such bucket", "make the bucket first, or correct the URL"),
    (
        "InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken|AccessDenied|status: 40[13]\\b",
        "the storage of {0} refuses these credentials",
        _CREDENTIALS,
    ),
    ("AWS credentials", "{0}: no credentials of S3 were found", _CREDENTIALS),
    ("No space left|disk is full|quota exceeded", "cannot write {0}: no space left", "free some space"),
    ("Permission denied|Read-only file system", "{0}: permission denied", "check the folder's permissions"),
    (
        "ConnectionRefused|Connection refused|dns error|tcp connect|kind: Connect",
        "the storage of {0} cannot be reached",
        "check AWS_ENDPOINT_URL and the network, and try again",
    ),
    (
        "TimedOut|kind: Timeout|timed out|ConnectionReset|error sending request|kind: Request",
        "the storage of {0} does not answer",
        "try again later",
    ),
)
_GONE = re.compile("not found|NotFound|does not exist|No such file", re.IGNORECASE)


@contextmanager
def lance_errors(address: LanceAddress) -> Iterator[None]:
    """Turn LanceDB's errors, which are Python's plain ones with texts of many lines, into a problem of one line.

    Raises:
        GenerationReplaced: files of the index are missing.
        CannotRun: the storage cannot be reached, refuses, or is full; anything else that LanceDB could not do.
    """
    try:
        yield
    except Problem:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        text = " ".join(str(error).split())
        for pattern, message, hint in _CAUSES:
            if re.search(pattern, text):
                raise CannotRun(message.format(address.shown), hint) from error
        if _GONE.search(text):
            raise GenerationReplaced(
                f"{address.shown} no longer has all files of the generation that is being read, or is damaged",
                "open the index again; if that fails, build it again",
            ) from error
        raise CannotRun(f"LanceDB failed at {address.shown}: {text[:300]}", "see --debug") from error


@contextmanager
def writer_of(address: LanceAddress) -> Iterator[Callable[[], None]]:
    """Hold the lock that lets one process write the index.

    Yields:
        A function that raises :class:`rag.errors.CannotRun` if the lock was lost meanwhile.

    Raises:
        BadInput: another process is writing the index.
    """
    folder = address.folder
    if folder is None:
        lock = _ObjectLock(address)
        lock.acquire()
        try:
            yield lock.check
        finally:
            lock.release()
        return
    with writer_lock(folder):
        yield lambda: None


@dataclass(slots=True)
class _ObjectLock:
    """A lock on S3: the object with the highest number, renewed every :data:`RENEWAL_SECONDS` while it is held.

    Ages are differences of modification times of the storage, so that clocks of machines need not agree.
    """

    address: LanceAddress
    _name: str = ""
    _body: bytes = b""
    _released: threading.Event = field(default_factory=threading.Event)

    @property
    def _url(self) -> str:
        return f"{self.address.uri}/{_LOCK_FOLDER}"

    def acquire(self) -> None:
        """Take the lock; BadInput if another writer holds it."""
        others = modification_times(self._url)
        number = max((int(Path(name).stem) for name in others), default=0) + 1
        self._name = f"{number:08d}.json"
        owner = {"owner": uuid4().hex, "host": platform.node(), "pid": os.getpid()}
        self._body = json.dumps(owner).encode()
        # a put whose reply was lost is repeated by the client and finds its own object
        if not put_new(f"{self._url}/{self._name}", self._body) and self._content(self._name) != self._body:
            raise self._refusal(self._name)
        times = modification_times(self._url)
        others = {name: time for name, time in times.items() if name != self._name}
        if live := self._live(others, times[self._name]):
            remove_objects(self._url, [self._name])
            raise self._refusal(live[0])
        remove_objects(self._url, others)
        threading.Thread(target=self._renew, name="index-writer-lock", daemon=True).start()

    def check(self) -> None:
        """Raise CannotRun if another writer took the lock over."""
        if self._content(self._name) != self._body:
            raise CannotRun(
                f"{self.address.shown}: this process did not renew its lock for {self.address.lock_seconds} s, and "
                "another one took it over: nothing was published",
                "run it again when the other writer has finished",
            )

    def release(self) -> None:
        """Give the lock back; without the storage it expires by itself."""
        self._released.set()
        with suppress(Problem, OSError):
            if self._content(self._name) == self._body:
                remove_objects(self._url, [self._name])

    def _live(self, times: Mapping[str, datetime], now: datetime) -> list[str]:
        longest = self.address.lock_seconds
        return [name for name, time in times.items() if (now - time).total_seconds() <= longest]

    def _content(self, name: str) -> bytes:
        try:
            return read_bytes(f"{self._url}/{name}")
        except BadInput:
            return b""

    def _refusal(self, name: str) -> BadInput:
        try:
            owner = json.loads(self._content(name))
            who = f"pid {owner['pid']} on {owner['host']}"
        except (ValueError, KeyError, TypeError):
            who = "unknown"
        return BadInput(
            f"{self.address.shown} is being written by another process ({who})",
            f"wait until it has finished; the lock of one that was killed is free after {self.address.lock_seconds} s",
        )

    def _renew(self) -> None:
        while not self._released.wait(RENEWAL_SECONDS):
            with suppress(
                Problem, OSError
            ):  # a lost network shows at the next write; the lock may be free then
                if self._content(self._name) == self._body:
                    put_object(f"{self._url}/{self._name}", self._body)

"""Connections to PostgreSQL: what a URL says, transport security by default, a pool, and errors as one clear line.

A URL never holds a password; libpq reads it from PGPASSWORD or the file ``~/.pgpass``. Messages name user, host, port,
database and index, and no other part of a URL.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from rag.backends.base import check_backend_url, shown_url
from rag.errors import BadInput, CannotRun, Problem, UsageProblem, install_hint
from rag.text.sanitize import single_line

try:
    import psycopg
    import psycopg_pool
    from pgvector.psycopg import register_vector
except ImportError as error:
    raise CannotRun(
        f"an index in PostgreSQL needs the extra pgvector ({error})", install_hint("pgvector")
    ) from error

DEFAULT_INDEX = "tunewise"
SEARCHES = ("hnsw", "exact")
VECTOR_TYPES = ("vector", "halfvec")
CONNECT_SECONDS = 10
"""Longest time to connect, unless the URL has a connect_timeout."""
POOL_SECONDS = 5.0
"""Longest time to wait for a connection of the pool."""
TRUSTED_SECONDS = 2.0
"""A connection that was used so recently is lent again without a question to the server."""
POOL_SIZE = 8
"""Most connections of one open index."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")


@dataclass(frozen=True, slots=True)
class PostgresAddress:
    """What the URL of an index in PostgreSQL says."""

    index: str
    """Name of the index, which is that of the schema that holds its tables."""
    parameters: Mapping[str, str]
    """Connection parameters of libpq, without a password."""
    shown: str
    """The URL as messages show it: user, host, port, database, index."""
    vectors: str = ""
    """``vector`` or ``halfvec``, "" where the URL does not say."""
    search: str = ""
    """``hnsw`` or ``exact``, "" where the URL does not say."""

    @classmethod
    def parse(cls, url: str) -> PostgresAddress:
        """Read a URL ``postgresql://USER@HOST:PORT/DATABASE?index=NAME&...``.

        Without ``sslmode`` in the URL or in PGSSLMODE, the certificate and the name of a server on another host are
        verified (``verify-full``); the loopback interface and sockets take libpq's default.

        Raises:
            UsageProblem: a password in the URL, a parameter that libpq does not know, a name that is no name of an index.
        """
        check_backend_url(url)
        parts = urlsplit(url)
        pairs = dict(parse_qsl(parts.query, keep_blank_values=True))
        index = _choice(pairs, "index", None) or DEFAULT_INDEX
        vectors, search = _choice(pairs, "vectors", VECTOR_TYPES), _choice(pairs, "search", SEARCHES)
        rest = "&".join(f"{quote(key)}={quote(value)}" for key, value in pairs.items())
        try:
            plain = f"{parts.scheme}://{parts.netloc}{parts.path}"
            parameters = psycopg.conninfo.conninfo_to_dict(f"{plain}?{rest}" if rest else plain)
        except psycopg.Error as error:
            raise UsageProblem(
                f"not a URL of a PostgreSQL database: {single_line(str(error))}",
                "write postgresql://USER@HOST:PORT/DATABASE?index=NAME",
            ) from None
        shown = shown_url(f"{plain}?index={index}")
        given = {key: str(value) for key, value in parameters.items() if value is not None}
        return cls(index, _with_defaults(given), shown, vectors, search)

    @property
    def schema(self) -> str:
        """The schema's name as an SQL identifier."""
        return f'"{self.index}"'


def _choice(pairs: dict[str, str], key: str, allowed: tuple[str, ...] | None) -> str:
    """Take a parameter of ours out of a URL's; "" if it is not there, UsageProblem if its value is not allowed."""
    value = pairs.pop(key, "")
    if value and allowed and value not in allowed:
        raise UsageProblem(f"{key}={value} in the URL of an index", f"choose {' or '.join(allowed)}")
    if value and not allowed and (not _NAME.fullmatch(value) or value.lower().startswith("pg_")):
        raise UsageProblem(
            f"{value!r} cannot be the name of an index in PostgreSQL",
            "use up to 63 letters, digits, _ and -, beginning with a letter, and not with pg_",
        )
    return value


def _with_defaults(parameters: dict[str, str]) -> dict[str, str]:
    """Return connection parameters with a time limit, a name for the server's lists, and verified TLS to other hosts."""
    given = {"connect_timeout": str(CONNECT_SECONDS), "application_name": "tunewise", **parameters}
    if "sslmode" not in given and not os.environ.get("PGSSLMODE") and not _is_local(given):
        given["sslmode"] = "verify-full"
    wanted = given.get("sslmode") or os.environ.get("PGSSLMODE")
    own = Path("~/.postgresql/root.crt").expanduser()
    if wanted == "verify-full" and not (
        given.get("sslrootcert") or os.environ.get("PGSSLROOTCERT") or own.exists()
    ):
        given["sslrootcert"] = "system"
    return given


def _is_local(parameters: Mapping[str, str]) -> bool:
    """Return whether every host is the loopback interface or a socket."""
    named = parameters.get("hostaddr") or parameters.get("host") or os.environ.get("PGHOST", "")
    if not named:
        return "service" not in parameters
    return all(_is_loopback(host) for host in named.split(","))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("", "localhost") or host.startswith(("/", "@"))


def open_connection(address: PostgresAddress) -> psycopg.Connection[Any]:
    """Open one connection in autocommit mode; CannotRun with one line if there is none to be had."""
    try:
        return psycopg.connect(**_connection_arguments(address))
    except psycopg.Error as error:
        raise connection_problem(error, address) from error


def _connection_arguments(address: PostgresAddress) -> dict[str, Any]:
    # without prepared statements, whose general plans know neither the arrays nor the limits of a search
    return {**address.parameters, "autocommit": True, "prepare_threshold": None}


class ConnectionPool:
    """Connections of one open index; each is checked before it is used, so that a restarted server is found again."""

    def __init__(self, address: PostgresAddress) -> None:
        """Connect once, so that a wrong address is reported at once, and keep that connection."""
        self.address = address
        open_connection(address).close()
        # what it would log about lost connections is raised by connection()
        logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)
        self.settings: weakref.WeakKeyDictionary[psycopg.Connection[Any], dict[str, str]] = (
            weakref.WeakKeyDictionary()
        )
        """Settings of the session that each connection has been given."""
        self._used: weakref.WeakKeyDictionary[psycopg.Connection[Any], float] = weakref.WeakKeyDictionary()
        pool: psycopg_pool.ConnectionPool[Any] = psycopg_pool.ConnectionPool(
            kwargs=_connection_arguments(address),
            min_size=1,
            max_size=POOL_SIZE,
            timeout=POOL_SECONDS,
            reconnect_timeout=POOL_SECONDS,
            configure=_configure,
            check=_checker(self._used),
            open=True,
        )
        self._pool = pool
        self.close = weakref.finalize(self, _close, pool)
        """Ends all connections; called at the end of the process as well."""

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """Lend a connection in autocommit mode; errors of the server become one line.

        Raises:
            CannotRun: the server is down, was stopped meanwhile, or refuses.
        """
        try:
            connection = self._pool.getconn()
        except psycopg_pool.PoolTimeout as error:
            open_connection(self.address).close()
            raise CannotRun(
                f"all {POOL_SIZE} connections to {self.address.shown} are in use", "try again later"
            ) from error
        except psycopg.Error as error:
            raise connection_problem(error, self.address) from error
        try:
            with errors_as_problems(self.address):
                yield connection
        finally:
            self._used[connection] = time.monotonic()
            if (
                connection.closed
            ):  # the server is gone, or was: every other connection is checked before its next use
                self._used.clear()
            self._pool.putconn(connection)


def _close(pool: psycopg_pool.ConnectionPool[Any]) -> None:
    # The garbage collector may run in a thread of the pool, which cannot wait for itself; the connections end with the pool.
    with suppress(RuntimeError):
        pool.close()


def _checker(used: Mapping[psycopg.Connection[Any], float]) -> Callable[[psycopg.Connection[Any]], None]:
    """Return a function that asks the server whether a connection still works, unless it was used a moment ago."""

    def check(connection: psycopg.Connection[Any]) -> None:
        if time.monotonic() > used.get(connection, 0.0) + TRUSTED_SECONDS:
            psycopg_pool.ConnectionPool.check_connection(connection)

    return check


def _configure(connection: psycopg.Connection[Any]) -> None:
    register_vector(connection)


@contextmanager
def errors_as_problems(address: PostgresAddress) -> Iterator[None]:
    """Turn errors of the database within the block into one line each."""
    try:
        yield
    except psycopg.Error as error:
        raise statement_problem(error, address) from error


def connection_problem(error: Exception, address: PostgresAddress) -> Problem:
    """Return why there is no connection, and what to do."""
    reason = _reason(error)
    lower = reason.lower()
    hints = {
        "no password supplied": "give the password by PGPASSWORD or the file ~/.pgpass",
        "password authentication failed": "check the user, and the password in PGPASSWORD or ~/.pgpass",
        "does not exist": "create it, or correct the URL",
        "connection refused": "is the server running, and are host and port right?",
        "resolve host": "check the name of the host",
        "does not support ssl": "switch TLS on in the server, or set PGSSLMODE=prefer where the network is trusted",
        "authentication method requirement": "let the server ask for scram-sha-256, or allow another: PGREQUIREAUTH=METHOD",
        "certificate": "name the file of the authority that signed the server's certificate: PGSSLROOTCERT=FILE; "
        "the host in the URL must be one that the certificate names",
        "timeout": "is the server reachable from here?",
        "pg_hba": "the server's pg_hba.conf must allow this user from here",
        "too many": "wait, or raise the server's max_connections",
    }
    hint = next((hint for part, hint in hints.items() if part in lower), "is the server running?")
    return CannotRun(f"cannot connect to {address.shown}: {reason}", hint)


def statement_problem(error: psycopg.Error, address: PostgresAddress) -> Problem:
    """Return why a statement failed, and what to do."""
    reason = _reason(error)
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return CannotRun(
            f"{address.shown}: {reason}",
            "an administrator of the database can grant it; see docs/backends.md",
        )
    if isinstance(error, psycopg.errors.DiskFull):
        shared = "shared memory" in reason
        return CannotRun(
            f"{address.shown}: {reason}",
            "add options=-c%20max_parallel_maintenance_workers%3D0 to the URL, or give the server more shared memory"
            if shared
            else "make room on the server's disk, then give the same command again",
        )
    if isinstance(error, psycopg.DataError):
        return BadInput(f"{address.shown} cannot store this: {reason}")
    if isinstance(error, psycopg.OperationalError):
        return CannotRun(
            f"the connection to {address.shown} was lost: {reason}",
            "see that the server is running, then give the same command again; nothing is half written",
        )
    return CannotRun(f"{address.shown}: {reason}")


def _reason(error: Exception) -> str:
    """Return the first line of an error's text, without what psycopg and libpq put before it."""
    text = str(error).strip() or type(error).__name__
    first = single_line(text.splitlines()[0])
    return re.sub(
        r"^(connection failed: |connection is bad: )?(connection to server .*? failed: )?((FATAL|ERROR): +)?",
        "",
        first,
    )

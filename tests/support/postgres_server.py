"""A PostgreSQL server with pgvector for tests: Debian's binaries, run as an ordinary user in a folder of their own.

A server that cannot be started fails the test with one line: tests that use it are marked ``engines``, and are not skipped.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import pytest

from tests.support.limits import HANG_S

BINARIES = Path(os.environ.get("TUNEWISE_POSTGRES", "/usr/lib/postgresql/17/bin"))
"""By its path, because the machine may have another version of PostgreSQL, without the extension, on its PATH."""
ROLE, PASSWORD, DATABASE = "tune", "secret", "tunewise"
ADMIN = "postgres"


class PostgresServer:
    """A running server that listens on the loopback interface only; a context manager that ends it.

    It has a superuser ``postgres``, and a role ``tune`` that owns the database ``tunewise``, in which the extension
    vector exists; both have the password ``secret``.

    Attributes:
        port: port of the loopback interface.
        folder: data folder and log, outside the folders of root, which an ordinary user cannot enter.
    """

    def __init__(
        self, settings: Mapping[str, str] | None = None, certificates: Mapping[str, Path] | None = None
    ) -> None:
        """Make an empty data folder and start the server.

        Args:
            settings: further settings of the server.
            certificates: of :func:`make_certificates`; the server then offers TLS.
        """
        if not (BINARIES / "postgres").exists():
            pytest.fail(
                f"PostgreSQL is missing: there is no {BINARIES}/postgres "
                "(apt-get install postgresql-17 postgresql-17-pgvector)",
                pytrace=False,
            )
        self.folder = Path(tempfile.mkdtemp(prefix="tunewise-pg-"))
        self.port = _free_port()
        self.settings = dict(settings or {})
        self.process: subprocess.Popen[bytes] | None = None
        self._own(self.folder)
        password = self.folder / "password"
        password.write_text(f"{PASSWORD}\n", "utf-8")
        self._own(password)
        line = [str(BINARIES / "initdb"), "-D", str(self.data), "-U", ADMIN, "-A", "scram-sha-256"]
        line += ["--pwfile", str(password), "-E", "UTF8", "--locale", "C.UTF-8", "--no-sync"]
        done = subprocess.run([*_ordinary_user(), *line], capture_output=True, text=True, cwd=self.folder)
        if done.returncode:
            self.close()
            pytest.fail(f"initdb failed: {done.stderr.strip()[-400:]}", pytrace=False)
        if certificates:
            self._use_certificates(certificates)
        self.start()
        self.run(f"create role {ROLE} login password '{PASSWORD}'", "postgres")
        self.run(f"create database {DATABASE} owner {ROLE}", "postgres")
        self.run("create extension vector", DATABASE)

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.folder / "data"

    def url(self, index: str = "", database: str = DATABASE, **parameters: str) -> str:
        """Return the URL of an index, without a password.

        Args:
            index: its name; "" for none.
            database: of the server.
            parameters: of the URL, besides the index.
        """
        query = "&".join(f"{k}={v}" for k, v in {**({"index": index} if index else {}), **parameters}.items())
        return f"postgresql://{ROLE}@127.0.0.1:{self.port}/{database}" + (f"?{query}" if query else "")

    def run(self, sql: str, database: str = DATABASE, role: str = ADMIN) -> list[tuple[object, ...]]:
        """Run a statement as the superuser, or as another role, and return its rows."""
        import psycopg

        with psycopg.connect(
            host="127.0.0.1", port=self.port, user=role, password=PASSWORD, dbname=database, autocommit=True
        ) as connection:
            cursor = connection.execute(sql)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        """Start the server on its data folder and wait until it answers."""
        settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "full_page_writes": "off",
            "max_wal_size": "4GB",
            **self.settings,
        }
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        log = self.folder / "log"
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [*_ordinary_user(), str(BINARIES / "postgres"), "-D", str(self.data), *flags],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.folder,
            )
        until = time.monotonic() + HANG_S
        ready = [str(BINARIES / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while time.monotonic() < until and self.process.poll() is None:
            if subprocess.run(ready).returncode == 0:
                return
            time.sleep(0.05)
        self.close(keep=True)
        pytest.fail(f"PostgreSQL did not start: {log.read_text(errors='replace')[-400:]}", pytrace=False)

    def kill(self) -> None:
        """End all its processes at once, as a crash does; :meth:`start` starts it again."""
        assert self.process is not None
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True
        )
        for pid in (self.process.pid, *map(int, children.stdout.split())):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(HANG_S)

    def close(self, keep: bool = False) -> None:
        """End the server; its folder is deleted unless ``keep`` is set."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)  # "fast": open connections are cut
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> PostgresServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _use_certificates(self, certificates: Mapping[str, Path]) -> None:
        """Copy certificate and key to where the server's user can read them."""
        for name in ("cert", "key"):
            copy = self.folder / f"server.{name}"
            shutil.copy(certificates[name], copy)
            copy.chmod(0o600)
            self._own(copy)
            self.settings[f"ssl_{name}_file"] = str(copy)
        self.settings["ssl"] = "on"

    def _own(self, path: Path) -> None:
        """Give a path to the user that runs the server."""
        if _ordinary_user():
            shutil.chown(path, ADMIN, ADMIN)


def make_certificates(folder: Path, host: str = "127.0.0.1") -> dict[str, Path]:
    """Make a certificate authority and a server's certificate for a host, by openssl.

    Returns:
        The files ``ca`` (certificate of the authority), ``cert`` and ``key`` (of the server).
    """
    files = {"ca": folder / "ca.pem", "cert": folder / "server.pem", "key": folder / "server.key"}
    name = "IP" if host.replace(".", "").isdigit() else "DNS"
    (folder / "names").write_text(f"subjectAltName={name}:{host}\n", "utf-8")
    authority = ["-subj", "/CN=Test CA", "-keyout", str(folder / "ca.key"), "-out", str(files["ca"])]
    request = ["-subj", f"/CN={host}", "-keyout", str(files["key"]), "-out", str(folder / "request")]
    signing = ["-CA", str(files["ca"]), "-CAkey", str(folder / "ca.key"), "-CAcreateserial", "-days", "2"]
    signing += ["-extfile", str(folder / "names"), "-out", str(files["cert"])]
    for line in (
        ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *authority],
        ["req", "-newkey", "rsa:2048", "-nodes", *request],
        ["x509", "-req", "-in", str(folder / "request"), *signing],
    ):
        subprocess.run(["openssl", *line], check=True, capture_output=True)
    return files


def _ordinary_user() -> list[str]:
    """Return the words before a command that run it as the user postgres; none for anyone but root."""
    if os.geteuid():
        return []
    # setpriv replaces itself by the command, so that the process started is the server
    return ["setpriv", f"--reuid={ADMIN}", f"--regid={ADMIN}", "--clear-groups"]


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])

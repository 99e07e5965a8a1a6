"""Records of the servers that run on this machine, so that `ask` and `chat` can find the one that has a run loaded.

`tunewise serve` writes one with :func:`recorded_server`: a small file in the folder ``servers`` of the user's cache
(:func:`runners.paths.cache_folder`), readable by its owner only. It holds address, process and run, and the path of
the token's file, never the token. :func:`find_servers` reads the records of one run and proves that each names a
process of this user which started when the record says and listens on the port; a record that names none is removed.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import psutil

from rag.files import SCHEMA, canonical_json, is_below, replace_file, sha256_text
from rag.version import __version__
from runners.made_from import data_files
from runners.paths import cache_folder
from runners.plan.schema import Plan
from runners.run_folder import MANIFEST, PLAN, REPORT, UNSEALED
from runners.runs.arm import shows_file
from runners.serving.http.auth import is_loopback

SERVERS_FOLDER = "servers"
"""In the user's cache: one file for each server, named by its run and process."""
START_TOLERANCE_S = 1.0
"""Most seconds between the two readings of a process's start: psutil derives it from the clock at boot on some systems."""
_HASHED = (MANIFEST, PLAN, REPORT)
"""Files of a run whose bytes count; of the others name, size and time of change do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRecord:
    """What is known of one running server."""

    host: str
    """The address it listens on, of the loopback interface."""
    port: int
    pid: int
    started: float
    """When the process started, in seconds since 1970."""
    run: str
    """The run folder's real path."""
    fingerprint: str
    """The run as it was loaded, see :func:`run_fingerprint`."""
    version: str = __version__
    token_file: str = ""
    """Path of the file with the access token; "" where requests need none."""
    backend: tuple[str, ...] = ()
    """The servers that generate its answers, as the values of ``--backend``; () where it generates them itself."""
    max_tokens: int = 1024
    """The longest answer in tokens that it gives."""

    @property
    def address(self) -> str:
        """Host and port as people write them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def run_fingerprint(path: Path, plan: Plan) -> str:
    """Return a hash of what the answers of a run depend on; it changes when a file is replaced.

    Manifest, plan, report and the examples that arms show count by their bytes, the run's other sealed files by name, size
    and time of change: reading gigabytes of weights would take longer than an answer. The index is left out, because a
    server takes up its updates.
    """
    names = sorted(
        file.relative_to(path).as_posix()
        for file in path.rglob("*")
        if file.is_file() and not _is_unsealed(file.relative_to(path))
    )
    rows: list[Any] = [[name, _file_state(path / name, name in _HASHED)] for name in names]
    if any(shows_file(plan, arm) for arm in plan.arms):
        rows.append(data_files(plan, ("examples",)))
    return sha256_text(canonical_json(rows))


@contextmanager
def recorded_server(record: ServerRecord) -> Iterator[None]:
    """Keep the record of a server for as long as the block runs.

    Raises:
        OSError: the record cannot be written.
    """
    folder = _own_folder()
    body = canonical_json({"schema": SCHEMA, **asdict(record)}).encode("utf-8")
    # mkstemp makes a file that only its owner can read; it is renamed, so that no reader sees half a record.
    handle, name = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=folder)
    temporary, path = Path(name), folder / f"{_run_key(Path(record.run))}-{record.pid}.json"
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(body)
        replace_file(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):
            if path.read_bytes() == body:  # not one that a later process of the same number wrote
                path.unlink()


def own_record(
    address: tuple[str, int],
    run: Path,
    fingerprint: str,
    token: Path | None,
    backend: Sequence[str],
    max_tokens: int,
) -> ServerRecord | None:
    """Return the record of a server in this process; None for one that listens beyond the loopback interface."""
    host, port = address
    if not is_loopback(host):
        return None
    started = psutil.Process().create_time()
    token_file = str(token.resolve()) if token is not None else ""
    return ServerRecord(
        host=host,
        port=port,
        pid=os.getpid(),
        started=started,
        run=str(run.resolve()),
        fingerprint=fingerprint,
        version=__version__,
        token_file=token_file,
        backend=tuple(backend),
        max_tokens=max_tokens,
    )


def find_servers(run: Path) -> tuple[list[ServerRecord], list[str]]:
    """Return the records of a run's servers that are running, the one started last first, and notes on the others.

    Records of servers that ended without removing theirs, and damaged records, are removed, each with a note.
    """
    folder = cache_folder() / SERVERS_FOLDER
    servers, notes = [], []
    for path in sorted(folder.glob(f"{_run_key(run)}-*.json")) if folder.is_dir() else ():
        try:
            record = _read_record(path)
        except FileNotFoundError:  # the server has just stopped
            continue
        except (OSError, ValueError, TypeError, KeyError) as error:
            notes.append(f"the record of a server was damaged and is removed: {path} ({error})")
            _remove(path)
            continue
        if record.run != str(run.resolve()):
            continue
        state = process_state(record)
        if state == "gone":
            notes.append(
                f"the server at {record.address} (process {record.pid}) has ended; its record is removed"
            )
            _remove(path)
        elif state:
            notes.append(f"the server at {record.address} is not asked: {state}")
        else:
            servers.append(record)
    return sorted(servers, key=lambda record: -record.started), notes


def process_state(record: ServerRecord) -> str:
    """Return "" where a record's process is this user's, started when it says, and listens on its port.

    "gone" where there is no such process any more; else why it cannot be trusted.
    """
    try:
        process = psutil.Process(record.pid)
        if abs(process.create_time() - record.started) > START_TOLERANCE_S:
            return "gone"
        if process.username() != psutil.Process().username():
            return f"process {record.pid} belongs to another user"
        listening = {
            connection.laddr.port
            for connection in process.net_connections(kind="tcp")
            if connection.status == psutil.CONN_LISTEN
        }
    except psutil.NoSuchProcess:
        return "gone"
    except psutil.Error as error:
        return f"process {record.pid} cannot be looked at ({type(error).__name__})"
    if record.port not in listening:
        return f"process {record.pid} does not listen on port {record.port}"
    return ""


def _own_folder() -> Path:
    """Make the folder of the records, for its owner only; OSError when another user owns it."""
    folder = cache_folder() / SERVERS_FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.name == "posix":
        if folder.stat().st_uid != os.getuid():
            raise PermissionError(f"{folder} belongs to another user")
        folder.chmod(0o700)
    return folder


def _read_record(path: Path) -> ServerRecord:
    """Read a record; ValueError when it is damaged, not its owner's alone, or names another host than this one."""
    with path.open("rb") as stream:
        status = os.fstat(stream.fileno())
        body = json.loads(stream.read(1 << 16))
    if os.name == "posix" and (status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077):
        raise ValueError("another user owns it or may read it")
    known = {field.name for field in fields(ServerRecord)}
    values = {name: value for name, value in body.items() if name in known}
    values["backend"] = tuple(map(str, values["backend"]))
    record = ServerRecord(**values)
    kinds = (
        (record.host, str),
        (record.port, int),
        (record.pid, int),
        (record.started, float),
        (record.run, str),
        (record.fingerprint, str),
        (record.version, str),
        (record.token_file, str),
        (record.max_tokens, int),
    )
    if not all(isinstance(value, kind) for value, kind in kinds) or record.pid < 1:
        raise ValueError("a value has another type")
    if not is_loopback(record.host) or not 0 < record.port < 1 << 16:
        raise ValueError(f"{record.host} port {record.port} is no address of this machine")
    return record


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _run_key(run: Path) -> str:
    """Return the part of a record's name that stands for the run folder."""
    return sha256_text(str(run.resolve()))[:24]


def _is_unsealed(name: Path) -> bool:
    return is_below(name.as_posix(), UNSEALED) or name.parts[0].startswith(".")


def _file_state(path: Path, hashed: bool) -> list[Any]:
    try:
        status = path.stat()
        return [status.st_size, sha256_text(path.read_text("utf-8")) if hashed else status.st_mtime_ns]
    except OSError:
        return []

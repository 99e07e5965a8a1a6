"""Durable writes, and the check of schema numbers.

Every write goes to a temporary file in the same folder, is fsynced and renamed into place, and the folder is
fsynced: a crash leaves the old content or the new, never a mixture. A folder of files is described by
``manifest.json``, which is written last and checked before anything else is read (:func:`write_manifest`,
:func:`check_manifest`).

Every file format carries a schema number (:func:`check_schema`); one that this version does not know is
refused, and the message says what to do. A format's number goes up when older versions could not read what is
written. Until one does, every format has number 1; the files kept in ``tests/versions`` show that what 0.2.0
wrote still opens. What versions before it wrote, which were never published, is refused (:func:`older_file`).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rag.errors import BadInput, CannotRun, Problem

SCHEMA = 1
"""The number that is written into every file, and the highest that is read."""
UPDATE_HINT = "install a newer tunewise (from its checkout: pip install .)"
_MAX_SCHEMA = 1000
"""A higher number is damage, not a version."""
_BUILD_INDEX = "build the index again: tunewise index build INDEX --documents DOCUMENTS"
_REMAKE = {
    "plan": "make it again: tunewise plan",
    "report": "write it again: tunewise run RUN --resume",
    "scores": "score it again: tunewise run RUN --resume",
    "run": "run it again: tunewise run PLAN",
    "tunewise-index-generation": _BUILD_INDEX,
    "text store": _BUILD_INDEX,
    "adapter": "train it again",
    "refusal": "fit it again: tunewise run RUN --resume",
    "tunewise-bundle": "make it again: tunewise export RUN --to bundle",
    "model": "obtain it again: tunewise models pull NAME",
    "calibration": "measure again: tunewise doctor --calibrate",
}
"""How a damaged file of each format, or kind of manifest, is made again: the hint of the error."""
_REMAKE_ANY = "make it again with this version"

MANIFEST = "manifest.json"
LOCK_WAIT_SECONDS = 0.5
"""How long a second writer waits before it is refused."""
REPLACE_ATTEMPTS = 20
"""How often a file is renamed on Windows, where that fails while another process has the old one open."""
REPLACE_WAIT_SECONDS = 0.05
_LOCK_FILE = ".writer.lock"
_OWNER_FILE = ".writer.pid"
_RESERVED_NAMES = frozenset(
    ("CON", "PRN", "AUX", "NUL", *(f"{port}{number}" for port in ("COM", "LPT") for number in range(1, 10)))
)
_DISK_FULL_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
_DISK_FULL_TEXTS = (*(os.strerror(number) for number in sorted(_DISK_FULL_ERRORS)), "disk is full")


def older_file(name: str, file: object) -> BadInput:
    """Return the error for a file or folder that a version before 0.2.0 made.

    Args:
        name: the format, or the kind of a manifest.
        file: the path that the message names.
    """
    remake = _REMAKE.get(name, _REMAKE_ANY)
    return BadInput(f"{file} was made by a tunewise before 0.2.0, whose files are not read", remake)


def is_older(version: object) -> bool:
    """Return whether the version that made something, as it records it, is one before 0.2.0; False where it does not."""
    return str(version).startswith(("0.0.", "0.1."))


def check_number(number: object, name: str, file: object) -> None:
    """Raise BadInput when a schema number is not a number, or newer than this version reads.

    Args:
        number: the value of the key ``schema``.
        name: the format, or the kind of a manifest.
        file: the path that the message names.
    """
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= _MAX_SCHEMA:
        remake = _REMAKE.get(name, _REMAKE_ANY)
        raise BadInput(f"{file} is damaged: its schema is {number!r}, not a number", remake)
    if number > SCHEMA:
        raise BadInput(
            f"{file} was written by a newer tunewise: {name} of schema {number}, this version reads up to {SCHEMA}",
            UPDATE_HINT,
        )


def check_schema(loaded: Mapping[str, Any], name: str, file: object) -> dict[str, Any]:
    """Return a loaded mapping after checking its schema number; one without a number was written by hand and is accepted."""
    body = dict(loaded)
    check_number(body.get("schema", SCHEMA), name, file)
    return body


def canonical_json(obj: Any) -> str:
    """Return ``obj`` as JSON with sorted keys and no spaces: equal objects give equal text."""
    return _CANONICAL.encode(obj)


def sha256_text(text: str) -> str:
    """Return the hex SHA-256 of the text's UTF-8 bytes."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def sha256_bytes(data: bytes) -> str:
    """Return the hex SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path | str) -> str:
    """Return the hex SHA-256 of a file's bytes, read in blocks."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def parse_json(text: str | bytes) -> Any:
    """Return the values of a JSON text; ValueError for one that is none, or is nested too deep to be read."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def write_bytes(path: Path | str, data: bytes) -> None:
    """Replace ``path`` with ``data`` atomically and durably, making parent folders.

    Raises:
        CannotRun: when the disk is full or the path cannot be written; it names path and size.
    """
    path = Path(path)
    try:
        with temporary_beside(path, [data]) as temporary:
            replace_file(temporary, path)
    except OSError as error:
        raise _cannot_write(path, len(data), error) from error


@contextmanager
def temporary_beside(path: Path, blocks: Iterable[bytes]) -> Iterator[Path]:
    """Yield a durable file of these bytes in the folder of ``path``, which is made; its new name is durable at the end.

    It is removed at the end, unless it was renamed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.writelines(blocks)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def replace_file(
    temporary: Path,
    path: Path,
    attempts: int = REPLACE_ATTEMPTS if os.name == "nt" else 1,
    wait_seconds: float = REPLACE_WAIT_SECONDS,
) -> None:
    """Rename a file to a name that may be taken; on Windows, wait a moment for readers of the old file to close it.

    Args:
        temporary: the file.
        path: its new name.
        attempts: how often it is tried.
        wait_seconds: between two attempts.

    Raises:
        OSError: it cannot be renamed, or another process keeps the old file open there.
    """
    for _ in range(attempts - 1):
        with suppress(PermissionError):
            temporary.replace(path)
            return
        time.sleep(wait_seconds)
    temporary.replace(path)


def move_folder(path: Path, target: Path, *, within_lock: bool = os.name != "nt") -> None:
    """Rename a folder that no other process is writing.

    Args:
        path: the folder.
        target: its new name.
        within_lock: whether the lock is held meanwhile; Windows renames no folder with an open file in it, as the lock's
            is.

    Raises:
        BadInput: another process is writing it.
        OSError: it cannot be renamed.
    """
    with writer_lock(path):
        if within_lock:
            path.rename(target)
    if not within_lock:
        path.rename(target)
    (target / _OWNER_FILE).unlink(missing_ok=True)  # moved along before the lock could remove it


def empty_folder(folder: Path) -> None:
    """Remove everything in a folder but the files of its writer's lock, which the caller holds."""
    for entry in folder.iterdir():
        if entry.name not in (_LOCK_FILE, _OWNER_FILE):
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def is_reserved_name(name: str) -> bool:
    """Return whether Windows keeps a name for a device (`nul`, `con.yaml`), or would drop its last character (`a.`)."""
    return name.partition(".")[0].rstrip().upper() in _RESERVED_NAMES or name.endswith((".", " "))


def write_text(path: Path | str, text: str) -> None:
    """Replace ``path`` with UTF-8 text atomically; newlines are written as they are."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path | str, obj: Any) -> None:
    """Replace ``path`` with indented JSON atomically, keys in the order given."""
    write_text(path, json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


UPDATE_LOCK = threading.RLock()
"""Held while a file is appended to, or read, changed and written again, so that threads of this process can share it."""


def append_line(path: Path | str, obj: Any) -> None:
    """Append one JSON line and return only when it is on the disk; see :func:`append_lines`."""
    append_lines(path, [obj])


def append_lines(path: Path | str, objs: Iterable[Any]) -> None:
    """Append JSON lines in one write and return only when they are on the disk.

    A line torn by an earlier crash is closed first, so that the new lines are not appended to it.
    """
    path = Path(path)
    lines = [json.dumps(obj, ensure_ascii=False, allow_nan=False) + "\n" for obj in objs]
    data = "".join(lines).encode("utf-8")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with UPDATE_LOCK, path.open("ab+") as stream:
            if stream.tell() > 0:
                stream.seek(-1, os.SEEK_END)
                data = data if stream.read(1) == b"\n" else b"\n" + data
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise _cannot_write(path, len(data), error) from error


def sync_folder(folder: Path | str) -> None:
    """Make renames and new names in a folder durable; a no-op where folders cannot be opened (Windows)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def publish_folder(tmp: Path | str, final: Path | str) -> None:
    """Fsync everything under ``tmp``, rename it to ``final`` and fsync the parent.

    Raises:
        BadInput: when ``final`` exists already.
        CannotRun: when the folder cannot be written.
    """
    tmp, final = Path(tmp), Path(final)
    if final.exists():
        raise BadInput(
            f"{final} exists already, so a new version cannot take its name",
            "remove it or choose another folder",
        )
    try:
        for folder, _, names in os.walk(tmp):
            for name in names:
                with Path(folder, name).open("rb+") as stream:
                    os.fsync(stream.fileno())
            sync_folder(folder)
        tmp.rename(final)
        sync_folder(final.parent)
    except OSError as error:
        raise _cannot_write(final, 0, error) from error


def write_manifest(
    folder: Path | str,
    kind: str,
    extra: dict[str, Any] | None = None,
    files: Iterable[str] | None = None,
    digest: Callable[[Path], str] = sha256_file,
) -> dict[str, Any]:
    """Write ``manifest.json`` with size and hash of a folder's files, and return it.

    Call it last: a folder with a manifest counts as complete.

    Args:
        folder: the folder.
        kind: what the folder holds; :func:`check_manifest` compares it.
        extra: more top-level keys.
        files: the names to list; None lists every file below the folder.
        digest: returns the hex SHA-256 of a file.
    """
    folder = Path(folder)
    names = sorted(files) if files is not None else _file_names(folder)
    entries = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": digest(folder / name)} for name in names
    }
    # The keys of the format come after those of the caller, so that these cannot replace them.
    manifest: dict[str, Any] = {**(extra or {}), "schema": SCHEMA, "kind": kind, "files": entries}
    write_json(folder / MANIFEST, manifest)
    return manifest


def check_manifest(
    folder: Path | str,
    kind: str,
    unlisted: Collection[str] = (),
    digest: Callable[[Path], str] = sha256_file,
    editable: Collection[str] = (),
) -> dict[str, Any]:
    """Verify every file of a folder against its manifest and return the manifest.

    Args:
        folder: the folder.
        kind: what it must hold.
        unlisted: paths that need not be listed, as they change after the manifest was written (a log, an index).
        digest: returns the hex SHA-256 of a file.
        editable: names of files, in any folder below, that people may edit or delete, such as README.md.

    Raises:
        BadInput: when the manifest or a file is missing, damaged, of another kind, of a newer schema, or not
            listed; it names the file and what differs.
    """
    folder = Path(folder)
    manifest = read_manifest(folder, kind)
    entries = manifest["files"]
    for name, entry in sorted(entries.items()):
        path = folder / name
        if path.name in editable:
            continue
        if not path.is_file() or path.is_symlink():
            raise BadInput(f"{folder} is damaged: {name} is missing")
        if (size := path.stat().st_size) != entry["bytes"]:
            raise BadInput(f"{folder} is damaged: {name} has {size} bytes, its manifest has {entry['bytes']}")
        if digest(path) != entry["sha256"]:
            raise BadInput(f"{folder} is damaged: the SHA-256 of {name} differs from its manifest")
    for name in _file_names(folder):
        if name not in entries and not is_below(name, unlisted) and Path(name).name not in editable:
            raise BadInput(f"{folder} is damaged: {name} is not listed in its manifest")
    return manifest


def is_below(name: str, paths: Collection[str]) -> bool:
    """Return whether a POSIX path is one of these, or below one of them."""
    return any(f"{name}/".startswith(f"{path}/") for path in paths)


@contextmanager
def disk_full_as_problem(path: Path | str) -> Iterator[None]:
    """Turn a full disk into CannotRun naming ``path``, whichever library reports it.

    faiss raises RuntimeError, safetensors an error of its own, SQLite OperationalError: the text of the error
    is the only common sign.
    """
    try:
        yield
    except Problem:
        raise
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in _DISK_FULL_ERRORS
        if not full and not any(text in str(error) for text in _DISK_FULL_TEXTS):
            raise
        raise CannotRun(
            f"cannot write into {path}: no space left on its disk", "free some space and run it again"
        ) from error


@contextmanager
def writer_lock(folder: Path | str) -> Iterator[None]:
    """Hold the lock that lets one process write into a folder.

    The lock belongs to the operating system: when its owner dies, the next writer gets it.

    Raises:
        BadInput: when another process holds it; its process id is named.
        CannotRun: when the folder cannot be written.
    """
    folder = Path(folder)
    lock = FileLock(folder / _LOCK_FILE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=LOCK_WAIT_SECONDS)
    except Timeout:
        raise BadInput(
            f"{folder} is being written by another process (pid {writer_process(folder) or 'unknown'})",
            "wait until it has finished, or stop it",
        ) from None
    except OSError as error:
        raise _cannot_write(folder, 0, error) from error
    try:
        with suppress(OSError):  # on a full disk the lock holds all the same, only its owner is not recorded
            (folder / _OWNER_FILE).write_text(str(os.getpid()), encoding="ascii")
        yield
    finally:
        (folder / _OWNER_FILE).unlink(missing_ok=True)
        lock.release()


def has_active_writer(folder: Path | str) -> bool:
    """Return whether a process is writing into a folder right now; the folder is not changed."""
    path = Path(folder) / _LOCK_FILE
    if not path.is_file():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:  # a folder that this user may not write into
        return False
    lock.release()
    return False


def writer_process(folder: Path | str) -> int | None:
    """Return the number of the process that writes into a folder, or that was killed while it did; None without one."""
    try:
        return int((Path(folder) / _OWNER_FILE).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def read_manifest(folder: Path, kind: str) -> dict[str, Any]:
    """Return a folder's manifest without verifying the files; BadInput when it is damaged or of another kind."""
    path = folder / MANIFEST
    try:
        manifest = parse_json(path.read_text(encoding="utf-8"))
        actual_kind, _, entries = manifest["kind"], manifest["schema"], manifest["files"]
        complete = all(
            isinstance(entry["bytes"], int) and isinstance(entry["sha256"], str) for entry in entries.values()
        )
        inside = all(not Path(name).is_absolute() and ".." not in Path(name).parts for name in entries)
    except FileNotFoundError:
        raise BadInput(f"{folder} has no {MANIFEST}: it is incomplete or not a {kind}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path} is damaged: {error!r}") from error
    if actual_kind != kind:
        raise BadInput(f"{folder} is a {actual_kind!r}, not a {kind!r}")
    manifest = check_schema(manifest, kind, folder)
    settings = manifest.get("config")  # of a training: before 0.2.0 they had no kernels
    if is_older(manifest.get("made_by")) or (isinstance(settings, dict) and "kernels" not in settings):
        raise older_file(kind, folder)
    if not complete or not inside:
        raise BadInput(f"{path} is damaged: its list of files is malformed")
    return manifest


def _file_names(folder: Path) -> list[str]:
    """Return the POSIX paths of all files below a folder, without its manifest and the files of a writer's lock."""
    paths = (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    names = (
        path.relative_to(folder).as_posix() for path in paths if path.name not in (_LOCK_FILE, _OWNER_FILE)
    )
    return sorted(name for name in names if name != MANIFEST)


def _cannot_write(path: Path, size: int, error: OSError) -> CannotRun:
    if error.errno in _DISK_FULL_ERRORS:
        return CannotRun(
            f"cannot write {path}: no space left for {size} bytes", "free some space and run it again"
        )
    amount = f" ({size} bytes)" if size else ""
    return CannotRun(
        f"cannot write {path}{amount}: {error.strerror or error}", "check the folder's permissions"
    )

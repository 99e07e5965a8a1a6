"""SQLite as both stores use it: opened by URI, its errors told apart into damage and a disk that refuses."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rag.errors import BadInput, CannotRun

_REFUSED = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")
_UNREADABLE = ("SQLITE_IOERR_READ", "SQLITE_IOERR_SHORT_READ", "SQLITE_IOERR_DATA", "SQLITE_IOERR_CORRUPTFS")
LOCK_TIMEOUT_SECONDS = 10.0
REBUILD_HINT = "build it again: tunewise index build INDEX --documents DOCUMENTS"


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """Return a connection in autocommit mode; ``mode`` is SQLite's ro, rw or rwc."""
    with sqlite_errors_as_problems(path):
        uri = f"{path.resolve().as_uri()}?mode={mode}"
        return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=LOCK_TIMEOUT_SECONDS)


def is_database(path: Path) -> bool:
    """Return whether a file begins as every SQLite file does, or as one that was only just begun: with nothing."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError:
        return False
    return head == b"SQLite format 3\0" or not head.strip(b"\0")


def database_files(path: Path) -> tuple[Path, ...]:
    """Return the database's file and those that SQLite may keep beside it."""
    return (path, *(path.with_name(path.name + ending) for ending in ("-wal", "-shm", "-journal")))


@contextmanager
def sqlite_errors_as_problems(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours: CannotRun when the disk refuses, BadInput when the file is damaged."""
    try:
        yield
    except sqlite3.Error as error:
        name = str(getattr(error, "sqlite_errorname", ""))
        if name == "SQLITE_FULL" or (name.startswith("SQLITE_IOERR") and name not in _UNREADABLE):
            raise CannotRun(
                f"cannot write {path}: no space left, or its disk fails ({error})",
                "free some space and run it again",
            ) from error
        if name.startswith(_REFUSED):
            raise CannotRun(f"cannot use {path}: {error}", "check the disk and its permissions") from error
        raise BadInput(f"{path} is damaged: {error}", REBUILD_HINT) from error


@contextmanager
def decode_errors_as_bad_input(path: Path) -> Iterator[None]:
    """Turn what a value of the wrong type makes Python raise into BadInput: its row is damaged."""
    try:
        yield
    except (TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"{path} is damaged: {error}", REBUILD_HINT) from error

"""SQLite as the text store and the vector cache use it: opened by URI, errors mapped to damage or a failing disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rag.errors import BadInput, CannotRun

# Prefixes of sqlite_errorname: the file may be fine, but it cannot be used now
_REFUSED = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")
# I/O errors that mean damage; all others mean that the disk fails
_UNREADABLE = ("SQLITE_IOERR_READ", "SQLITE_IOERR_SHORT_READ", "SQLITE_IOERR_DATA", "SQLITE_IOERR_CORRUPTFS")
LOCK_TIMEOUT_SECONDS = 10.0
REBUILD_HINT = "build it again: tunewise index build INDEX --documents DOCUMENTS"


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """Return a connection in autocommit mode; ``mode`` is SQLite's ro, rw or rwc."""
    with sqlite_errors_as_problems(path):
        uri = f"{path.resolve().as_uri()}?mode={mode}"
        return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=LOCK_TIMEOUT_SECONDS)


def is_database(path: Path) -> bool:
    """Return whether a file is an SQLite database, or one that was only just created (empty or all zero)."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError:
        return False
    return head == b"SQLite format 3\0" or not head.strip(b"\0")


def database_files(path: Path) -> tuple[Path, ...]:
    """Return the database's file and those that SQLite may create beside it."""
    return (path, *(path.with_name(path.name + ending) for ending in ("-wal", "-shm", "-journal")))


@contextmanager
def sqlite_errors_as_problems(path: Path) -> Iterator[None]:
    """Map SQLite's errors: CannotRun if the disk refuses, BadInput if the file is damaged."""
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
    """Map the errors of decoding a row with values of wrong types to BadInput: the row is damaged."""
    try:
        yield
    except (TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"{path} is damaged: {error}", REBUILD_HINT) from error

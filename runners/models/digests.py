"""Hashes of files kept between starts, so that weights are read again only after they changed. Imports no torch.

A hash is kept in the cache folder with size, modification time, change time and inode of the files that it covers, and is
used only while all of these are the same. :func:`recomputed` ignores kept hashes and replaces them, for
``tunewise models verify``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from rag.errors import Problem
from rag.files import sha256_file, sha256_text, write_json
from runners.paths import cache_folder

FOLDER = "digests"
MIN_BYTES = 1 << 20
"""Smaller files are hashed at every start: that takes milliseconds."""
SETTLED_SECONDS = 2.0
"""A hash is kept only for files unchanged for so long: within one tick of the clock a second change is invisible."""
MAX_KEPT = 256
"""Number of kept hashes; the oldest are removed."""
_RECOMPUTE: ContextVar[bool] = ContextVar("recompute", default=False)
_IN_PROCESS: dict[str, tuple[list[list[Any]], str]] = {}
"""Hashes of this process: key -> state of the files, hash."""


def stored_digest(name: str, files: Sequence[Path], compute: Callable[[], str]) -> str:
    """Return a hash over files: the kept one while no file has changed, else a computed one, which is then kept.

    Args:
        name: what is hashed; other hashes of the same files have other names.
        files: the files that the hash depends on.
        compute: computes the hash.
    """
    key = sha256_text("\0".join([name, *(str(path.absolute()) for path in files)]))
    state = _state(files)
    if not _RECOMPUTE.get():
        known = _IN_PROCESS.get(key) or _read(key)
        if known and known[0] == state:
            return known[1]
    digest = compute()
    if _state(files) == state:  # else the files changed while they were read
        _IN_PROCESS[key] = state, digest
        _keep(key, name, state, digest)
    return digest


def file_sha256(path: Path) -> str:
    """Return the SHA-256 (hex) of a file, the kept one while the file has not changed."""
    return stored_digest("file", (path,), lambda: sha256_file(path))


@contextmanager
def recomputed() -> Iterator[None]:
    """Compute every hash anew inside the block, and keep the new ones."""
    token = _RECOMPUTE.set(True)
    try:
        yield
    finally:
        _RECOMPUTE.reset(token)


def _state(files: Sequence[Path]) -> list[list[Any]]:
    """Return path, size, modification and change time in ns, and inode of each file."""
    rows = []
    for path in files:
        stat = path.stat()
        rows.append([str(path.absolute()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino])
    return rows


def _read(key: str) -> tuple[list[list[Any]], str] | None:
    """Return the kept state and hash of a key; None for none, or one that is not readable."""
    try:
        body = json.loads((cache_folder() / FOLDER / f"{key}.json").read_text("utf-8"))
        return body["files"], str(body["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep(key: str, name: str, state: list[list[Any]], digest: str) -> None:
    """Keep a hash of large files that have not changed just now; a folder that cannot be written costs only time."""
    changed = max((max(row[2], row[3]) for row in state), default=0) / 1e9
    if sum(row[1] for row in state) < MIN_BYTES or time.time() - changed < SETTLED_SECONDS:
        return
    folder = cache_folder() / FOLDER
    with suppress(OSError, Problem):
        write_json(folder / f"{key}.json", {"name": name, "files": state, "digest": digest})
        entries = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for path in entries[:-MAX_KEPT]:
            path.unlink(missing_ok=True)

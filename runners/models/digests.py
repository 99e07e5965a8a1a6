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
_FileStates = list[list[Any]]


class KeptDigests:
    """The hashes of files that a process knows, and those kept in the cache folder."""

    def __init__(self, settled_seconds: float = SETTLED_SECONDS, max_kept: int = MAX_KEPT) -> None:
        """Know none yet.

        Args:
            settled_seconds: a hash is kept only for files unchanged for so long.
            max_kept: number of kept hashes; the oldest are removed.
        """
        self._settled_seconds = settled_seconds
        self._max_kept = max_kept
        self._in_process: dict[str, tuple[_FileStates, str]] = {}

    def digest(self, name: str, files: Sequence[Path], compute: Callable[[], str]) -> str:
        """Return a hash over files: the kept one while no file has changed, else a computed one, which is then kept.

        Args:
            name: what is hashed; other hashes of the same files have other names.
            files: the files that the hash depends on.
            compute: computes the hash.
        """
        key = sha256_text("\0".join([name, *(str(path.absolute()) for path in files)]))
        state = file_states(files)
        if not _RECOMPUTE.get():
            for known in (self._in_process.get(key), _read(key)):
                if known and known[0] == state:
                    return known[1]
        digest = compute()
        if file_states(files) == state:  # else the files changed while they were read
            self._in_process[key] = state, digest
            self._keep(key, name, state, digest)
        return digest

    def file_sha256(self, path: Path) -> str:
        """Return the SHA-256 (hex) of a file, the kept one while the file has not changed."""
        return self.digest("file", (path,), lambda: sha256_file(path))

    def _keep(self, key: str, name: str, state: _FileStates, digest: str) -> None:
        """Keep a hash of large files that have not changed just now; a folder that cannot be written costs only time."""
        changed = max((max(row[2], row[3]) for row in state), default=0) / 1e9
        fresh = time.time() - changed < self._settled_seconds
        if fresh or sum(row[1] for row in state) < MIN_BYTES:
            return
        body = {"name": name, "files": state, "digest": digest}
        keep_entry(cache_folder() / FOLDER / f"{key}.json", body, self._max_kept)


_PROCESS = KeptDigests()
"""Those of this process."""


def stored_digest(name: str, files: Sequence[Path], compute: Callable[[], str]) -> str:
    """Return what :meth:`KeptDigests.digest` returns for this process."""
    return _PROCESS.digest(name, files, compute)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 (hex) of a file, the kept one while the file has not changed."""
    return _PROCESS.file_sha256(path)


@contextmanager
def recomputed() -> Iterator[None]:
    """Compute every hash anew inside the block, and keep the new ones."""
    token = _RECOMPUTE.set(True)
    try:
        yield
    finally:
        _RECOMPUTE.reset(token)


def keep_entry(file: Path, body: dict[str, Any], most: int) -> None:
    """Write a file of the cache folder atomically; one that cannot be written costs only time.

    Args:
        file: the file, in a folder of files of its kind.
        body: its content.
        most: number of files of this kind that stay; the oldest are removed.
    """
    with suppress(OSError, Problem):
        write_json(file, body)
        entries = sorted(file.parent.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for path in entries[:-most]:
            path.unlink(missing_ok=True)


def file_states(files: Sequence[Path]) -> _FileStates:
    """Return path, size, modification and change time in ns, and inode of each file."""
    rows = []
    for path in files:
        stat = path.stat()
        rows.append([str(path.absolute()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino])
    return rows


def _read(key: str) -> tuple[_FileStates, str] | None:
    """Return the kept state and hash of a key; None for none, or one that is not readable."""
    try:
        body = json.loads((cache_folder() / FOLDER / f"{key}.json").read_text("utf-8"))
        return body["files"], str(body["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return None

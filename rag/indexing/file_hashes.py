"""Hashes of large files of an index, so that a file is read once on a machine and not at every start.

Opening an index verifies every file against its manifest. For a large index the hash of a file of :data:`LARGE_BYTES` or
more is recorded in the index folder with the file's device, inode, size and time of modification, and is used as long as
these are the same: a file that was written, replaced or copied is read again. Bytes that a failing disk changes without a
write are noticed by ``tunewise index check``, which reads everything.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from rag.errors import Problem
from rag.files import sha256_file, write_json

RECORD_FILE = "hashes.json"
LARGE_BYTES = 1024**2
"""A smaller file is hashed in milliseconds."""
MAX_RECORDED = 64
"""Files recorded at most, the newest; a generation has few large ones."""


class FileHashes:
    """The recorded hashes of one index folder."""

    def __init__(self, folder: Path, large_bytes: int = LARGE_BYTES) -> None:
        """Read the record of a folder, of files from a size on; a missing or damaged one is empty."""
        self._path = folder / RECORD_FILE
        self._large_bytes = large_bytes
        self._known: dict[str, str] = {}
        with suppress(OSError, ValueError, AttributeError):
            recorded = json.loads(self._path.read_text(encoding="utf-8"))
            self._known = {str(state): str(sha256) for state, sha256 in recorded.items()}

    def sha256(self, path: Path) -> str:
        """Return the hex SHA-256 of a file, recorded if it is large and unchanged; a new one is recorded.

        A folder that cannot be written costs the time of reading the file, nothing else.
        """
        stat = path.stat()
        if stat.st_size < self._large_bytes:
            return sha256_file(path)
        state = f"{stat.st_dev} {stat.st_ino} {stat.st_size} {stat.st_mtime_ns}"
        if state not in self._known:
            sha256 = sha256_file(path)
            after = path.stat()
            if (after.st_size, after.st_mtime_ns) != (stat.st_size, stat.st_mtime_ns):
                return sha256  # it changed while it was read
            self._known[state] = sha256
            with suppress(OSError, Problem):
                write_json(self._path, dict(list(self._known.items())[-MAX_RECORDED:]))
        return self._known[state]

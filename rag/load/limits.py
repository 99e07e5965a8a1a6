"""What parsing one file may take: time, memory and size."""

from __future__ import annotations

from dataclasses import dataclass

from rag.errors import BadInput


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one untrusted file; the worker that goes beyond them is ended and the file skipped."""

    seconds: float = 20.0
    """Wall-clock time for one file."""
    memory_mib: int = 1024
    """Address space of the worker (RLIMIT_AS); where the system has no such limit this is said."""
    file_mib: int = 256
    """Larger files are not opened; it also bounds the text that one file may unpack to."""
    apart_from: int = 1 << 18
    """Plain text formats of at most this many bytes are parsed in this process, all else in the worker: their
    parsers are ours and take time in step with size, and a folder of notes is spared the 130 ms that the
    worker needs to start (each file there costs 0.2 ms more; measured on 2 cores)."""

    def __post_init__(self) -> None:
        """Refuse limits under which nothing could be read."""
        for name, least in (("seconds", 0.1), ("memory_mib", 128), ("file_mib", 1), ("apart_from", 0)):
            if not getattr(self, name) >= least:
                raise BadInput(f"the limit {name} is {getattr(self, name)!r}, but must be at least {least:g}")

    @property
    def file_bytes(self) -> int:
        """The size limit in bytes."""
        return self.file_mib << 20

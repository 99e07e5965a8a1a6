"""The parent's side of the worker process that parses untrusted files, and the limits of that process.

:class:`Sandbox` keeps one process for many files, and ends and replaces it when a file exceeds
:class:`Limits` (time, memory, size). Documents come back as JSON (:func:`to_wire`, :func:`from_wire`); text
that equals a slice of the raw text is not sent twice.

A pool of processes (``pebble``, ``concurrent.futures``) does not serve: the parent would unpickle what a process sends
that parses untrusted files, and a pickle can run any code.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from rag.errors import BadInput, CannotRun
from rag.loading.base import Skipped
from rag.loading.offsets import Offsets
from rag.types import Block, Document

_START_SECONDS = 60.0
"""How long a new worker may take until it answers."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one untrusted file; a worker that exceeds them is ended and the file skipped."""

    seconds: float = 20.0
    """Wall-clock time for one file."""
    memory_mib: int = 1024
    """Address space of the worker (RLIMIT_AS); a system without such a limit is reported to the user."""
    file_mib: int = 256
    """Larger files are not opened; it also bounds the text that one file may unpack to."""
    max_in_process_bytes: int = 1 << 18
    """Plain text formats of at most this many bytes are parsed in this process, all else in the worker: their
    parsers are part of this package and take time linear in the size, and a folder of notes does not wait the
    130 ms that the worker needs to start (each file there costs 0.2 ms more; measured on 2 cores)."""

    def __post_init__(self) -> None:
        """Refuse limits under which no file could be read."""
        for name, least in (
            ("seconds", 0.1),
            ("memory_mib", 128),
            ("file_mib", 1),
            ("max_in_process_bytes", 0),
        ):
            if not getattr(self, name) >= least:
                raise BadInput(f"the limit {name} is {getattr(self, name)!r}, but must be at least {least:g}")

    @property
    def file_bytes(self) -> int:
        """The size limit in bytes."""
        return self.file_mib << 20


class Sandbox:
    """Parses files in a worker process under limits; use it as a context manager.

    The process is started with the first file. A file that takes too long, needs too much memory, or crashes
    the parser is returned as skipped with that reason, and the next file is parsed in a new process.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        """Store the limits; no process is started yet."""
        self.limits = limits or Limits()
        self.memory_limited = True
        """False when the worker's system cannot limit memory; known once it has started."""
        self.started = 0
        """How many processes were started."""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Sandbox:
        """Return the sandbox."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the worker."""
        self.close()

    def close(self) -> None:
        """End the worker if there is one."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                _close_quietly(pipe)

    def parse(self, id: str, media: str, data: bytes) -> list[Document | Skipped]:
        """Return the items that ``reader.parse_file`` reads from the bytes in the worker.

        Args:
            id: the file's id.
            media: name of the loader; empty lets the worker detect it.
            data: the file's bytes.

        Raises:
            CannotRun: when no worker can be started.
        """
        process = self._process or self._start()
        seconds = self.limits.seconds
        request = {"id": id, "media": media, "size": len(data), "seconds": seconds}
        answer, late = self._exchange(process, json.dumps(request).encode() + b"\n" + data, seconds)
        if answer is None:
            code = process.wait()
            self.close()
            reason = (
                f"parsing it took longer than {seconds:g} s"
                if late
                else f"its parser crashed ({_exit_reason(code)})"
            )
            return [Skipped(id, reason)]
        if answer.get("spent"):
            self.close()
        return [from_wire(item) for item in answer["items"]]

    def _exchange(
        self, process: subprocess.Popen[bytes], request: bytes, seconds: float
    ) -> tuple[dict[str, Any] | None, bool]:
        """Send a request and wait for the answer; a timer ends the process, which unblocks both.

        Returns:
            The answer, None when there was none; and whether the time had run out.
        """
        assert process.stdin
        assert process.stdout
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            if request:
                process.stdin.write(request)
                process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = b""
        finally:
            timer.cancel()
        try:
            return (json.loads(line) if line.endswith(b"\n") else None), late.is_set()
        except ValueError:
            return None, late.is_set()

    def _start(self) -> subprocess.Popen[bytes]:
        """Start a worker and wait until it answers; CannotRun when it does not."""
        limits = self.limits
        command = [
            sys.executable,
            "-P",
            "-m",
            "rag.loading.worker",
            str(limits.memory_mib << 20),
            str(limits.file_bytes),
        ]
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_environment(),
            )
        except OSError as error:
            raise CannotRun(f"the process that parses documents cannot start: {error}") from error
        self._process = process
        hello, _ = self._exchange(process, b"", _START_SECONDS)
        if hello is None:
            output = process.stderr.read().decode("utf-8", "replace").strip() if process.stderr else ""
            self.close()
            last = output.splitlines()[-1] if output else "it gave no reason"
            raise CannotRun(
                f"the process that parses documents does not start: {last}",
                f"try: {sys.executable} -P -m rag.loading.worker 1073741824 268435456 < {os.devnull}",
            )
        self.started += 1
        self.memory_limited = bool(hello.get("limited"))
        return process


def to_wire(item: Document | Skipped) -> dict[str, Any]:
    """Return a document or a skipped row as plain JSON values."""
    if isinstance(item, Skipped):
        return item.to_json()
    return {
        "id": item.id,
        "title": item.title,
        "raw": item.raw,
        "sha256": item.sha256,
        "media": item.media,
        "metadata": item.metadata,
        "blocks": [_block_to_wire(block, item.raw) for block in item.blocks],
    }


def from_wire(item: dict[str, Any]) -> Document | Skipped:
    """Return the item that :func:`to_wire` encoded; KeyError or ValueError when it is something else."""
    if "reason" in item:
        return Skipped(item["path"], item["reason"])
    raw = item["raw"]
    blocks = tuple(_block_from_wire(values, raw) for values in item["blocks"])
    names = ("id", "title", "raw", "sha256", "media", "metadata")
    return Document(blocks=blocks, **{name: item[name] for name in names})


def _block_to_wire(block: Block, raw: str) -> list[Any]:
    text = None if block.text == raw[block.start : block.end] else block.text
    runs = block.offsets.runs if isinstance(block.offsets, Offsets) and block.offsets else None
    return [block.kind, text, block.start, block.end, block.heading, runs]


def _block_from_wire(values: list[Any], raw: str) -> Block:
    kind, text, start, end, heading, runs = values
    text = raw[start:end] if text is None else text
    offsets = Offsets(((at, raw_offset) for at, raw_offset in runs), len(text)) if runs else ()
    return Block(kind, text, start, end, heading, offsets)


def _environment() -> dict[str, str]:
    """Return the environment in which the worker imports this same package, also from an uninstalled checkout."""
    root = str(Path(__file__).resolve().parents[2])
    known = os.environ.get("PYTHONPATH", "")
    if "site-packages" in root or "dist-packages" in root:
        return dict(os.environ)
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{known}" if known else root}


def _exit_reason(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit status {code}"


def _close_quietly(pipe: Any) -> None:
    with suppress(OSError):  # bytes that the ended worker did not read
        pipe.close()

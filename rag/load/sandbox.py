"""The parent's side of the worker: one warm process for many files, ended and replaced when a file is too much."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from rag.errors import CannotRun
from rag.load.base import Skipped
from rag.load.limits import Limits
from rag.load.wire import unpacked
from rag.types import Document

_START_SECONDS = 60.0


class Sandbox:
    """Parses files in a worker process under limits; use it as a context manager.

    The process is started with the first file. A file that takes too long, too much memory, or crashes the
    parser is returned as skipped with that reason, and the next file meets a new process.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        """Keep the limits; nothing is started yet."""
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
                _closed(pipe)

    def parse(self, id: str, media: str, data: bytes) -> list[Document | Skipped]:
        """Return what ``parse.parse`` finds in the bytes, the medium too where ``media`` is empty.

        CannotRun when no worker can be started at all.
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
                else f"its parser crashed ({_ended(code)})"
            )
            return [Skipped(id, reason)]
        if answer.get("spent"):
            self.close()
        return [unpacked(item) for item in answer["items"]]

    def _exchange(
        self, process: subprocess.Popen[bytes], request: bytes, seconds: float
    ) -> tuple[dict[str, Any] | None, bool]:
        """Send and await the answer; a timer ends the process, which unblocks both. None: it gave none."""
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
        limits = self.limits
        command = [
            sys.executable,
            "-P",
            "-m",
            "rag.load.worker",
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
            said = process.stderr.read().decode("utf-8", "replace").strip() if process.stderr else ""
            self.close()
            last = said.splitlines()[-1] if said else "it said nothing"
            raise CannotRun(
                f"the process that parses documents does not start: {last}",
                f"try: {sys.executable} -P -m rag.load.worker 1073741824 268435456 < {os.devnull}",
            )
        self.started += 1
        self.memory_limited = bool(hello.get("limited"))
        return process


def _environment() -> dict[str, str]:
    """Return the environment in which the worker finds this very package, also in an uninstalled checkout."""
    root = str(Path(__file__).resolve().parents[2])
    known = os.environ.get("PYTHONPATH", "")
    if "site-packages" in root or "dist-packages" in root:
        return dict(os.environ)
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{known}" if known else root}


def _ended(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit status {code}"


def _closed(pipe: Any) -> None:
    with suppress(OSError):  # bytes that the dead worker never took
        pipe.close()

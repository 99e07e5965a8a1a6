"""A process that has imported the large libraries and forks a child for each `tunewise` command of the tests.

Each command is a process of its own, with its own files, folder, arguments and environment, as `tunewise` has it, without
the seconds that importing torch takes. Tests of the import itself, of signals before it, and of the installed script
start a new interpreter instead.

The protocol, over a Unix socket: the caller sends its three standard files, then its arguments, folder and environment in
JSON, and closes its half; the server answers with a line that holds the child's process id, and at its end with its exit
code (minus the number of the signal that killed it).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tests.support.limits import HANG_S

if TYPE_CHECKING:
    from typing import Self

PRELOADED = (
    "peft",
    "sentence_transformers",
    "transformers.models.bert.modeling_bert",
    "transformers.models.llama.modeling_llama",
    "advisor.cli",
    "advisor.display.progress",
    "advisor.report.report",
    "rag.embedding.embedder",
    "rag.index",
    "runners.inference.local",
    "runners.trial.execute",
    "runners.trial.step_runner",
)
"""Modules that a whole run needs, which every child would import otherwise."""


class Command:
    """A running command, with the part of `subprocess.Popen` that the tests use."""

    def __init__(
        self, args: list[str], connection: socket.socket, outputs: tuple[IO[bytes], IO[bytes]], encoding: str
    ) -> None:
        self.args = args
        self.returncode: int | None = None
        self._connection, self._lines = connection, connection.makefile("r")
        self._outputs, self._encoding = outputs, encoding
        self.pid = int(self._lines.readline())

    def poll(self) -> int | None:
        """Return the exit code, None while the command runs."""
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float = HANG_S) -> int:
        """Return the exit code when the command has ended; TimeoutExpired after so many seconds."""
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
            self.returncode = int(self._lines.readline())
            self._lines.close()
            self._connection.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the command has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End the command at once."""
        self.send_signal(signal.SIGKILL)

    def printed(self) -> str:
        """Return what was written to stderr so far."""
        return os.pread(self._outputs[1].fileno(), 1 << 20, 0).decode(self._encoding, "replace")

    def communicate(self, timeout: float = HANG_S) -> tuple[str, str]:
        """Wait, and return what was written to stdout and stderr."""
        self.wait(timeout)
        out, err = (self._text(file) for file in self._outputs)
        return out, err

    def _text(self, file: IO[bytes]) -> str:
        with file:
            file.seek(0)
            return file.read().decode(self._encoding)


class CommandServer:
    """Starts the server process, and commands in it."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.path = folder / "socket"
        self.process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(self.path)],
            env={"OMP_NUM_THREADS": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.communicate()

    def start(
        self, *arguments: object, cwd: Path, env: Mapping[str, str], stdin: str | bytes = b""
    ) -> Command:
        """Start a command line of `tunewise` with exactly this environment."""
        words = [str(argument) for argument in arguments]
        out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 - Command reads them
        encoding = env.get("PYTHONIOENCODING", "utf-8")
        with tempfile.TemporaryFile() as given:
            given.write(stdin.encode() if isinstance(stdin, str) else stdin)
            given.seek(0)
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(str(self.path))
            socket.send_fds(connection, [b"!"], [given.fileno(), out.fileno(), err.fileno()])
        connection.sendall(json.dumps([words, str(cwd), dict(env)]).encode())
        connection.shutdown(socket.SHUT_WR)
        return Command(["tunewise", *words], connection, (out, err), encoding)

    def run(
        self,
        *arguments: object,
        cwd: Path,
        env: Mapping[str, str],
        stdin: str | bytes = b"",
        timeout: float = HANG_S,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command line to its end, as `subprocess.run` does."""
        command = self.start(*arguments, cwd=cwd, env=env, stdin=stdin)
        try:
            out, err = command.communicate(timeout)
        finally:
            command.kill()
        assert command.returncode is not None
        return subprocess.CompletedProcess(command.args, command.returncode, out, err)


def serve(path: str) -> None:
    """Listen at a path until this process is killed or its parent ends."""
    import gc
    import importlib

    import torch

    for name in PRELOADED:
        importlib.import_module(name)
    import advisor.cli

    torch.set_num_threads(1)
    gc.freeze()  # the collector of a child need not visit what is loaded so far
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    print("ready", flush=True)
    parent, callers = os.getppid(), dict[int, socket.socket]()
    watched: list[socket.socket | int] = [server, wake]
    while os.getppid() == parent:
        ready, _, _ = select.select(watched, [], [], 5)
        if wake in ready:
            os.read(wake, 4096)
            report_ended(callers)
        if server in ready:
            caller, _ = server.accept()
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                for inherited in (server, *callers.values()):
                    inherited.close()
                run_child(caller, advisor.cli.main)
            caller.sendall(f"{pid}\n".encode())
            callers[pid] = caller


def report_ended(callers: dict[int, socket.socket]) -> None:
    """Send the exit codes of the children that have ended to their callers, who may be gone."""
    while callers:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        with callers.pop(pid) as caller, contextlib.suppress(OSError):
            caller.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def run_child(caller: socket.socket, command: Any) -> None:
    """Run as the child: take over the caller's files, folder and environment, run the command, exit with its code."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _, files, _, _ = socket.recv_fds(caller, 1, 3)
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        arguments, folder, environment = json.loads(b"".join(iter(lambda: caller.recv(65536), b"")))
        caller.close()
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        # Python's own stream objects remember whether the server's files were seekable.
        encoding = environment.get("PYTHONIOENCODING", "utf-8")
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), "utf-8")
        sys.stdout, sys.stderr = (
            io.TextIOWrapper(
                io.BufferedWriter(io.FileIO(number, "w", closefd=False)), encoding, line_buffering=True
            )
            for number in (1, 2)
        )
        sys.argv = ["tunewise", *arguments]
        command(arguments)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])

"""torchrun on this machine: the script that is kept, and the same command run in this process.

torch.distributed.run parses the command and starts the processes; what it raises becomes a :class:`GroupEnd`, so that a
lost process is one clear line and no traceback of the launcher.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rag.errors import CannotRun, UsageProblem
from runners.distributed.environment import EXIT_FILE_ENV, RESTART_EXIT_CODE, RESUME_LINE_ENV
from runners.launch.group import LaunchedGroup, code_lines, export_lines, threads_per_process

OnRestart = Callable[[str], None]
"""Receives a line about a process that was lost and the restart that follows."""
_ELASTIC_LOGGERS = ("torch.distributed.elastic", "torch.distributed.run", "torch.distributed.launcher")
_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT") if hasattr(signal, name)
)


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """Where several nodes meet; without an endpoint the group is on this machine alone.

    Attributes:
        endpoint: host and port of one of the nodes, "" for one node.
        id: name of the group, the same on every node.
    """

    endpoint: str = ""
    id: str = "tunewise"

    def flags(self) -> tuple[str, ...]:
        """Return torchrun's flags, quoted for a shell."""
        if not self.endpoint:
            # The name of a machine need not lead to an address of its own; the loopback address always does.
            return ("--standalone", "--local-addr", "127.0.0.1")
        return (
            "--rdzv-backend",
            "c10d",
            "--rdzv-endpoint",
            shlex.quote(self.endpoint),
            "--rdzv-id",
            shlex.quote(self.id),
        )


@dataclass(frozen=True, slots=True)
class LostProcess:
    """The process that ended a group.

    Attributes:
        rank: its number.
        exit_code: its exit code; minus the number of the signal that killed it.
    """

    rank: int
    exit_code: int

    def describe(self, size: int) -> str:
        """Return what happened to it in words; ``size`` is the number of processes."""
        who = f"rank {self.rank} of {size}"
        if self.exit_code < 0:
            number = -self.exit_code
            known = number in set(signal.Signals)
            return f"{who} was killed by {signal.Signals(number).name if known else f'signal {number}'}"
        if self.exit_code == RESTART_EXIT_CODE:
            return f"{who} gave up: memory ran out, or another process was lost"
        return f"{who} ended with exit code {self.exit_code}"


@dataclass(frozen=True, slots=True)
class GroupEnd:
    """How a group ended.

    Attributes:
        code: exit code that its first process wrote down, None when it did not get that far.
        lost: the process that ended it, None when there is none.
        signal: number of the signal that stopped the launcher, 0 for none.
    """

    code: int | None
    lost: LostProcess | None = None
    signal: int = 0


def group_environment(
    group: LaunchedGroup, environ: Mapping[str, str], on_this_machine: bool
) -> dict[str, str]:
    """Return the variables that the processes of a node get beside those of the launcher.

    Args:
        group: the processes.
        environ: the launcher's variables; what the user has set stays.
        on_this_machine: whether all processes are on this machine.
    """
    # A folder named like one of our packages in the working folder must not be imported in its place.
    wanted = {"PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": str(threads_per_process(group.processes))}
    if on_this_machine and sys.platform == "linux":
        wanted["GLOO_SOCKET_IFNAME"] = "lo"
    return {name: value for name, value in wanted.items() if name not in environ}


def torchrun_script(
    group: LaunchedGroup,
    where: Rendezvous,
    environment: Mapping[str, str],
    folder: Path,
    exit_file: Path,
    resume: str,
) -> str:
    """Return the shell script that does what :func:`run_group` does.

    Args:
        group: the processes.
        where: where nodes meet.
        environment: variables of :func:`group_environment`.
        folder: the working folder, absolute.
        exit_file: file for the exit code of the first process, absolute.
        resume: the tunewise command that continues.
    """
    lines = [
        "#!/usr/bin/env bash",
        f"# tunewise on {group.nodes} x {group.processes} processes, by torchrun; {resume}".replace(
            "\n", " "
        ),
        "set -u",
        f"cd {shlex.quote(str(folder))} || exit",
        *export_lines({**environment, RESUME_LINE_ENV: resume}),
        *code_lines(exit_file, group.command(where.flags()), resume),
    ]
    return "\n".join(lines) + "\n"


def run_group(
    group: LaunchedGroup,
    where: Rendezvous,
    environment: Mapping[str, str],
    exit_file: Path,
    on_restart: OnRestart | None = None,
) -> GroupEnd:
    """Start the processes of this node, wait for them, and return how they ended. Imports torch.

    SIGINT and SIGTERM are passed on; the processes then have 30 s to write a checkpoint (torchrun's time).

    Args:
        group: the processes.
        where: where nodes meet.
        environment: variables of :func:`group_environment`.
        exit_file: file for the exit code of the first process.
        on_restart: receives a line for each restart; None to print torchrun's own log.

    Raises:
        UsageProblem: for an endpoint that torchrun cannot read.
        CannotRun: the nodes did not meet.
    """
    exit_file.unlink(missing_ok=True)
    # The launcher prints the command that continues, once.
    os.environ.update({**environment, EXIT_FILE_ENV: str(exit_file.resolve()), RESUME_LINE_ENV: ""})
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.run import parse_args, run

    command = shlex.split(group.command(where.flags()))
    lost, number = None, 0
    with _quiet_launcher(), _restarts_told(group, on_restart):
        try:
            run(parse_args(command[3:]))
        except ChildFailedError as error:
            failures = (LostProcess(rank, each.exitcode) for rank, each in error.failures.items())
            lost = min(failures, key=_loss_order)
        except SignalException as stopped:
            number = int(stopped.sigval)
            _kill_children()
        except (RendezvousError, ConnectionError) as error:
            raise CannotRun(
                f"the {group.nodes} nodes did not meet at {where.endpoint}: {error}",
                "start the same command on every node, with a port that the others can reach",
            ) from error
        except ValueError as error:
            if not where.endpoint:
                raise
            raise UsageProblem(f"--rdzv-endpoint {where.endpoint}: {error}", "give HOST:PORT") from error
    return GroupEnd(read_exit_code(exit_file), lost, number)


def read_exit_code(file: Path) -> int | None:
    """Return the exit code that the first process of a group wrote down; None when there is none."""
    with suppress(OSError, ValueError):
        return int(file.read_text("ascii"))
    return None


def _loss_order(lost: LostProcess) -> tuple[int, int]:
    """Return the place of a lost process among those of one moment, the first being the cause.

    The survivors of a lost process end as well, with the code that asks for a restart or, under NCCL, by SIGABRT. The times
    that torchrun gives are those at which it looked.
    """
    if lost.exit_code == RESTART_EXIT_CODE:
        return 3, lost.rank
    if lost.exit_code == -signal.SIGABRT:
        return 2, lost.rank
    return int(lost.exit_code > 0), lost.rank


def _kill_children() -> None:
    """Kill processes that are left after a second signal, which ends torchrun's waiting for them."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            child.kill()


class _RestartLog(logging.Handler):
    """Takes torchrun's log: nothing of it is printed but one line for each restart, through ``on_restart``."""

    def __init__(self, group: LaunchedGroup, on_restart: OnRestart) -> None:
        super().__init__()
        self.group = group
        self.on_restart = on_restart
        self.lost: list[LostProcess] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Remember a lost process; tell it when the group is started again."""
        values = record.args if isinstance(record.args, tuple) else ()
        if str(record.msg).startswith("failed (exitcode") and len(values) > 1:
            code, rank = (int(str(value)) for value in values[:2])
            self.lost.append(LostProcess(rank, code))
        elif "will restart worker group" in str(record.msg) and len(values) > 3:
            left, most = (int(str(value)) for value in values[2:4])
            lost = min(self.lost, key=_loss_order, default=None)
            what = (
                lost.describe(self.group.size if self.group.nodes == 1 else self.group.processes)
                if lost
                else ""
            )
            self.on_restart(f"{what or 'a process was lost'}; restart {most - left + 1} of {most}")
            self.lost.clear()


@contextmanager
def _restarts_told(group: LaunchedGroup, on_restart: OnRestart | None) -> Iterator[None]:
    """Replace torchrun's log by lines about restarts while the block runs; None leaves it."""
    if on_restart is None:
        yield
        return
    handler = _RestartLog(group, on_restart)
    loggers = [logging.getLogger(name) for name in _ELASTIC_LOGGERS]
    restarts = logging.getLogger("torch.distributed.elastic.agent.server.api")  # at the level of information
    level = restarts.level
    restarts.setLevel(logging.INFO)
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        restarts.setLevel(level)
        for logger in loggers:
            logger.removeHandler(handler)
            logger.propagate = True


@contextmanager
def _quiet_launcher() -> Iterator[None]:
    """Let torchrun leave no files and read no terminal while the block runs; restore signal handlers after it.

    Its processes have sessions of their own, in which the terminal cannot be read: they get an empty input.
    """
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="tunewise-") as folder, Path(os.devnull).open("rb") as empty:
        tempfile.tempdir = folder  # for the files of its log
        os.dup2(empty.fileno(), 0)
        try:
            yield
        finally:
            tempfile.tempdir = before
            for number, handler in handlers.items():
                signal.signal(number, handler)

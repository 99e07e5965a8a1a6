"""The command line in one of several processes that a launcher such as torchrun started.

Rank 0 runs the command. The others read no arguments: they take part in every training that rank 0 begins, and end with
it. So any command works under any launcher that sets torchrun's variables. Torch is imported when a training begins, and
in rank 0 when it ends.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from rag.errors import Problem
from runners.distributed import environment
from runners.distributed.environment import EXIT_FILE_ENV, RESTART_EXIT_CODE, GroupBroken, RestartGroup


def run_in_group(command: Callable[[], None]) -> None:
    """Run a command in rank 0, follow its trainings in the other processes; always ends the process.

    With the variable TUNEWISE_EXIT_FILE rank 0 writes its exit code there and ends with 0, unless the group has to be
    started again: the launcher would restart the group after any other code, and a refusal stays a refusal.

    Args:
        command: runs the command line; raises SystemExit.
    """
    try:
        environment.check_group_environment()
    except Problem as problem:
        if os.environ.get("TUNEWISE_DEBUG"):
            raise
        print(f"tunewise: {problem.message}\n  next: {problem.hint}", file=sys.stderr)
        raise SystemExit(problem.exit_code) from None
    if environment.world_size() == 1 and not os.environ.get(EXIT_FILE_ENV):
        command()
        return
    _end_with_launcher()
    code = follow_trainings() if environment.is_follower() else _lead(command)
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: what is left of a group that lost a process can wait for that process when Python frees it.
    os._exit(code)


def _end_with_launcher() -> None:
    """Let Linux send SIGTERM to this process when torchrun, its parent, is killed: it would go on with GPU and lock."""
    if sys.platform != "linux" or "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    import ctypes

    # prctl(PR_SET_PDEATHSIG, SIGTERM), see prctl(2); where it is refused, nothing is lost.
    ctypes.CDLL(None).prctl(1, int(signal.SIGTERM), 0, 0, 0)


def follow_trainings() -> int:
    """Take part in rank 0's trainings until none comes any more; return the exit code."""
    try:
        from runners.distributed.process_group import GroupEnded
        from runners.train import follow_training

        while True:
            try:
                follow_training()
            except GroupEnded:
                return 0
            except RestartGroup as restart:
                if not (isinstance(restart, GroupBroken) and environment.launcher_reports()):
                    print(f"tunewise: rank {environment.rank()}: {restart.message}", file=sys.stderr)
                return RESTART_EXIT_CODE
            except Problem:
                continue  # rank 0 raises the same, and reports it
    except KeyboardInterrupt:
        return 143
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1


def _lead(command: Callable[[], None]) -> int:
    """Run the command in rank 0, tell the others that it ended, and return the exit code for the launcher."""
    code = 1
    try:
        command()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    if code == RESTART_EXIT_CODE:
        return code
    # An interruption came from the launcher, which ends the others itself: one that has not started yet would be waited for.
    interrupted = code in (130, 143)
    if environment.world_size() > 1 and not (interrupted and "TORCHELASTIC_RUN_ID" in os.environ):
        _end_followers()
    file = os.environ.get(EXIT_FILE_ENV, "")
    if file and not interrupted:
        Path(file).write_text(str(code), encoding="utf-8")
        return 0
    return code


def _end_followers() -> None:
    """Tell the other processes that no training comes any more."""
    from runners.distributed.process_group import end_group

    try:
        end_group()
    except Exception as error:
        # The launcher and its store may be gone already; then it has ended the others itself.
        print(f"tunewise: the other processes could not be informed of the end: {error}", file=sys.stderr)

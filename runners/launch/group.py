"""The processes that a launcher starts: their command, the variables they share, and the shell around them.

Every process of a group runs the same tunewise command. torchrun's module starts them on one node; it is written in full
(``python -m torch.distributed.run``), so that the processes use the Python that tunewise is installed in.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runners.distributed.environment import EXIT_FILE_ENV

LAUNCHERS = ("torchrun", "slurm", "skypilot")
MAX_RESTARTS = 3
"""Restarts of the group where none are given. A group is restarted when memory ran out, with passes of half the size, and
when a process was lost; three halve a pass to an eighth. What a restart cannot help ends at once."""
SCRIPT_NAME = "torchrun.sh"
EXIT_FILE = "exit-code"
_ELASTIC = ("-m", "torch.distributed.run")


@dataclass(frozen=True, slots=True)
class LaunchedGroup:
    """Processes that carry out one tunewise command together.

    Attributes:
        arguments: the arguments of tunewise, the verb first.
        processes: number of processes on each node.
        nodes: number of nodes.
        max_restarts: how often the group is started again.
        python: the interpreter, a path.
    """

    arguments: tuple[str, ...]
    processes: int
    nodes: int = 1
    max_restarts: int = MAX_RESTARTS
    python: str = sys.executable

    @property
    def size(self) -> int:
        """Number of processes on all nodes."""
        return self.nodes * self.processes

    def command(self, rendezvous: Sequence[str], python: str = "", nodes: str = "", count: str = "") -> str:
        """Return the command that starts this node's processes, as a shell reads it.

        Args:
            rendezvous: torchrun's flags that say where the nodes meet; shell text, already quoted.
            python: shell text instead of the interpreter's path.
            nodes: shell text instead of the number of nodes, such as a variable that the scheduler sets.
            count: shell text instead of the number of processes on a node.
        """
        options = f"--nnodes {nodes or self.nodes} --nproc-per-node {count or self.processes}"
        start = f"{python or shlex.quote(self.python)} {' '.join(_ELASTIC)} {options}"
        rest = f"--max-restarts {self.max_restarts} -m advisor {shlex.join(self.arguments)}"
        return " ".join((start, *rendezvous, rest))


def threads_per_process(processes: int, cores: int | None = None) -> int:
    """Return the threads of each of the processes that share a node's cores, at least 1."""
    return max(1, (cores or usable_cores()) // processes)


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def export_lines(variables: Mapping[str, str]) -> list[str]:
    """Return a line of shell for each variable, the value quoted."""
    return [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]


def code_lines(exit_file: Path, command: str, resume: str) -> list[str]:
    """Return the lines of shell that run a group's command and end with the exit code of its first process.

    A process that refuses writes its exit code into a file and ends with 0, because torchrun would restart it otherwise.

    Args:
        exit_file: the file.
        command: the command, shell text.
        resume: the command that continues after a process was lost.
    """
    lost = '"tunewise: the group ended early, with exit code $code"'
    return [
        f"code_file={shlex.quote(str(exit_file))}",
        'rm -f "$code_file"',
        f'export {EXIT_FILE_ENV}="$code_file"',
        f"{command} && code=0 || code=$?",
        'if [ -s "$code_file" ]; then',
        '  read -r code <"$code_file" || true',
        'elif [ "$code" -ne 0 ]; then',
        f"  printf '%s\\n' {lost} {shlex.quote(f'  next: {resume}')} >&2",
        "fi",
        'exit "$code"',
    ]


def short_name(text: str, default: str = "run") -> str:
    """Return a name for a job or cluster: letters, digits and hyphens of the text, at most 40, beginning with a letter."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:40].strip("-")
    return f"tunewise-{name or default}"

"""Slurm: a batch script that starts torchrun once on each node, checked by ``sbatch --test-only`` and submitted.

The run folder, the model and the files of the plan must lie where all nodes see them. A requeued job (preempted, a node
lost, ``scontrol requeue``) goes on where it was: SLURM_RESTART_COUNT is seen by the processes.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rag.errors import CannotRun, UsageProblem
from runners.distributed.environment import RESUME_LINE_ENV
from runners.launch.group import LaunchedGroup, code_lines, export_lines

SCRIPT_FILE = "slurm.sh"
JOB_FILE = "slurm-job"
CORES_PER_GPU = 4
"""CPU cores asked for each GPU where no cpus-per-task is given: without any, Slurm gives one core to all processes of a
node. One computes, the others tokenize, read and write beside it."""
SIGNAL_SECONDS = 120
"""Seconds before the end of the job's time in which it is told to write a checkpoint; torchrun gives its processes 30."""
_OWN_OPTIONS = {
    "nodes": "--nodes",
    "N": "--nodes",
    "gpus-per-node": "--gpus-per-node and --gpu",
    "gres": "--gpus-per-node and --gpu",
    "ntasks": "--nodes",
    "n": "--nodes",
    "ntasks-per-node": "--nodes",
}
"""Options of sbatch that follow from a flag of tunewise."""
_UNFIT_OPTIONS = ("array", "a", "wrap", "output", "o", "chdir", "D", "open-mode", "parsable", "test-only")
"""Options that would make another script of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmJob:
    """What a batch script asks for and starts.

    Attributes:
        group: the processes; ``processes`` is 1 without GPUs.
        name: the job's name.
        folder: the working folder, absolute.
        launch_folder: folder of the script, its output and the exit code, absolute.
        resume: the tunewise command that continues.
        gpus: GPUs of each node, 0 for none.
        gpu: their type as the cluster names it, "" for any.
        options: further options of sbatch, as :func:`parse_options` returns them.
    """

    group: LaunchedGroup
    name: str
    folder: Path
    launch_folder: Path
    resume: str
    gpus: int = 0
    gpu: str = ""
    options: Mapping[str, str | None] | None = None

    def describe(self) -> str:
        """Return what the job asks for in words."""
        count = "1 node" if self.group.nodes == 1 else f"{self.group.nodes} nodes"
        return count + (
            f" with {self.gpus} {self.gpu or 'GPUs'}{' each' if self.group.nodes > 1 else ''}"
            if self.gpus
            else ""
        )

    def directives(self) -> dict[str, str | None]:
        """Return the options of sbatch by name; None for a switch."""
        asked: dict[str, str | None] = {
            "job-name": self.name,
            "nodes": str(self.group.nodes),
            "ntasks-per-node": "1",
        }
        if self.gpus:
            asked["gpus-per-node"] = f"{self.gpu}:{self.gpus}" if self.gpu else str(self.gpus)
            asked["cpus-per-task"] = str(CORES_PER_GPU * self.gpus)
        asked |= {
            "signal": f"TERM@{SIGNAL_SECONDS}",
            "requeue": None,
            "open-mode": "append",
            "output": f"{str(self.launch_folder).replace('%', '%%')}/slurm-%j.out",
        }
        return asked | dict(self.options or {})

    def script(self) -> str:
        """Return the batch script."""
        lines = [
            "#!/bin/bash",
            *(_directive(name, value) for name, value in self.directives().items()),
            "",
            "set -u",
            f"cd {shlex.quote(str(self.folder))} || exit",
            *export_lines({"PYTHONSAFEPATH": "1", RESUME_LINE_ENV: self.resume}),
            *_SET_UP.format(processes=self.group.processes).splitlines(),
            *code_lines(
                self.launch_folder / "exit-code", f"srun --kill-on-bad-exit=1 {self._start()}", self.resume
            ),
        ]
        return "\n".join(lines) + "\n"

    def _start(self) -> str:
        """Return the command of one node, shell text."""
        meeting = ("--rdzv-backend c10d", '--rdzv-id "$SLURM_JOB_ID"', '--rdzv-endpoint "$address:$port"')
        return self.group.command(meeting, nodes='"$SLURM_JOB_NUM_NODES"')


_SET_UP = """\
threads=$(( ${{SLURM_CPUS_ON_NODE:-1}} / {processes} ))
export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-$(( threads > 0 ? threads : 1 ))}}"
# srun of Slurm 22.05 and later takes the cores of a task from this variable alone.
if [ -n "${{SLURM_CPUS_PER_TASK:-}}" ]; then export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"; fi
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(scontrol show node "$first" | sed -n 's/.*NodeAddr=\\([^ ]*\\).*/\\1/p' | head -n 1)
port=$(( 20000 + SLURM_JOB_ID % 10000 ))
echo "job $SLURM_JOB_ID: $SLURM_JOB_NUM_NODES nodes, first $first ($address:$port), restart ${{SLURM_RESTART_COUNT:-0}}"
"""


def _directive(name: str, value: str | None) -> str:
    """Return one line of sbatch options; a value with spaces is quoted as sbatch reads it."""
    if value is None:
        return f"#SBATCH --{name}"
    return f"#SBATCH --{name}={shlex.quote(value)}"


def parse_options(given: Sequence[str]) -> dict[str, str | None]:
    """Return options of sbatch by name, without leading hyphens; None for a switch.

    Args:
        given: options such as ``--account=physics``, ``partition=gpu`` or ``exclusive``.

    Raises:
        UsageProblem: for an option that another flag sets, or that would make another job of it.
    """
    options: dict[str, str | None] = {}
    for text in given:
        name, separator, value = text.strip().lstrip("-").partition("=")
        if not name or any(letter.isspace() for letter in name) or "\n" in value:
            raise UsageProblem(
                f"--sbatch {text!r} is no option of sbatch", "for instance --sbatch time=04:00:00"
            )
        if name in _OWN_OPTIONS:
            raise UsageProblem(f"--sbatch {name} is set by tunewise", f"use {_OWN_OPTIONS[name]}")
        if name in _UNFIT_OPTIONS:
            raise UsageProblem(f"--sbatch {name} cannot be changed here", "remove it")
        options[name] = value if separator else None
    return options


def check_job(script: Path, asked: str) -> None:
    """Let Slurm say whether it could run a batch script; nothing is submitted.

    Args:
        script: the script.
        asked: what it asks for, in words.

    Raises:
        CannotRun: Slurm is not on this machine, or refuses the job; the script stays where it is.
    """
    if shutil.which("sbatch") is None:
        raise CannotRun(
            "there is no sbatch on this machine",
            f"the script is kept; on a machine of the cluster: sbatch {shlex.quote(str(script))}",
        )
    _sbatch("--test-only", script, f" of {asked}")


def submit_job(script: Path) -> str:
    """Submit a batch script and return the id of the job; CannotRun where Slurm refuses it."""
    return _sbatch("--parsable", script).split(";")[0].strip()


def active_job(launch_folder: Path) -> str:
    """Return the id of the job submitted last from a folder while Slurm still has it queued or running, else ""."""
    file = launch_folder / JOB_FILE
    if not file.is_file() or shutil.which("squeue") is None:
        return ""
    job = file.read_text("ascii", "replace").strip()
    listed = _run("squeue", "--noheader", "--format=%i", f"--jobs={job}") if job.isdecimal() else None
    return job if listed is not None and listed.returncode == 0 and listed.stdout.strip() else ""


def _sbatch(option: str, script: Path, asked: str = "") -> str:
    """Run sbatch with an option and return its output; CannotRun with its reason where it refuses."""
    done = _run("sbatch", option, str(script))
    if done.returncode:
        raise CannotRun(
            f"Slurm refuses the job{asked}: {_reason(done.stderr)}", f"the script is kept: {script}"
        )
    return done.stdout


def _reason(text: str) -> str:
    """Return what sbatch says in one line, without its own name."""
    lines = [line.strip().removeprefix("sbatch: ").removeprefix("error: ") for line in text.splitlines()]
    return "; ".join(dict.fromkeys(line for line in lines if line)) or "it gives no reason"


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        stdin=subprocess.DEVNULL,
    )

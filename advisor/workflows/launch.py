"""The work behind ``--launcher`` of ``tunewise run`` and ``train``: several processes by torchrun, Slurm or SkyPilot.

The flags are checked, the script or command is shown, kept in the launch folder, and used. Every process gets the command
line that was given, without the flags of the launcher and with ``--resume``.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from advisor.flags.launch import LaunchFlags
from advisor.flags.records import given_flags
from advisor.output import command_line, emit_result, is_verbose, note, output_format
from rag.errors import BadInput, CannotRun, GateNotMet, UsageProblem
from rag.files import disk_full_as_problem, has_active_writer, write_text
from rag.text.words import count_noun
from runners.distributed.environment import RESTART_EXIT_CODE, was_restarted, world_size
from runners.launch import skypilot, slurm, torchrun
from runners.launch.group import (
    EXIT_FILE,
    LAUNCHERS,
    MAX_RESTARTS,
    SCRIPT_NAME,
    LaunchedGroup,
    short_name,
)
from runners.resources.device import torch_build
from runners.resources.gpu import MachineProbe, find_gpu

_LAUNCH_PARAMETERS = {field.name for field in fields(LaunchFlags)}
_PATHS_OR_TEXTS = ("model", "prompt")
_NOT_REPEATED = ("resume", "overwrite", "out")


@dataclass(frozen=True, slots=True)
class GivenCommand:
    """A command line as it was given, taken apart.

    Attributes:
        verb: run or train.
        options: options of all verbs, such as ``--quiet``.
        arguments: arguments and options of the verb but for those below.
        launch: the flags of the launcher but for --print.
        paths: the same as ``arguments`` with absolute paths.
    """

    verb: str
    options: tuple[str, ...]
    arguments: tuple[str, ...]
    paths: tuple[str, ...]
    launch: tuple[str, ...]

    @classmethod
    def from_context(cls, context: Any) -> GivenCommand:
        """Take the command line of a Typer context apart.

        What was not given on the command line is left out, so that every process chooses it in the same way.
        """
        parts: dict[str, list[str]] = {"arguments": [], "paths": [], "launch": []}
        for param in sorted(context.command.params, key=lambda param: param.param_type_name != "argument"):
            name, value = str(param.name), context.params.get(param.name)
            if name in _NOT_REPEATED or name == "print_only" or not _is_given(context, name):
                continue
            if name in _LAUNCH_PARAMETERS:
                parts["launch"] += _as_written(param, value)
                continue
            parts["arguments"] += _as_written(param, value)
            parts["paths"] += _as_written(param, _absolute(name, value))
        options: list[str] = []
        parent = context.parent
        for param in parent.command.params if parent else ():
            if _is_given(parent, str(param.name)) and param.name not in ("version", "help"):
                options += _as_written(param, parent.params.get(param.name))
        return cls(
            str(context.info_name),
            tuple(options),
            tuple(parts["arguments"]),
            tuple(parts["paths"]),
            tuple(parts["launch"]),
        )

    def for_process(self, out: Path, absolute: bool) -> tuple[str, ...]:
        """Return the arguments of each process of the group, which writes to ``out``."""
        given = self.paths if absolute else self.arguments
        return (*self.options, self.verb, *given, "--out", str(out), "--resume")

    def resume_line(self, out: Path) -> str:
        """Return the command that starts the launcher again and continues."""
        return command_line(*self.options, self.verb, *self.arguments, "--out", out, *self.launch, "--resume")


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """The flags of the launcher and the command line that they are part of."""

    flags: LaunchFlags
    command: GivenCommand


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a group is to carry out.

    Attributes:
        command: the command line.
        out: the run folder, or the folder of the tuned weights.
        launch_folder: folder of the script, of Slurm's output and of the exit code.
        written: folder whose lock is held while the work runs.
        make_way: checks that ``out`` may be written and removes what --overwrite replaces; called with False it only checks.
        overwrite: whether --overwrite was given.
        files: files and folders that the command reads.
        planned_gpus: GPUs of a node that the plan was made for, None when it does not say.
    """

    command: GivenCommand
    out: Path
    launch_folder: Path
    written: Path
    make_way: Callable[[bool], None]
    overwrite: bool = False
    files: Sequence[Path] = ()
    planned_gpus: int | None = None


def launch_request(context: Any, flags: LaunchFlags, excluded: Mapping[str, bool]) -> LaunchRequest | None:
    """Return the launcher's flags and the command line; None without --launcher.

    Args:
        context: Typer's context of the verb.
        flags: the flags of the launcher.
        excluded: flags of the verb that a launcher cannot carry out, and whether each was given.

    Raises:
        UsageProblem: for flags that cannot be combined or have no meaning.
    """
    _refuse_bad_flags(flags, excluded)
    return LaunchRequest(flags, GivenCommand.from_context(context)) if flags.launcher else None


def _refuse_bad_flags(flags: LaunchFlags, excluded: Mapping[str, bool]) -> None:
    """Raise UsageProblem for flags that cannot be combined or have no meaning."""
    given = given_flags(flags)
    if flags.launcher is None:
        for name in given:
            raise UsageProblem(f"{name} needs a launcher", f"give --launcher: {', '.join(LAUNCHERS)}")
        return
    if flags.launcher not in LAUNCHERS:
        raise UsageProblem(f"--launcher {flags.launcher} is unknown", f"choose one of {', '.join(LAUNCHERS)}")
    for name in (name for name, was_given in excluded.items() if was_given):
        raise UsageProblem(
            f"{name} and --launcher exclude each other", f"remove one of them: {name} is work for one process"
        )
    if world_size() > 1:
        raise UsageProblem("--launcher inside a group that a launcher started", "remove --launcher")
    lowest = {"--nodes": 1, "--gpus-per-node": int(flags.launcher == "torchrun"), "--max-restarts": 0}
    for name, least in lowest.items():
        if name in given and given[name] < least:
            raise UsageProblem(f"{name} {given[name]} is too small", f"at least {least}")
    _refuse_flags_of_others(flags)


def _refuse_flags_of_others(flags: LaunchFlags) -> None:
    """Raise UsageProblem for a flag that another launcher takes, or for several nodes of torchrun without an endpoint."""
    takers: dict[str, tuple[str, ...]] = {
        "--rdzv-endpoint": ("torchrun",),
        "--rdzv-id": ("torchrun",),
        "--sbatch": ("slurm",),
        "--gpu": ("slurm", "skypilot"),
    }
    for name in given_flags(flags):
        if name in takers and flags.launcher not in takers[name]:
            raise UsageProblem(
                f"{name} is not for --launcher {flags.launcher}", f"it is for {' and '.join(takers[name])}"
            )
    several = flags.launcher == "torchrun" and (flags.nodes or 1) > 1
    if several and not flags.rdzv_endpoint:
        raise UsageProblem(
            f"torchrun on {flags.nodes} nodes has to know where they meet",
            "run this command on every node, with --rdzv-endpoint HOST:PORT naming one of them",
        )
    if flags.rdzv_endpoint and not several:
        raise UsageProblem("--rdzv-endpoint is for several nodes", "give --nodes N, at least 2")
    if flags.launcher == "skypilot" and flags.gpus_per_node != 0 and not flags.gpu:
        raise UsageProblem(
            "SkyPilot has to know which GPU to rent", "give --gpu, for instance H100, or --gpus-per-node 0"
        )
    if flags.gpu and flags.gpus_per_node == 0:
        raise UsageProblem("--gpu and --gpus-per-node 0 exclude each other", "remove one of them")


def settle_resumption(resume: bool, overwrite: bool) -> tuple[bool, bool]:
    """Return whether to resume and whether to replace; a process that its launcher has started again resumes anyway."""
    if was_restarted():
        note("started again by the launcher: it continues where it was")
        return True, False
    if resume and overwrite:
        raise UsageProblem("--resume and --overwrite exclude each other", "choose one")
    return resume, overwrite


def start_launcher(flags: LaunchFlags, work: Work) -> None:
    """Start the work on a group of processes, or show what would be started.

    Raises:
        UsageProblem: for a group that cannot be started so.
        BadInput: another process is writing there, or a job for it is still in Slurm's queue.
        CannotRun: the launcher is not here or refuses, or a process was lost.
        SystemExit: with the exit code of the group, or after a signal.
    """
    if flags.launcher == "torchrun":
        _launch_torchrun(flags, work)
    elif flags.launcher == "slurm":
        _launch_slurm(flags, work)
    else:
        _launch_skypilot(flags, work)


def _launch_torchrun(flags: LaunchFlags, work: Work) -> None:
    nodes = flags.nodes or 1
    if nodes > 1 and work.overwrite:
        raise UsageProblem(
            f"--overwrite with {nodes} nodes: each of them would remove {work.out}",
            "remove it first, or name another --out",
        )
    arguments = work.command.for_process(work.out, absolute=False)
    group = _group(flags, arguments, _processes_here(flags.gpus_per_node))
    where = torchrun.Rendezvous(flags.rdzv_endpoint or "", flags.rdzv_id or "tunewise")
    environment = torchrun.group_environment(group, os.environ, nodes == 1)
    exit_file = work.launch_folder.absolute() / EXIT_FILE
    resume = work.command.resume_line(work.out)
    text = torchrun.torchrun_script(group, where, environment, Path.cwd(), exit_file, resume)
    if flags.print_only:
        print(text, end="")
        return
    script = _keep(work, SCRIPT_NAME, text)
    _replace(work, script, text)
    threads = environment.get("OMP_NUM_THREADS")
    note(
        f"{group.size} processes by torchrun{f', OMP_NUM_THREADS {threads} each' if threads else ''}; saved as {script}:"
    )
    note(f"  {group.command(where.flags())}")
    on_restart = None if is_verbose() or os.environ.get("TUNEWISE_DEBUG") else _tell_restart
    end = torchrun.run_group(group, where, environment, exit_file, on_restart)
    _finish(end, group, resume)


def _processes_here(given: int | None) -> int:
    """Return the number of processes on this machine: those given, by default one for each GPU."""
    gpu = find_gpu(MachineProbe(torch_build=torch_build()))
    if gpu.kind == "none":
        if given is None:
            raise UsageProblem(
                "there is no GPU here, so the number of processes must be given",
                "--gpus-per-node G: so many processes share the CPU",
            )
        note(f"no GPU is used ({gpu.how}): {given} processes share the CPU")
        return given
    if given is not None and given > gpu.count:
        raise CannotRun(
            f"--gpus-per-node {given}: this machine has {count_noun(gpu.count, 'GPU')} ({gpu.how})",
            f"--gpus-per-node {gpu.count} at most",
        )
    return given or gpu.count


def _finish(end: torchrun.GroupEnd, group: LaunchedGroup, resume: str) -> None:
    """End as the group did: with the exit code of its first process, or with the process that was lost in one line."""
    if end.signal or end.code in (130, 143):
        print(f"\ninterrupted; finished parts are saved. Continue with:\n  {resume}", file=sys.stderr)
        raise SystemExit(128 + end.signal if end.signal else end.code)
    if end.code is not None and end.code != RESTART_EXIT_CODE:
        if end.lost and end.code == 0:
            note(f"when the work was done, {end.lost.describe(group.size)}")
        raise SystemExit(end.code)
    if end.lost is None:
        return
    many = group.max_restarts
    restarts = f", after {many} restart{'s' if many > 1 else ''}" if many else ""
    problem = CannotRun(end.lost.describe(group.size) + restarts, resume)
    if 0 < end.lost.exit_code <= GateNotMet.exit_code:  # the code of a tunewise that has printed why
        problem.exit_code = end.lost.exit_code
    raise problem


def _launch_slurm(flags: LaunchFlags, work: Work) -> None:
    gpus = flags.gpus_per_node if flags.gpus_per_node is not None else work.planned_gpus
    if gpus is None:
        raise UsageProblem(
            "Slurm has to know how many GPUs of a node are used",
            "give --gpus-per-node G; 0 for nodes without",
        )
    arguments = work.command.for_process(work.out.absolute(), absolute=True)
    folder = work.launch_folder.absolute()
    job = slurm.SlurmJob(
        group=_group(flags, arguments, max(1, gpus)),
        name=short_name(work.out.name),
        folder=Path.cwd(),
        launch_folder=folder,
        resume=work.command.resume_line(work.out),
        gpus=gpus,
        gpu=flags.gpu or "",
        options=slurm.parse_options(flags.sbatch or ()),
    )
    text = job.script()
    if flags.print_only:
        print(text, end="")
        return
    if active := slurm.active_job(folder):
        raise BadInput(
            f"job {active} for {work.out} is still queued or running",
            f"wait for it, or end it: scancel {active}",
        )
    script = _keep(work, slurm.SCRIPT_FILE, text)
    slurm.check_job(script, job.describe())
    _replace(work, script, text)
    number = slurm.submit_job(script)
    write_text(folder / slurm.JOB_FILE, number + "\n")
    output = folder / f"slurm-{number}.out"
    if output_format() != "human":
        emit_result(
            {"schema": 1, "launcher": "slurm", "job": number, "script": str(script), "output": str(output)}
        )
        return
    print(
        f"job {number}: {job.describe()}, {count_noun(job.group.size, 'process', 'processes')}; saved as {script}"
    )
    print(f"follow it: squeue -j {number}\n           tail -F {shlex.quote(str(output))}")


def _launch_skypilot(flags: LaunchFlags, work: Work) -> None:
    out = Path("runs") / work.out.name
    gpus = 1 if flags.gpus_per_node is None else flags.gpus_per_node
    task = skypilot.SkyTask(
        _group(flags, work.command.for_process(out, absolute=True), max(1, gpus)),
        short_name(work.out.name).lower(),
        out,
        [file.absolute() for file in dict.fromkeys(work.files) if file.exists()],
        flags.gpu or "",
    )
    text = task.text(work.launch_folder / skypilot.TASK_FILE)
    if flags.print_only:
        print(text, end="")
        return
    file = _keep(work, skypilot.TASK_FILE, text)
    note(f"checked by SkyPilot's parser only; saved as {file}")
    raise SystemExit(skypilot.start_task(task, file))


def _group(flags: LaunchFlags, arguments: tuple[str, ...], processes: int) -> LaunchedGroup:
    restarts = MAX_RESTARTS if flags.max_restarts is None else flags.max_restarts
    return LaunchedGroup(arguments, processes, flags.nodes or 1, restarts)


def _keep(work: Work, name: str, text: str) -> Path:
    """Check that the work may begin, and keep the script in the launch folder; nothing is removed."""
    if has_active_writer(work.written):
        raise BadInput(
            f"{work.out} is being written by another process", "wait until it has finished, or stop it"
        )
    work.make_way(False)
    return _write_script(work.launch_folder / name, text)


def _replace(work: Work, script: Path, text: str) -> None:
    """Remove what --overwrite replaces; the script, which may have been in it, is written again."""
    if work.overwrite:
        work.make_way(True)
        _write_script(script, text)


def _write_script(file: Path, text: str) -> Path:
    with disk_full_as_problem(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, text)
    if text.startswith("#!"):
        file.chmod(0o755)
    return file


def _tell_restart(line: str) -> None:
    print(f"tunewise: {line}", file=sys.stderr)


def _is_given(context: Any, name: str) -> bool:
    """Return whether a parameter was given on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _as_written(param: Any, value: Any) -> list[str]:
    """Return an argument or option as it is written on a command line; a list is repeated."""
    if param.param_type_name == "argument":
        return [str(value)]
    if isinstance(value, bool):
        return [param.opts[0] if value else param.secondary_opts[0]]
    values = value if isinstance(value, list | tuple) else [value]
    return [part for each in values for part in (param.opts[0], str(each))]


def _absolute(name: str, value: Any) -> Any:
    """Return a path as an absolute one; also a text where a text may name a file or folder that is there."""
    if isinstance(value, Path) or (name in _PATHS_OR_TEXTS and value and Path(value).exists()):
        return Path(value).absolute()
    return value

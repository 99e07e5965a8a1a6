"""What a launcher told this process about its group, read from environment variables. Imports no torch.

torchrun and most other launchers set the same variables for every process they start: RANK and WORLD_SIZE over all
nodes, LOCAL_RANK and LOCAL_WORLD_SIZE on one node, MASTER_ADDR and MASTER_PORT for the rendezvous
(https://docs.pytorch.org/docs/stable/elastic/run.html#environment-variables).
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from rag.errors import CannotRun, UsageProblem

EXIT_FILE_ENV = "TUNEWISE_EXIT_FILE"
"""File for the exit code of rank 0. torchrun restarts its processes whenever one ends with another code than 0; with
this file, a refusal that a restart cannot help (bad data, a full disk) is written here and the process ends with 0."""
GROUP_TIMEOUT_ENV = "TUNEWISE_GROUP_TIMEOUT_S"
"""Seconds that a process waits for the others of its group before it gives up."""
RESUME_LINE_ENV = "TUNEWISE_RESUME_LINE"
"""Command that continues the work, as a process prints it when it is interrupted: that of the launcher, not its own. Where
it is empty, the launcher prints the command itself."""
RESTART_EXIT_CODE = 75
"""Exit code of a process whose group should be started again (EX_TEMPFAIL of sysexits.h): memory ran out and the size of
the forward passes was halved on disk, or another process of the group was lost."""
WHOLE_COPIES = "parallel: ddp in the plan, --parallel ddp of tunewise train"
"""What to do instead of sharding a model, in words."""
DEFAULT_GROUP_TIMEOUT_S = 1800.0
"""Torch's own default for gloo; one process may write a checkpoint meanwhile."""
_GROUP_VARIABLES = ("RANK", "MASTER_ADDR", "MASTER_PORT")
_START_HINT = "start it with torchrun, or unset WORLD_SIZE"
_RESTART_COUNTS = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")


class RestartGroup(CannotRun):
    """The whole group has to be started again, and then continues from its last checkpoint."""

    exit_code = RESTART_EXIT_CODE


class GroupBroken(RestartGroup):
    """Another process of the group is gone or does not answer."""


def launcher_reports(environ: Mapping[str, str] | None = None) -> bool:
    """Return whether this project's launcher started the process, which says in one line how its group ended."""
    return (os.environ if environ is None else environ).get(RESUME_LINE_ENV) == ""


def world_size(environ: Mapping[str, str] | None = None) -> int:
    """Return the number of processes of the group over all nodes; 1 without a launcher."""
    return _number("WORLD_SIZE", 1, environ, least=1)


def rank(environ: Mapping[str, str] | None = None) -> int:
    """Return this process's number in the group, from 0; 0 without a launcher."""
    return _number("RANK", 0, environ)


def local_rank(environ: Mapping[str, str] | None = None) -> int:
    """Return this process's number on its node, from 0: the number of its GPU."""
    return _number("LOCAL_RANK", 0, environ)


def local_world_size(environ: Mapping[str, str] | None = None) -> int:
    """Return the number of processes of the group on this node, by default all of them."""
    return _number("LOCAL_WORLD_SIZE", world_size(environ), environ)


def node_count(environ: Mapping[str, str] | None = None) -> int:
    """Return the number of nodes of the group where all have as many processes as this one, else 1."""
    here, everywhere = local_world_size(environ), world_size(environ)
    return everywhere // here if here and everywhere % here == 0 else 1


def is_follower(environ: Mapping[str, str] | None = None) -> bool:
    """Return whether this process only takes part in trainings that rank 0 starts."""
    return world_size(environ) > 1 and rank(environ) > 0


def check_group_environment(environ: Mapping[str, str] | None = None) -> None:
    """Raise UsageProblem for variables that describe no group: not numbers, a rank outside it, or no place to meet."""
    environ = os.environ if environ is None else environ
    size, number = world_size(environ), rank(environ)
    for read in (local_rank, local_world_size, group_timeout_s, was_restarted):
        read(environ)
    if size < 2:
        return
    if missing := [name for name in _GROUP_VARIABLES if not environ.get(name, "").strip()]:
        raise UsageProblem(f"WORLD_SIZE={size} is set without {' and '.join(missing)}", _START_HINT)
    _number("MASTER_PORT", 0, environ)
    if number >= size:
        raise UsageProblem(f"RANK={number} is no process of WORLD_SIZE={size}, counted from 0", _START_HINT)


def weight_shards(method: str, parallel: str, environ: Mapping[str, str] | None = None) -> int:
    """Return over how many processes the weights of a training can be divided, for checks of memory before it.

    1 in one process, where whole copies are asked for, and for 4-bit weights, which stay whole unless asked for.

    Args:
        method: lora, qlora or full.
        parallel: One of :data:`runners.plan.train_config.PARALLELISMS`.
        environ: The environment; that of this process by default.
    """
    whole = parallel == "ddp" or (method == "qlora" and parallel != "fsdp_4bit")
    return 1 if whole else world_size(environ)


def was_restarted(environ: Mapping[str, str] | None = None) -> bool:
    """Return whether the launcher has started this work before: it then continues, whatever its flags say."""
    return any(_number(name, 0, environ) > 0 for name in _RESTART_COUNTS)


def group_timeout_s(environ: Mapping[str, str] | None = None) -> float:
    """Return the seconds that a process waits for the others; UsageProblem for a value that is no number above 0."""
    text = (os.environ if environ is None else environ).get(GROUP_TIMEOUT_ENV, "").strip()
    if not text:
        return DEFAULT_GROUP_TIMEOUT_S
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UsageProblem(f"{GROUP_TIMEOUT_ENV}={text} is no time to wait", "give seconds, for instance 600")
    return seconds


def _number(name: str, default: int, environ: Mapping[str, str] | None, least: int = 0) -> int:
    """Return a whole number of at least ``least`` from an environment variable; UsageProblem for anything else."""
    text = (os.environ if environ is None else environ).get(name, "").strip()
    if not text:
        return default
    if not text.isdecimal() or int(text) < least:
        raise UsageProblem(
            f"{name}={text} is no whole number from {least}", f"start it with torchrun, or unset {name}"
        )
    return int(text)

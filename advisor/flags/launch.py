"""The flags of a launcher, which `tunewise run` and `tunewise train` share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

from advisor import completion
from advisor.flags.records import flag

_flag = partial(flag, rich_help_panel="Several processes")


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchFlags:
    """The flags of the launcher; None where one was not given."""

    launcher: Annotated[
        str | None,
        _flag(
            "torchrun: a process for each GPU of this machine; slurm: a batch job, submitted; skypilot: rented machines "
            "(checked by SkyPilot's parser only).",
            autocompletion=completion.complete_launchers,
        ),
    ] = None
    nodes: Annotated[int | None, _flag("Machines that share the trainings; 1 by default.")] = None
    gpus_per_node: Annotated[
        int | None,
        _flag(
            "GPUs of each node, a process for each; with torchrun all of this machine by default, and on one without, the "
            "processes that share its CPU. 0 for Slurm's or SkyPilot's nodes without."
        ),
    ] = None
    gpu: Annotated[
        str | None, _flag("Type of the GPUs as Slurm or SkyPilot names it, for instance H100.")
    ] = None
    max_restarts: Annotated[
        int | None,
        _flag("How often the processes are started again when memory ran out or one was lost; 3 by default."),
    ] = None
    rdzv_endpoint: Annotated[
        str | None,
        _flag("HOST:PORT where torchrun on several nodes meets; give the same command on every node."),
    ] = None
    rdzv_id: Annotated[str | None, _flag("Name of the group that meets there; the same on every node.")] = (
        None
    )
    sbatch: Annotated[
        list[str] | None,
        _flag("An option of sbatch, for instance time=04:00:00, partition=gpu or account=NAME; repeatable."),
    ] = None
    print_only: Annotated[
        bool, _flag("Print the script or task, start nothing and write nothing.", "--print")
    ] = False

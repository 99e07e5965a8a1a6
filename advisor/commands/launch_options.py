"""The flags of a launcher, which `tunewise run` and `tunewise train` share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from advisor import completion

if TYPE_CHECKING:
    from advisor.workflows.launch import LaunchRequest

_PANEL = "Several processes"


def _flag(text: str, *names: str, **options: Any) -> Any:
    """Return a flag with its help, in the panel of the launcher."""
    return typer.Option(*names, help=text, rich_help_panel=_PANEL, **options)


Launcher = Annotated[
    str | None,
    _flag(
        "torchrun: a process for each GPU of this machine; slurm: a batch job, submitted; skypilot: rented machines "
        "(checked by SkyPilot's parser only).",
        autocompletion=completion.complete_launchers,
    ),
]
Nodes = Annotated[int | None, _flag("Machines that share the trainings; 1 by default.")]
GpusPerNode = Annotated[
    int | None,
    _flag(
        "GPUs of each node, a process for each; with torchrun all of this machine by default, and on one without, the "
        "processes that share its CPU. 0 for Slurm's or SkyPilot's nodes without."
    ),
]
GpuType = Annotated[str | None, _flag("Type of the GPUs as Slurm or SkyPilot names it, for instance H100.")]
MaxRestarts = Annotated[
    int | None,
    _flag("How often the processes are started again when memory ran out or one was lost; 3 by default."),
]
RdzvEndpoint = Annotated[
    str | None,
    _flag("HOST:PORT where torchrun on several nodes meets; give the same command on every node."),
]
RdzvId = Annotated[str | None, _flag("Name of the group that meets there; the same on every node.")]
Sbatch = Annotated[
    list[str] | None,
    _flag("An option of sbatch, for instance time=04:00:00, partition=gpu or account=NAME; repeatable."),
]
PrintOnly = Annotated[bool, _flag("Print the script or task, start nothing and write nothing.", "--print")]


def launch_request(
    context: typer.Context, values: Sequence[Any], excluded: Mapping[str, bool]
) -> LaunchRequest | None:
    """Return the launcher's flags and the command line; None without --launcher.

    Args:
        context: what was given on the command line.
        values: the values of the flags above, in their order.
        excluded: flags that a launcher cannot carry out, and whether each was given.
    """
    from advisor.workflows.launch import GivenCommand, LaunchFlags, LaunchRequest, check_launch_flags

    flags = LaunchFlags(*values)
    return (
        LaunchRequest(flags, GivenCommand.from_context(context))
        if check_launch_flags(flags, excluded)
        else None
    )

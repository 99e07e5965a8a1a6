"""The flags of a build by several processes, of `tunewise index build`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from advisor.workflows.index_cluster import ClusterFlags

_PANEL = "Several machines"


def _flag(text: str, **options: Any) -> Any:
    """Return a flag with its help, in the panel of the cluster."""
    return typer.Option(help=text, rich_help_panel=_PANEL, **options)


Engine = Annotated[
    str,
    _flag(
        "local: this process. ray: actors of Ray read, cut and embed, on this machine or a cluster; the index is the same "
        "to the byte."
    ),
]
Actors = Annotated[
    int | None,
    _flag("Actors; by default one for each CPU of Ray, or as many as its GPUs serve.", min=1),
]
ActorCpus = Annotated[
    float | None, _flag("CPUs of Ray that an actor reserves, 0.5 by default; it computes in one thread.")
]
ActorGpus = Annotated[
    float | None,
    _flag(
        "GPUs of Ray that an actor reserves for embedding, for instance 1 or 0.5; without it the CPU embeds."
    ),
]
RayAddress = Annotated[
    str | None, _flag("Address of a running Ray, or auto; without it one is started here, for this build.")
]
Shards = Annotated[
    str | None,
    _flag(
        "Folder or URL (s3://...) where finished parts are stored and stay, to continue this build after a stop and for "
        "later builds; without it a folder in the index, removed at the end."
    ),
]


def cluster_flags(values: Sequence[Any]) -> ClusterFlags:
    """Return the flags above, in their order, as one object."""
    from advisor.workflows.index_cluster import ClusterFlags

    return ClusterFlags(*values)

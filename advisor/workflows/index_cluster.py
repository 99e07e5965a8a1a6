"""The work behind ``tunewise index build --engine ray``: the flags checked, Ray started, the index built by shards."""

from __future__ import annotations

import io
import re
from contextlib import ExitStack, redirect_stdout
from typing import TYPE_CHECKING, Any

from advisor.flags.index import ClusterFlags
from advisor.flags.records import given_flags
from advisor.output import note
from rag.errors import UsageProblem
from rag.indexing.sharded.engine import ShardedBuild
from rag.indexing.sharded.ray_cluster import ActorOptions, RayCluster, require_ray
from rag.indexing.sharded.worker import EmbedderFolderSource
from rag.object_storage import check_url, is_url
from rag.text.words import count_noun

if TYPE_CHECKING:
    from rag.embedding.embedder import Embedder
    from rag.indexing.build import BuildEngine

ENGINES = ("local", "ray")
_ESCAPES = re.compile("\x1b\\[[0-9;]*m")


def check_cluster(flags: ClusterFlags, documents: str) -> None:
    """Raise UsageProblem for flags that do not go together, and for documents that the engine cannot read."""
    if flags.engine not in ENGINES:
        raise UsageProblem(f"there is no engine {flags.engine!r}", f"there are: {', '.join(ENGINES)}")
    given = [name for name in given_flags(flags) if name != "--engine"]
    if flags.engine == "local" and given:
        raise UsageProblem(f"{given[0]} is a flag of --engine ray", "give that as well, or remove it")
    if flags.engine == "local" and is_url(documents):
        raise UsageProblem(
            f"documents behind a URL are read by --engine ray only: {documents}",
            "give that, or copy them into a folder",
        )
    for name, number in given_flags(flags, "actor_cpus", "actor_gpus").items():
        if not 0 < number < 1e6:
            raise UsageProblem(f"{name} is {number:g}, but must be above 0", "give for instance 0.5")
    for text in (documents, flags.shards or ""):
        if is_url(text):
            check_url(text)
    if flags.engine == "ray":
        require_ray()


def refuse_cluster_for_database(flags: ClusterFlags, url: str) -> None:
    """Raise UsageProblem where another engine than this process is to build into a database."""
    if flags.engine != "local":
        raise UsageProblem(
            f"--engine {flags.engine} builds an index into a folder, not into {url}",
            f"then copy it without embedding again: tunewise index copy FOLDER --to {url}",
        )


def embedding_device(flags: ClusterFlags) -> str | None:
    """Return the device that embeds; None leaves the choice to the machine."""
    if flags.engine == "local":
        return None
    return "cuda" if flags.actor_gpus else "cpu"


def start_engine(flags: ClusterFlags, embedder: Embedder, stack: ExitStack) -> BuildEngine | None:
    """Return what carries out a build, None for this process; Ray, if it is started, ends with the stack."""
    if flags.engine == "local":
        return None
    given: dict[str, Any] = {
        "actors": flags.actors,
        "cpus": flags.actor_cpus,
        "gpus": flags.actor_gpus,
        "address": flags.ray_address,
    }
    options = ActorOptions(**{name: value for name, value in given.items() if value is not None})
    # Ray prints what its processes report on standard output, where --json has the report alone.
    stack.enter_context(redirect_stdout(_RayMessages()))
    cluster = stack.enter_context(RayCluster(options))
    note(f"Ray: {count_noun(cluster.actors, 'actor')}, {'GPU' if flags.actor_gpus else 'CPU'} embedding")
    return ShardedBuild(cluster, EmbedderFolderSource.of(embedder), flags.shards or "")


class _RayMessages(io.TextIOBase):
    """Standard output while Ray runs: the first sentence of each of its messages is shown on standard error."""

    def write(self, text: str) -> int:
        for line in _ESCAPES.sub("", text).splitlines():
            if sentence := line.partition(". ")[0].strip():
                note(f"  {sentence[:200]}")
        return len(text)

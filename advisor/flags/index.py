"""The flags of `tunewise index build` and `tunewise index tune`."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from advisor.flags import options
from advisor.flags.records import flag

DATABASE = (
    "The index in a database: postgresql://USER@HOST:PORT/DATABASE?index=NAME or lancedb:///FOLDER "
    "(docs/backends.md)."
)
_cluster = partial(flag, rich_help_panel="Several machines")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFlags:
    """The flags of a build by several processes; None where one was not given."""

    engine: Annotated[
        str,
        _cluster(
            "local: this process. ray: actors of Ray read, cut and embed, on this machine or a cluster; the index is the "
            "same to the byte."
        ),
    ] = "local"
    actors: Annotated[
        int | None,
        _cluster("Actors; by default one for each CPU of Ray, or as many as its GPUs serve.", min=1),
    ] = None
    actor_cpus: Annotated[
        float | None,
        _cluster("CPUs of Ray that an actor reserves, 0.5 by default; it computes in one thread."),
    ] = None
    actor_gpus: Annotated[
        float | None,
        _cluster(
            "GPUs of Ray that an actor reserves for embedding, for instance 1 or 0.5; without it the CPU embeds."
        ),
    ] = None
    ray_address: Annotated[
        str | None,
        _cluster("Address of a running Ray, or auto; without it one is started here, for this build."),
    ] = None
    shards: Annotated[
        str | None,
        _cluster(
            "Folder or URL (s3://...) where finished parts are stored and stay, to continue this build after a stop and for "
            "later builds; without it a folder in the index, removed at the end."
        ),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildFlags:
    """Documents to index, where to, and how vectors are made and searched."""

    index: Annotated[str | None, typer.Argument(help="The index folder; left out with --to.")] = None
    to: Annotated[str | None, flag(DATABASE, "--to")] = None
    documents: Annotated[
        str,
        flag("A folder, a file, or a .jsonl of document rows; with --engine ray also a URL (s3://...)."),
    ]
    embedder: Annotated[str, flag("The embedder: a known name or a folder.")] = options.EMBEDDER
    store: Annotated[
        str,
        flag(
            "How vectors are searched: flat (exact, the default), ivf (approximate, for many), or auto, which measures "
            "latency, size and recall and chooses."
        ),
    ] = "flat"
    truncate_dim: Annotated[
        int | None,
        flag("Dimensions of a vector to use (Matryoshka embedders); as the embedder says by default.", min=1),
    ] = None
    query_prompt: Annotated[
        str | None,
        flag(
            'Put before questions, "" for nothing. Without it, the embedder\'s own, or one known for its name.'
        ),
    ] = None
    document_prompt: Annotated[str | None, flag("Put before passages; else as --query-prompt.")] = None
    cluster: ClusterFlags = field(default_factory=ClusterFlags)
    as_json: options.Json = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneFlags:
    """An index whose settings are compared, and on which questions."""

    index: Annotated[str, typer.Argument(help="The index folder, or a run folder with an index.")]
    documents: Annotated[
        Path | None,
        flag("The documents of the index. Without it, the path of the last build or update."),
    ] = None
    questions: Annotated[
        Path | None,
        flag(
            "Questions with gold; without them some are made from the documents, and reported as synthetic."
        ),
    ] = None
    budget: Annotated[
        int, flag("Tokens of passages in one prompt, the same for every candidate.", min=64)
    ] = 1024
    reranker: Annotated[str, flag("Also try this reranker: the folder of a cross-encoder.")] = ""
    apply: Annotated[bool, flag("Rebuild the index with what was chosen.", "--apply")] = False
    all_dev: Annotated[
        bool,
        flag(
            "All questions of the file are dev questions: use every one that is not marked test.",
            "--all-dev",
        ),
    ] = False
    keep_made: Annotated[Path | None, flag("Write the questions that were made into this file.")] = None
    embedder: options.IndexEmbedder = options.EMBEDDER
    as_json: Annotated[bool, flag("Print as JSON, with every candidate.", "--json")] = False

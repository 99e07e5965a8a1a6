"""`tunewise index`: the retrieval index by itself."""

from __future__ import annotations

from pathlib import Path

import typer

group = typer.Typer(help="The retrieval index by itself: build, update, search, check and watch.")
EMBEDDER = "all-minilm-l6-v2"
_BUILT_WITH = "The embedder the index was built with: a known name or a folder."


@group.command("build")
def build(
    index: Path = typer.Argument(help="The index folder."),
    documents: Path = typer.Option(..., help="A folder, a file, or a .jsonl of document rows."),
    embedder: str = typer.Option(EMBEDDER, help="The embedder: a known name or a folder."),
    store: str = typer.Option(
        "flat",
        help="How vectors are searched: flat (exact, the default), exact (numpy), ivf, hnsw or sq8 "
        "(approximate, for many), or auto, which measures latency, size and recall and chooses.",
    ),
    as_json: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Build an index from documents; every file is indexed or named with the reason why not.

    What the folder held before answers until the new index is complete. An interrupted build goes on where it
    stopped, and a rebuild embeds only texts that were never embedded before.
    """
    from advisor.indexing import build_index

    build_index(index, documents, embedder, as_json, store)


@group.command("update")
def update(
    index: Path = typer.Argument(help="The index folder."),
    documents: Path = typer.Option(..., help="The documents as they are now."),
    embedder: str = typer.Option(EMBEDDER, help=_BUILT_WITH),
    purge: bool = typer.Option(
        False,
        "--purge",
        help="Leave nothing of what was removed: no older generation, no cached vector, no byte of text. "
        "Adapters that were trained on it are named.",
    ),
    trust_mtime: bool = typer.Option(
        False, "--trust-mtime", help="Do not read files whose size and time are as they were."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Bring an index up to date; only changed passages are embedded."""
    from advisor.indexing import update_index

    update_index(index, documents, embedder, as_json, purge, trust_mtime)


@group.command("search")
def search(
    index: Path = typer.Argument(help="The index folder."),
    question: str | None = typer.Argument(None, help="The question."),
    questions: Path | None = typer.Option(None, help="A file of questions, answered at once, one line each."),
    k: int = typer.Option(5, min=1, max=1000, help="How many passages."),
    embedder: str = typer.Option(EMBEDDER, help=_BUILT_WITH),
    as_json: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Search an index; with gold in the questions file, recall is printed to stderr."""
    from advisor.indexing import search_index

    search_index(index, question, questions, k, embedder, as_json)


@group.command("check")
def check(
    index: Path = typer.Argument(help="The index folder."),
    repair: bool = typer.Option(
        False, "--repair", help="Mend what is damaged: everything but the text itself can be made again."
    ),
    embedder: str = typer.Option(
        EMBEDDER, help="With --repair, the embedder, used only when vectors are lost everywhere."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Verify every file, row and vector of an index; damage is named and exits with 3."""
    from advisor.indexing import check_index

    check_index(index, repair, embedder, as_json)


@group.command("watch")
def watch(
    index: Path = typer.Argument(help="The index folder."),
    documents: Path = typer.Option(..., help="The documents to follow."),
    every: float = typer.Option(10.0, min=0.1, help="Seconds between two looks."),
    embedder: str = typer.Option(EMBEDDER, help=_BUILT_WITH),
    trust_mtime: bool = typer.Option(
        False, "--trust-mtime", help="Do not read files whose size and time are as they were."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print each change as one line of JSON."),
) -> None:
    """Keep an index in step with its documents, looking again and again until Ctrl-C."""
    from advisor.indexing import watch_index

    watch_index(index, documents, embedder, every, as_json, trust_mtime)

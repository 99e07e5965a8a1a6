"""`tunewise index`: the retrieval index by itself."""

from __future__ import annotations

from pathlib import Path

import typer

group = typer.Typer(help="The retrieval index by itself: build, update, search and check.")
EMBEDDER = "all-minilm-l6-v2"


@group.command("build")
def build(
    index: Path = typer.Argument(help="The index folder."),
    documents: Path = typer.Option(..., help="A folder, a file, or a .jsonl of document rows."),
    embedder: str = typer.Option(EMBEDDER, help="The embedder: a known name or a folder."),
    as_json: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Build an index from documents; every file is indexed or named with the reason why not."""
    from advisor.indexing import build_index

    build_index(index, documents, embedder, as_json, update=False)


@group.command("update")
def update(
    index: Path = typer.Argument(help="The index folder."),
    documents: Path = typer.Option(..., help="The documents as they are now."),
    embedder: str = typer.Option(EMBEDDER, help="The embedder the index was built with."),
    as_json: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Bring an index up to date; only changed chunks are embedded."""
    from advisor.indexing import build_index

    build_index(index, documents, embedder, as_json, update=True)


@group.command("search")
def search(
    index: Path = typer.Argument(help="The index folder."),
    question: str | None = typer.Argument(None, help="The question."),
    questions: Path | None = typer.Option(None, help="A file of questions, answered at once, one line each."),
    k: int = typer.Option(5, min=1, max=1000, help="How many passages."),
    embedder: str = typer.Option(EMBEDDER, help="The embedder the index was built with."),
    as_json: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Search an index; with gold in the questions file, recall is printed to stderr."""
    from advisor.indexing import search_index

    search_index(index, question, questions, k, embedder, as_json)


@group.command("check")
def check(index: Path = typer.Argument(help="The index folder.")) -> None:
    """Verify every file of an index against its manifest."""
    from advisor.indexing import check_index

    check_index(index)

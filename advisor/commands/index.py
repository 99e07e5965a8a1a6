"""`tunewise index`: the retrieval index by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advisor.flags import options
from advisor.flags.index import DATABASE, BuildFlags, TuneFlags
from advisor.flags.records import flag, takes_flags

group = typer.Typer(help="Build, update and search an index of documents by itself.")
INDEX = "The index folder, a run folder with an index, or the URL of an index in a database."
Index = Annotated[str, typer.Argument(help=INDEX)]
TrustMtime = Annotated[bool, flag("Do not read files whose size and time are as they were.", "--trust-mtime")]


@group.command("build")
@takes_flags
def build(flags: BuildFlags) -> None:
    """Build an index from documents.

    Every file is indexed, or named with the reason why not. An index that was there answers until the new one is
    complete. An interrupted build continues where it stopped, and a rebuild embeds only texts that are new.
    """
    from advisor.workflows.index_build import build_index

    build_index(flags)


@group.command("update")
def update(
    index: Annotated[str | None, typer.Argument(help=INDEX)] = None,
    to: Annotated[str | None, flag(DATABASE, "--to")] = None,
    documents: Path | None = typer.Option(
        None, help="The documents as they are now. Without it, the path of the last build or update."
    ),
    embedder: options.IndexEmbedder = options.EMBEDDER,
    purge: bool = typer.Option(
        False,
        "--purge",
        help="Leave nothing of what was removed: no older generation, no cached vector, no byte of text. "
        "Adapters that were trained on it are named.",
    ),
    trust_mtime: TrustMtime = False,
    as_json: options.Json = False,
) -> None:
    """Bring an index up to date; only changed passages are embedded."""
    from advisor.workflows.index_build import source_documents, target_index, update_index

    location = target_index(index, to)
    update_index(location, source_documents(location, documents), embedder, as_json, purge, trust_mtime)


@group.command("search")
def search(
    index: Index,
    question: str | None = typer.Argument(None, help="The question."),
    questions: Path | None = typer.Option(None, help="A file of questions, answered at once, one line each."),
    k: int = typer.Option(5, min=1, max=1000, help="How many passages."),
    where: list[str] = typer.Option(
        [],
        help="Search only documents whose metadata fulfil a condition: tags=ferry, doc=fares/, doc=*.pdf, "
        "author!=anon, price<=20, date>=2026-05 (quote < and >). Given again, all must be true.",
    ),
    as_of: str | None = typer.Option(
        None,
        help="Answer as on a day (2026-05-01): documents dated later are not known yet, those valid only until "
        "an earlier day have expired. Without it, today decides what has expired.",
    ),
    expired: bool = typer.Option(False, "--expired", help="Search expired documents too; they are marked."),
    neighbours: int = typer.Option(0, min=0, max=50, help="Passages before and after each hit to add to it."),
    per_source: int = typer.Option(0, min=0, help="Most hits from one document; 0 for no limit."),
    collapse: float = typer.Option(
        0.0,
        min=0.0,
        max=1.0,
        help="Share of a passage that must stand in a hit above it for it to be named there instead of being a "
        "hit itself: 1 collapses only what adds nothing, .9 also near repeats, 0 nothing.",
    ),
    reranker: str = typer.Option(
        "", help="A cross-encoder that puts the best candidates in order: a folder."
    ),
    rerank: int = typer.Option(30, min=1, max=1000, help="With --reranker, how many candidates it reads."),
    gate: Path | None = typer.Option(
        None,
        help="Dev questions: with --questions, fit on them when a question is refused, say for each whether it is, "
        "and give the hits in the order in which a model would be shown them.",
    ),
    gate_kind: str = typer.Option(
        "fitted", help="With --gate: fitted, lenient or off, as `refusal:` in a plan."
    ),
    most_wrong: float = typer.Option(
        0.05, min=0.001, max=0.999, help="With --gate, most answerable dev questions refused, as a share."
    ),
    embedder: options.IndexEmbedder = options.EMBEDDER,
    as_json: bool = typer.Option(
        False, "--json", help="Print as JSON, with the milliseconds of every stage."
    ),
) -> None:
    """Search an index by meaning and by words; filters are applied before ranking.

    With gold in the questions file, hit@k, recall and MRR are printed to stderr.
    """
    from advisor.workflows.index_build import index_path
    from advisor.workflows.index_search import GateRequest, SearchSource, search_file, search_index
    from rag.errors import BadInput, UsageProblem
    from rag.search.filters import Condition, parse_day
    from rag.search.query import Query

    if (question is None) == (questions is None):
        raise UsageProblem("give a question, or --questions FILE", 'tunewise index search INDEX "..."')
    if gate is not None and questions is None:
        raise UsageProblem("--gate is for a file of questions", "add --questions FILE")
    if gate_kind not in ("fitted", "lenient", "off"):
        raise UsageProblem(
            f"--gate-kind {gate_kind} is none of fitted, lenient, off", "see: tunewise index search --help"
        )
    if question is not None and not question.strip():
        raise BadInput("the question is empty", 'ask something: tunewise index search INDEX "opening hours"')
    query = Query(
        k=k,
        where=tuple(map(Condition.parse, where)),
        as_of=parse_day(as_of),
        expired=expired,
        neighbours=neighbours,
        per_source=per_source,
        collapse=collapse,
        rerank=rerank,
    )
    source = SearchSource(index_path(index), embedder, reranker)
    if questions is not None:
        request = GateRequest(dev=gate, gate=gate_kind, most_wrong=most_wrong) if gate else None
        search_file(source, questions, query, as_json, request)
    elif question is not None:
        search_index(source, question, query, as_json)


@group.command("check")
def check(
    index: Index,
    repair: bool = typer.Option(
        False,
        "--repair",
        help="Repair what is damaged: everything but the text itself can be computed again.",
    ),
    embedder: str = typer.Option(
        options.EMBEDDER, help="With --repair, the embedder, used only when vectors are lost everywhere."
    ),
    as_json: options.Json = False,
) -> None:
    """Verify every file, row and vector of an index; exit code 3 where one is damaged."""
    from advisor.workflows.index_build import check_index, index_path

    check_index(index_path(index), repair, embedder, as_json)


@group.command("copy")
def copy(
    index: Index,
    to: str = typer.Option(..., "--to", help=DATABASE),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace an index that is there already."),
    as_json: options.Json = False,
) -> None:
    """Copy an index into a database without embedding anything, and verify the copy.

    Counts, documents, chunks, every vector and the answers to 100 questions are compared; a difference exits with 3. The
    target is a URL: a folder is built from the documents by `tunewise index build`.
    """
    from advisor.workflows.index_copy import copy_to_url

    copy_to_url(index, to, overwrite, as_json)


@group.command("watch")
def watch(
    index: Index,
    documents: Path | None = typer.Option(
        None, help="The documents to follow. Without it, the path of the last build or update."
    ),
    every: float = typer.Option(10.0, min=0.1, help="Seconds between two checks."),
    embedder: options.IndexEmbedder = options.EMBEDDER,
    trust_mtime: TrustMtime = False,
    as_json: bool = typer.Option(False, "--json", help="Print each change as one line of JSON."),
) -> None:
    """Update an index whenever its documents change, until Ctrl-C."""
    from advisor.workflows.index_build import index_path, source_documents, watch_index

    location = index_path(index)
    watch_index(location, source_documents(location, documents), embedder, every, as_json, trust_mtime)


@group.command("tune")
@takes_flags
def tune(flags: TuneFlags) -> None:
    """Compare settings of an index on dev questions: passages, their size, and how they are ranked.

    Every candidate may use the same number of prompt tokens. The index keeps its settings unless one candidate is
    clearly better. Test questions are never read.
    """
    from advisor.workflows.index_tune import tune_index

    tune_index(flags)

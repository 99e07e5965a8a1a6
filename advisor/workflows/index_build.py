"""The work behind ``tunewise index`` build, update, check and watch.

Also :func:`adapters_knowing_removed`: which adapters were trained on documents that an update removed, because purging
an index does not change trained weights.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from advisor.display.events import print_event
from advisor.display.progress import watch_progress
from advisor.flags.index import BuildFlags
from advisor.output import emit_result, note
from advisor.workflows.index_cluster import (
    check_cluster,
    embedding_device,
    refuse_cluster_for_database,
    start_engine,
)
from rag.backends.base import backend_class, check_backend_url, shown_url
from rag.backends.build import build_folder
from rag.backends.consent import index_location
from rag.embedding.reranker import Reranker
from rag.errors import BadInput, UsageProblem
from rag.index import Index, watch_documents
from rag.indexing.generations import CURRENT_POINTER
from rag.loading.incremental import documents_path
from rag.loading.reader import require_documents
from rag.object_storage import is_url
from rag.settings import IndexSettings
from rag.text.bounded_yaml import load_yaml
from rag.text.words import count_noun
from runners.models import digests, resolve
from runners.resources.device import torch_device
from runners.run_folder import INDEX, RETRIEVER, TUNED_INDEX, is_run
from runners.runs.tuned_retrieval import EMBEDDER_FOLDER

if TYPE_CHECKING:
    from rag.indexing.build import BuildReport
    from rag.types import OnEvent


def adapters_knowing_removed(index: Path, removed: Collection[str]) -> list[str]:
    """Return a line for each adapter beside an index about whether it was trained on removed documents.

    Adapters are in the run folder that holds the index. Their training examples name the document behind a row as
    ``meta.doc_id``; an arm with retrieval-aware rows has also read passages of any document of the index.

    Args:
        index: the index folder.
        removed: ids of the removed documents.
    """
    run = index.resolve().parent
    arms = sorted(path.name for path in (run / "adapters").glob("*") if path.is_dir()) if removed else []
    if not arms:
        return []
    plan = _read_plan_dict(run / "plan.yaml")
    steps = [
        step for step in plan.get("steps") or [] if isinstance(step, dict) and step.get("kind") == "train"
    ]
    retrieval_arms = {str(step.get("arm")) for step in steps if step.get("rows") == "retrieval"}
    named, all_named = _documents_of_examples(run, plan)
    return [
        _adapter_line(arm, arm.rpartition("-s")[0] in retrieval_arms, named, all_named, removed)
        for arm in arms
    ]


def index_path(text: str) -> Path | str:
    """Return the index that a text names: a URL, the index of a run folder, or a folder.

    A run folder whose index is in a database gives its URL.

    Raises:
        UsageProblem: a URL of a database that cannot hold an index, or with a password.
        BadInput: a folder that stands for a URL at a host that the user has not allowed.
    """
    if "://" in text:
        check_backend_url(text)
        return text
    path = Path(text)
    inner = path / INDEX
    in_run = is_run(path) and not (path / CURRENT_POINTER).exists() and inner.is_dir()
    return index_location(inner if in_run else path)


def target_index(index: str | None, to: str | None) -> Path | str:
    """Return the index that is written, named by the argument or by ``--to``; UsageProblem for none or both."""
    if (index is None) == (to is None):
        raise UsageProblem(
            "name one index: its folder, or its URL after --to",
            "tunewise index build INDEX --documents PATH, or tunewise index build --to URL --documents PATH",
        )
    if to is not None and "://" not in to:
        raise UsageProblem(f"--to {to} is no URL", "a folder is given without --to")
    return index_path(index or to or "")


def local_index(text: str) -> Path:
    """Return the index folder that a text names; UsageProblem where the index is in a database."""
    location = index_path(text)
    if isinstance(location, str):
        raise UsageProblem(
            f"{shown_url(location)} is in a database, and this needs an index folder",
            "build one from the same documents: tunewise index build INDEX --documents PATH",
        )
    return location


def source_documents(index: Path | str, documents: Path | None) -> Path:
    """Return the documents to read: those given, else the path that the index was last built or updated from.

    Raises:
        UsageProblem: no path was given and the index does not record one, or the one recorded no longer exists.
    """
    if documents is not None:
        return documents
    shown = shown_url(index) if isinstance(index, str) else str(index)
    recorded = documents_path(build_folder(index) if isinstance(index, str) else index)
    if recorded is None:
        raise UsageProblem(
            f"{shown} does not record where its documents are", "name them once: --documents PATH"
        )
    if not recorded.exists():
        raise UsageProblem(
            f"the documents that {shown} was made from, {recorded}, no longer exist",
            "say where they are now: --documents PATH",
        )
    note(f"documents: {recorded}, as last time")
    return recorded


def build_index(flags: BuildFlags) -> None:
    """Build an index with these settings and print what was done with every file."""
    settings = IndexSettings(
        store=flags.store,
        truncate_dim=flags.truncate_dim,
        query_prompt=flags.query_prompt,
        document_prompt=flags.document_prompt,
    )
    folder, documents = target_index(flags.index, flags.to), flags.documents
    check_cluster(flags.cluster, documents)
    if not is_url(documents):
        require_documents(Path(documents))
    if isinstance(folder, str):
        refuse_cluster_for_database(flags.cluster, shown_url(folder))
        require_default_store(folder, settings)
        with backend_class(folder).writer(folder):
            pass  # a server that cannot be reached, or a right that is missing, is said before the embedder is loaded
    encoder = load_embedder(flags.embedder, embedding_device(flags.cluster))
    with watch_progress(flags.as_json) as watcher, keep_on_interrupt(folder), ExitStack() as stack:
        engine = start_engine(flags.cluster, encoder, stack)
        report = Index.build(folder, documents, encoder, settings, watcher, engine=engine)
    _print_report(folder, report, flags.as_json)


def require_default_store(url: str, settings: IndexSettings) -> None:
    """Raise UsageProblem where a vector store of index folders is asked for at a URL."""
    if settings.store != IndexSettings().store:
        raise UsageProblem(
            f"--store {settings.store} is for an index folder",
            f"{shown_url(url)} searches by the database's own index: add search=exact to the URL for exact search",
        )


def update_index(
    folder: Path | str, documents: Path, embedder: str, as_json: bool, purge: bool, trust_mtime: bool
) -> None:
    """Update an index to the current documents and print what was done with every file."""
    Index.open(folder).close()
    require_documents(documents)
    encoder = load_embedder(embedder)
    with watch_progress(as_json) as watcher, keep_on_interrupt(folder):
        report = Index.update(folder, documents, encoder, watcher, purge=purge, trust_mtime=trust_mtime)
        tuned = update_tuned_index(folder, documents, watcher, purge, trust_mtime)
    _print_report(folder, report, as_json)
    if tuned:
        note(
            f"the index of the tuned embedder too: {tuned.embedded:,} passages embedded, {tuned.seconds:.1f} s"
        )
    if purge and isinstance(folder, Path):
        for line in adapters_knowing_removed(folder, report.gone):
            print(line, file=sys.stderr)


def update_tuned_index(
    folder: Path | str,
    documents: Path,
    on_event: OnEvent | None = None,
    purge: bool = False,
    trust_mtime: bool = False,
) -> BuildReport | None:
    """Update the index of a run's tuned embedder to the same documents; None where a run has none, or for no run's index."""
    from rag.embedding.embedder import Embedder

    run = folder.resolve().parent if isinstance(folder, Path) else None
    if run is None or not (is_run(run) and (run / TUNED_INDEX).is_dir()):
        return None
    encoder = Embedder(run / RETRIEVER / EMBEDDER_FOLDER, device=_device())
    return Index.update(run / TUNED_INDEX, documents, encoder, on_event, purge=purge, trust_mtime=trust_mtime)


def _device() -> str:
    return str(torch_device().type)


def watch_index(
    folder: Path | str,
    documents: Path,
    embedder: str,
    every: float,
    as_json: bool,
    trust_mtime: bool,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Update an index again and again, printing a line for every change, until Ctrl-C."""

    def print_outcome(outcome: Any) -> bool:
        if isinstance(outcome, BadInput):
            print(f"{_clock()} not updated: {outcome.message}", file=sys.stderr)
        elif as_json and (outcome.indexed or outcome.removed):
            emit_result(outcome.to_json())
        elif outcome.indexed or outcome.removed:
            print(
                f"{_clock()} generation {outcome.generation}: {outcome.added} added, {outcome.changed} changed, "
                f"{outcome.removed} removed; {count_noun(outcome.embedded, 'passage')} embedded, {outcome.seconds:.1f} s",
                flush=True,
            )
        if not isinstance(outcome, BadInput) and (outcome.indexed or outcome.removed):
            update_tuned_index(folder, documents, trust_mtime=trust_mtime)
        return True

    encoder = load_embedder(embedder)
    note(f"watching {documents} every {every:g} s; Ctrl-C ends it")
    watch_documents(
        folder, documents, encoder, print_outcome, every=every, trust_mtime=trust_mtime, sleep=sleep
    )


@contextmanager
def keep_on_interrupt(folder: Path | str) -> Iterator[None]:
    """On Ctrl-C, print that the work is kept; the old index stays in use until the new one is complete."""
    try:
        yield
    except KeyboardInterrupt:
        work = build_folder(folder) if isinstance(folder, str) else folder
        print(
            f"\ninterrupted; what was embedded is saved in {work}: run the same command to continue",
            file=sys.stderr,
        )
        raise


def check_index(folder: Path | str, repair: bool, embedder: str, as_json: bool) -> None:
    """Verify an index, repairing it first where that was asked for, and print what it contains."""
    repaired = Index.repair(folder, lambda: load_embedder(embedder)) if repair else None
    index = Index.open(folder)
    body = index.check()
    index.close()
    if repaired:
        body |= {"damage": list(repaired.damage), "embedded": repaired.embedded}
    if as_json:
        emit_result(body)
        return
    for line in repaired.damage if repaired else ():
        print(f"mended: {line}")
    for key, value in body.items():
        if key not in ("schema", "damage"):
            print(f"{key}: {value if not isinstance(value, list) else ', '.join(map(str, value))}")


def load_embedder(name: str, device: str | None = None) -> Any:
    """Resolve and load an embedder; ``device`` is where it computes, None takes the best of this machine."""
    from rag.embedding.embedder import Embedder

    model = resolve.resolve_model(name, on_event=print_event)
    if model.kind != "embedder":
        raise BadInput(f"{name} is a {model.kind} model, not an embedder", "see: tunewise models list")
    device = device or torch_device().type
    return Embedder(model.folder, name=Path(model.name).name, device=device, digest=digests.file_sha256)


def load_reranker(name: str) -> Any:
    """Resolve and load a reranker: the folder of a cross-encoder, or its id where the model hub is allowed."""
    return Reranker(
        resolve.resolve_model(name).folder, name=name, device=torch_device().type, digest=digests.file_sha256
    )


def _adapter_line(
    arm: str, read_passages: bool, documents: Collection[str], all_named: bool, removed: Collection[str]
) -> str:
    named = sorted(set(documents) & set(removed))
    if named:
        shown = ", ".join(named[:3]) + (", ..." if len(named) > 3 else "")
        return f"the adapter {arm} was trained on removed documents ({shown}): train it again without them"
    if read_passages:
        return f"the adapter {arm} was trained with passages of this index, maybe of removed documents: train it again"
    if not all_named:
        which_rows = "not for every row" if documents else "for no row"
        return f"whether the adapter {arm} was trained on removed documents cannot be known: {which_rows} is one named"
    return f"the adapter {arm} was trained on rows of other documents only"


def _read_plan_dict(path: Path) -> dict[str, Any]:
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _documents_of_examples(run: Path, plan: dict[str, Any]) -> tuple[set[str], bool]:
    """Return the documents that the training examples name, and whether every row names one."""
    data = plan.get("data")
    name = data.get("examples") if isinstance(data, dict) else None
    try:
        rows = list(_rows(run / str(name))) if name else []
    except (OSError, ValueError):
        return set(), False
    doc_ids = [row["meta"].get("doc_id") if isinstance(row.get("meta"), dict) else None for row in rows]
    named = {doc_id for doc_id in doc_ids if isinstance(doc_id, str)}
    return named, bool(rows) and all(isinstance(doc_id, str) for doc_id in doc_ids)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line.strip() and isinstance(row := json.loads(line), dict):
            yield row


def _clock() -> str:
    return time.strftime("%H:%M:%S")


def _print_report(folder: Path | str, report: BuildReport, as_json: bool) -> None:
    if as_json:
        emit_result(report.to_json())
        return
    print(
        f"{count_noun(report.found, 'document')} found: {report.added} added, {report.changed} changed, "
        f"{report.unchanged} unchanged, {len(report.skipped)} skipped; {report.removed} removed"
    )
    for item in report.skipped:
        print(f"  skipped {item.path}: {item.reason}")
    for remark in report.remarks:
        print(f"  {remark}")
    for timing in report.stores:
        mark = "  <- used" if timing.store == report.store else ""
        print(
            f"  store {timing.store:5} {timing.ms:8.2f} ms a query, {timing.mib:8.1f} MiB, recall {timing.recall:.3f}{mark}"
        )
    cached = f" and {report.cached} from the cache" if report.cached else ""
    print(
        f"{count_noun(report.chunks, 'passage')}, {report.embedded} embedded{cached}, generation {report.generation}, "
        f"{report.seconds:.1f} s: {shown_url(folder) if isinstance(folder, str) else folder}"
    )

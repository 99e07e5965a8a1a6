"""The `tunewise index` verbs that make and keep an index: build, update, check and watch.

Which adapters were trained on documents that have been removed: an index forgets, weights do not.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from advisor.display.events import print_event
from advisor.output import emit_result, note
from rag.errors import BadInput

if TYPE_CHECKING:
    from rag.indexing.build import BuildReport


def adapters_knowing_removed(index: Path, removed: Collection[str]) -> list[str]:
    """Return one line per adapter beside an index that may know removed documents, or may not be known to.

    Adapters lie in the run folder that holds the index. Their examples name the document behind a row as
    ``meta.doc_id``; an arm of retrieval-aware rows has also read passages of any document of the index.
    """
    run = index.resolve().parent
    arms = sorted(p.name for p in (run / "adapters").glob("*") if p.is_dir()) if removed else []
    if not arms:
        return []
    plan = _plan(run / "plan.yaml")
    steps = [s for s in plan.get("steps") or [] if isinstance(s, dict) and s.get("kind") == "train"]
    reads = {str(step.get("arm")) for step in steps if step.get("rows") == "retrieval"}
    rows, every = _documents(run, plan)
    return [_line(arm, arm.rpartition("-s")[0] in reads, rows, every, removed) for arm in arms]


def _line(arm: str, reads: bool, rows: Collection[str], every: bool, removed: Collection[str]) -> str:
    named = sorted(set(rows) & set(removed))
    if named:
        shown = ", ".join(named[:3]) + (", ..." if len(named) > 3 else "")
        return f"the adapter {arm} was trained on removed documents ({shown}): train it again without them"
    if reads:
        return f"the adapter {arm} was trained with passages of this index, maybe of removed documents: train it again"
    if not every:
        few = "not for every row" if rows else "for no row"
        return (
            f"whether the adapter {arm} was trained on removed documents cannot be known: {few} is one named"
        )
    return f"the adapter {arm} was trained on rows of other documents only"


def _plan(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _documents(run: Path, plan: dict[str, Any]) -> tuple[set[str], bool]:
    """Return the documents that the examples name, and whether every row names one."""
    data = plan.get("data")
    name = data.get("examples") if isinstance(data, dict) else None
    try:
        rows = list(_rows(run / str(name))) if name else []
    except (OSError, ValueError):
        return set(), False
    found = [row["meta"].get("doc_id") if isinstance(row.get("meta"), dict) else None for row in rows]
    named = {doc for doc in found if isinstance(doc, str)}
    return named, bool(rows) and all(isinstance(doc, str) for doc in found)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and isinstance(row := json.loads(line), dict):
            yield row


def build_index(folder: Path, documents: Path, embedder: str, as_json: bool, store: str) -> None:
    """Build an index and print what was done with every file."""
    from advisor.display.progress import watch_progress
    from rag.index import Index
    from rag.loading.reader import require_documents
    from rag.settings import IndexSettings

    settings = IndexSettings(store=store)
    require_documents(documents)
    encoder = load_embedder(embedder)
    with watch_progress(as_json) as watcher, keep_on_interrupt(folder):
        report = Index.build(folder, documents, encoder, settings, watcher)
    _print_report(folder, report, as_json)


def update_index(
    folder: Path, documents: Path, embedder: str, as_json: bool, purge: bool, trust_mtime: bool
) -> None:
    """Bring an index to what the documents are now, and print what was done with every file."""
    from advisor.display.progress import watch_progress
    from rag.index import Index
    from rag.loading.reader import require_documents

    Index.open(folder)
    require_documents(documents)
    encoder = load_embedder(embedder)
    with watch_progress(as_json) as watcher, keep_on_interrupt(folder):
        report = Index.update(folder, documents, encoder, watcher, purge=purge, trust_mtime=trust_mtime)
    _print_report(folder, report, as_json)
    if purge:
        for line in adapters_knowing_removed(folder, report.gone):
            print(line, file=sys.stderr)


def watch_index(
    folder: Path,
    documents: Path,
    embedder: str,
    every: float,
    as_json: bool,
    trust_mtime: bool,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Update an index again and again, printing a line for every change, until it is interrupted."""
    from rag.index import watch_documents

    def hear(outcome: Any) -> bool:
        if isinstance(outcome, BadInput):
            print(f"{_clock()} not updated: {outcome.message}", file=sys.stderr)
        elif as_json and (outcome.indexed or outcome.removed):
            emit_result(outcome.to_json())
        elif outcome.indexed or outcome.removed:
            print(
                f"{_clock()} generation {outcome.generation}: {outcome.added} added, {outcome.changed} changed, "
                f"{outcome.removed} removed; {outcome.embedded} passages embedded, {outcome.seconds:.1f} s",
                flush=True,
            )
        return True

    encoder = load_embedder(embedder)
    note(f"watching {documents} every {every:g} s; Ctrl-C ends it")
    watch_documents(folder, documents, encoder, hear, every=every, trust_mtime=trust_mtime, sleep=sleep)


@contextmanager
def keep_on_interrupt(folder: Path) -> Iterator[None]:
    """Say on an interruption that the work is kept; the index answers as before until it is complete."""
    try:
        yield
    except KeyboardInterrupt:
        print(
            f"\ninterrupted; what was embedded is kept in {folder}: give the same command to go on",
            file=sys.stderr,
        )
        raise


def _clock() -> str:
    return time.strftime("%H:%M:%S")


def _print_report(folder: Path, report: BuildReport, as_json: bool) -> None:
    if as_json:
        emit_result(report.to_json())
        return
    print(
        f"{report.found} documents found: {report.added} added, {report.changed} changed, "
        f"{report.unchanged} unchanged, {len(report.skipped)} skipped; {report.removed} removed"
    )
    for item in report.skipped:
        print(f"  skipped {item.path}: {item.reason}")
    for remark in report.remarks:
        print(f"  {remark}")
    for each in report.stores:
        chosen = "  <- used" if each.store == report.store else ""
        print(
            f"  store {each.store:5} {each.ms:8.2f} ms a query, {each.mib:8.1f} MiB, recall {each.recall:.3f}{chosen}"
        )
    cached = f" and {report.cached} from the cache" if report.cached else ""
    print(
        f"{report.chunks} passages, {report.embedded} embedded{cached}, generation {report.generation}, "
        f"{report.seconds:.1f} s: {folder}"
    )


def check_index(folder: Path, repair: bool, embedder: str, as_json: bool) -> None:
    """Verify an index, mending it first where that was asked for, and print what it holds."""
    from rag.index import Index

    mended = Index.repair(folder, lambda: load_embedder(embedder)) if repair else None
    body = Index.open(folder).check()
    if mended:
        body |= {"damage": list(mended.damage), "embedded": mended.embedded}
    if as_json:
        emit_result(body)
        return
    for line in mended.damage if mended else ():
        print(f"mended: {line}")
    for key, value in body.items():
        if key not in ("schema", "damage"):
            print(f"{key}: {value if not isinstance(value, list) else ', '.join(map(str, value))}")


def load_embedder(name: str) -> Any:
    """Resolve and load an embedder."""
    from rag.embedding.embedder import Embedder
    from runners.models import resolve

    model = resolve.resolve_model(name, on_event=print_event)
    if model.kind != "embedder":
        raise BadInput(f"{name} is a {model.kind} model, not an embedder", "see: tunewise models list")
    return Embedder(model.folder)


def load_reranker(name: str) -> Any:
    """Resolve and load a reranker: the folder of a cross-encoder, or its id where the model hub is allowed."""
    from rag.embedding.reranker import Reranker
    from runners.models import resolve

    return Reranker(resolve.resolve_model(name).folder, name=name)

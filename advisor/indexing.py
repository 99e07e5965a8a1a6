"""The `tunewise index` verbs that make and keep an index: build, update, check and watch."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.output import emit, note
from advisor.telling import tell
from advisor.trained import still_knowing
from rag.errors import BadInput

if TYPE_CHECKING:
    from rag.report import BuildReport


def build_index(folder: Path, documents: Path, embedder: str, as_json: bool, store: str) -> None:
    """Build an index and print what was done with every file."""
    from advisor.progress import watching
    from rag.index import Index
    from rag.load.walk import need
    from rag.settings import IndexSettings

    settings = IndexSettings(store=store)
    need(documents)
    encoder = load_embedder(embedder)
    with watching(as_json) as watcher, keeping(folder):
        report = Index.build(folder, documents, encoder, settings, watcher)
    _print_report(folder, report, as_json)


def update_index(
    folder: Path, documents: Path, embedder: str, as_json: bool, purge: bool, trust_mtime: bool
) -> None:
    """Bring an index to what the documents are now, and print what was done with every file."""
    from advisor.progress import watching
    from rag.index import Index
    from rag.load.walk import need

    Index.open(folder)
    need(documents)
    encoder = load_embedder(embedder)
    with watching(as_json) as watcher, keeping(folder):
        report = Index.update(folder, documents, encoder, watcher, purge=purge, trust_mtime=trust_mtime)
    _print_report(folder, report, as_json)
    if purge:
        for line in still_knowing(folder, report.gone):
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
    from rag.watch import watch

    def hear(outcome: Any) -> bool:
        if isinstance(outcome, BadInput):
            print(f"{_clock()} not updated: {outcome.message}", file=sys.stderr)
        elif as_json and (outcome.indexed or outcome.removed):
            emit(outcome.to_json())
        elif outcome.indexed or outcome.removed:
            print(
                f"{_clock()} generation {outcome.generation}: {outcome.added} added, {outcome.changed} changed, "
                f"{outcome.removed} removed; {outcome.embedded} passages embedded, {outcome.seconds:.1f} s",
                flush=True,
            )
        return True

    encoder = load_embedder(embedder)
    note(f"watching {documents} every {every:g} s; Ctrl-C ends it")
    watch(folder, documents, encoder, hear, every=every, trust_mtime=trust_mtime, sleep=sleep)


@contextmanager
def keeping(folder: Path) -> Iterator[None]:
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
        emit(report.to_json())
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
        emit(body)
        return
    for line in mended.damage if mended else ():
        print(f"mended: {line}")
    for key, value in body.items():
        if key not in ("schema", "damage"):
            print(f"{key}: {value if not isinstance(value, list) else ', '.join(map(str, value))}")


def load_embedder(name: str) -> Any:
    """Resolve and load an embedder."""
    from rag.embed import Embedder
    from runners import models

    model = models.resolve(name, on_event=tell)
    if model.kind != "embedder":
        raise BadInput(f"{name} is a {model.kind} model, not an embedder", "see: tunewise models list")
    return Embedder(model.folder)


def load_reranker(name: str) -> Any:
    """Resolve and load a reranker: the folder of a cross-encoder, or its id where the model hub is allowed."""
    from rag.rerank import Reranker
    from runners import models

    return Reranker(models.resolve(name).folder, name=name)

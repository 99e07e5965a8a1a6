"""The `tunewise index` verbs: build, update, search, check and watch."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.trained import still_knowing
from rag.errors import BadInput, UsageProblem
from rag.types import Hit

if TYPE_CHECKING:
    from rag.report import BuildReport


def build_index(folder: Path, documents: Path, embedder: str, as_json: bool, store: str) -> None:
    """Build an index and print what was done with every file."""
    from advisor.progress import watching
    from rag.index import Index
    from rag.settings import IndexSettings

    settings = IndexSettings(store=store)
    encoder = load_embedder(embedder)
    with watching(as_json) as watcher, _keeping(folder):
        report = Index.build(folder, documents, encoder, settings, watcher)
    _print_report(folder, report, as_json)


def update_index(
    folder: Path, documents: Path, embedder: str, as_json: bool, purge: bool, trust_mtime: bool
) -> None:
    """Bring an index to what the documents are now, and print what was done with every file."""
    from advisor.progress import watching
    from rag.index import Index

    Index.open(folder)
    encoder = load_embedder(embedder)
    with watching(as_json) as watcher, _keeping(folder):
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
            print(json.dumps(outcome.to_json(), ensure_ascii=False), flush=True)
        elif outcome.indexed or outcome.removed:
            print(
                f"{_clock()} generation {outcome.generation}: {outcome.added} added, {outcome.changed} changed, "
                f"{outcome.removed} removed; {outcome.embedded} passages embedded, {outcome.seconds:.1f} s",
                flush=True,
            )
        return True

    encoder = load_embedder(embedder)
    print(f"watching {documents} every {every:g} s; Ctrl-C ends it", file=sys.stderr)
    watch(folder, documents, encoder, hear, every=every, trust_mtime=trust_mtime, sleep=sleep)


@contextmanager
def _keeping(folder: Path) -> Iterator[None]:
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
        print(json.dumps(report.to_json(), ensure_ascii=False))
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


def search_index(
    folder: Path, question: str | None, questions: Path | None, k: int, embedder: str, as_json: bool
) -> None:
    """Search for one question, or for a file of them (one line of JSON each)."""
    from rag.index import Index

    if (question is None) == (questions is None):
        raise UsageProblem("give a question, or --questions FILE", 'tunewise index search INDEX "..."')
    index = Index.open(folder, load_embedder(embedder))
    if questions is not None:
        _search_file(index, questions, k)
        return
    assert question is not None
    started = time.perf_counter()
    hits = index.search(question, k)
    took = round((time.perf_counter() - started) * 1000, 2)
    if as_json:
        print(json.dumps({**hits_json(hits), "timings_ms": {"search": took}}, ensure_ascii=False))
        return
    for rank, hit in enumerate(hits, 1):
        place = f"page {hit.chunk.page}" if hit.chunk.page else f"line {hit.chunk.line_start}"
        text = " ".join(hit.chunk.text.split())
        print(f"{rank}. {hit.score:.3f}  {hit.chunk.doc}, {place}: {text[:160]}")


def check_index(folder: Path, repair: bool, embedder: str, as_json: bool) -> None:
    """Verify an index, mending it first where that was asked for, and print what it holds."""
    from rag.index import Index

    mended = Index.repair(folder, lambda: load_embedder(embedder)) if repair else None
    body = Index.open(folder).check()
    if mended:
        body |= {"damage": list(mended.damage), "embedded": mended.embedded}
    if as_json:
        print(json.dumps(body, ensure_ascii=False))
        return
    for line in mended.damage if mended else ():
        print(f"mended: {line}")
    for key, value in body.items():
        if key not in ("schema", "damage"):
            print(f"{key}: {value if not isinstance(value, list) else ', '.join(map(str, value))}")


def hits_json(hits: Sequence[Hit]) -> dict[str, Any]:
    """Hits as `index search --json` prints them."""
    return {
        "schema": 1,
        "hits": [
            {
                "doc": h.chunk.doc, "title": h.chunk.title, "score": round(h.score, 6), "text": h.chunk.text,
                "page": h.chunk.page, "line_start": h.chunk.line_start, "char_start": h.chunk.start,
                "char_end": h.chunk.end,
            }
            for h in hits
        ],
    }  # fmt: skip


def load_embedder(name: str) -> Any:
    """Resolve and load an embedder."""
    from rag.embed import Embedder
    from runners import models

    model = models.resolve(name)
    if model.kind != "embedder":
        raise BadInput(f"{name} is a {model.kind} model, not an embedder", "see: tunewise models list")
    return Embedder(model.folder)


def _search_file(index: Any, path: Path, k: int) -> None:
    from runners.data import load_questions

    rows = load_questions(path)
    started = time.perf_counter()
    found = index.search_many([q.question for q in rows], k)
    took = round((time.perf_counter() - started) * 1000 / max(1, len(rows)), 2)
    hit_at: list[int | None] = []
    for q, hits in zip(rows, found, strict=True):
        print(json.dumps({"id": q.id, **hits_json(hits), "timings_ms": {"search": took}}, ensure_ascii=False))
        if q.doc_id is not None:
            hit_at.append(next((n for n, h in enumerate(hits) if h.chunk.doc == q.doc_id), None))
    if hit_at:
        shares = [
            f"hit@{n} {sum(h is not None and h < n for h in hit_at) / len(hit_at):.3f}"
            for n in (1, 5, k)
            if n <= k
        ]
        print(f"{len(hit_at)} questions with gold: {', '.join(dict.fromkeys(shares))}", file=sys.stderr)

"""The `tunewise index` verbs: build, update, search and check."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rag.durable import writing_into
from rag.errors import BadInput, UsageProblem
from rag.types import Hit


def build_index(folder: Path, documents: Path, embedder: str, as_json: bool, update: bool) -> None:
    """Build or update an index and print what was done with every file."""
    from advisor.progress import watching
    from rag.index import Index

    with watching(as_json) as watcher, writing_into(folder):
        work = Index.update if update else Index.build
        report = work(folder, documents, load_embedder(embedder), on_event=watcher)
    body = report.to_json()
    if as_json:
        print(json.dumps(body, ensure_ascii=False))
        return
    print(
        f"{body['found']} documents found: {body['added']} added, {body['changed']} changed, "
        f"{body['unchanged']} unchanged, {len(body['skipped'])} skipped; {body['removed']} removed"
    )
    for item in body["skipped"]:
        print(f"  skipped {item['path']}: {item['reason']}")
    print(
        f"{body['chunks']} passages, {body['embedded']} embedded, generation {body['generation']}, "
        f"{body['seconds']:.1f} s: {folder}"
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


def check_index(folder: Path) -> None:
    """Verify an index and print what it holds."""
    from rag.index import Index

    for key, value in Index.open(folder).check().items():
        if key != "schema":
            print(f"{key}: {value}")


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

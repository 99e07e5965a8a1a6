"""Which way and weight of fusion: hit@k on short documents, span recall at equal prompt length on long ones.

Run from the repository's root: ``python -m benchmarks.fusion EMBEDDER_FOLDER SHARED_DATA_FOLDER``.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rag import metrics
from rag.embed import Embedder
from rag.index import Index
from rag.types import Chunk, Hit

PROMPT_TOKENS = 1600
GRID = [("convex", w) for w in (0.0, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 1.0)] + [("rrf", 0.5), ("rrf", 0.25)]


def main() -> None:
    """Print one table per data set."""
    embedder, data = Embedder(sys.argv[1]), Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as place:
        short = _built(Path(place, "short"), data / "hybrid_concierge" / "documents.jsonl", embedder)
        for split in ("train", "test"):
            rows = [r for r in _rows(data / "hybrid_concierge" / "questions.jsonl") if r["split"] == split]
            print(f"hybrid_concierge {split}, {len(rows)} questions: way weight hit@1 hit@5 MRR")
            for way, weight, hits in _searched(short, rows, 10):
                found = [[h.chunk.doc for h in hit] for hit in hits]
                gold = [{r["doc_id"]} for r in rows]
                pairs = list(zip(found, gold, strict=True))
                scores = [
                    [metrics.hit_at_k(f, g, 1), metrics.hit_at_k(f, g, 5), metrics.mrr(f, g)]
                    for f, g in pairs
                ]
                print(way, weight, *np.mean(scores, axis=0).round(3))
        long = _built(Path(place, "long"), data / "chunk_eval" / "documents", embedder)
        rows = list(_rows(data / "chunk_eval" / "questions.jsonl"))
        print(f"chunk_eval, {len(rows)} questions, {PROMPT_TOKENS} tokens: way weight recall full-evidence")
        for way, weight, hits in _searched(long, rows, 30):
            recalls = [_recall(r, _fitting(hit, embedder)) for r, hit in zip(rows, hits, strict=True)]
            print(
                way,
                weight,
                round(float(np.mean(recalls)), 3),
                round(float(np.mean(np.array(recalls) == 1)), 3),
            )


def _built(folder: Path, documents: Path, embedder: Embedder) -> Index:
    report = Index.build(folder, documents, embedder)
    print(f"{documents.parent.name}: {report.chunks} chunks in {report.seconds} s, {embedder.dtype}")
    return Index.open(folder, embedder)


def _searched(
    index: Index, rows: list[dict[str, Any]], k: int
) -> Iterator[tuple[str, float, list[list[Hit]]]]:
    settings = index.settings
    for way, weight in GRID:
        index.settings = replace(settings, fusion=way, lexical_weight=weight)
        yield way, weight, index.search_many([r["question"] for r in rows], k)


def _fitting(hits: list[Hit], embedder: Embedder) -> list[Chunk]:
    """Return the best chunks that fit the prompt together."""
    sizes = np.cumsum([embedder.count_tokens(hit.chunk.text) for hit in hits])
    return [hit.chunk for hit, size in zip(hits, sizes, strict=True) if size <= PROMPT_TOKENS]


def _recall(row: dict[str, Any], chunks: list[Chunk]) -> float:
    spans = [(span["start"], span["end"]) for span in row["spans"]]
    return metrics.span_recall(chunks, f"{row['doc_id']}.md", spans)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


if __name__ == "__main__":
    main()

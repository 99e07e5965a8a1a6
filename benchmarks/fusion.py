"""How the shipped default was chosen: chunk size, overlap, way and weight of fusion, without any test question.

Concierge gives its train questions, chunk_eval one half of its questions; what is best on both together is then
measured on the other half, and the other way round (cross-fit). chunk_eval has four documents only, so its
questions are divided, not its documents.

Run from the repository's root: ``python -m benchmarks.fusion EMBEDDER_FOLDER SHARED_DATA_FOLDER [KEPT_FOLDER]``.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from benchmarks.retrieval import DEPTH, PROMPT_TOKENS
from benchmarks.sets import Row, Set, bench, read
from rag.embedding.embedder import Embedder
from rag.evaluation import metrics
from rag.files import sha256_text
from rag.grounding import context
from rag.search.query import Query
from rag.search.searcher import Searcher
from rag.settings import IndexSettings
from rag.types import Hit

CUTS = ((150, 0.25), (200, 0.0), (200, 0.25), (200, 0.5), (250, 0.25))
WAYS = (*(("convex", w) for w in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)), ("rrf", 0.5))


@dataclass(frozen=True, slots=True)
class Point:
    """One setting and what it scored."""

    settings: IndexSettings
    first: np.ndarray
    """hit@1 of each concierge train question."""
    recall: np.ndarray
    full: np.ndarray
    """Span recall and full evidence of each chunk_eval question."""

    def score(self, half: np.ndarray) -> float:
        """Return what is chosen by: the mean of hit@1 and of full evidence on one half."""
        return float((self.first.mean() + self.full[half].mean()) / 2)

    def __str__(self) -> str:
        """Return the setting in a few words."""
        s = self.settings
        return f"{s.max_tokens}/{s.overlap:g} {s.fusion} {s.lexical_weight:g}"


def main() -> None:
    """Print every point, then what each half of chunk_eval chooses and how that does on the other half."""
    embedder, data = Embedder(sys.argv[1]), Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as spare:
        kept = Path(sys.argv[3] if len(sys.argv) > 3 else spare)
        long = read(data, "chunk_eval")
        points = []
        print("size/overlap way weight: concierge train hit@1, chunk_eval span recall, full evidence")
        for point in _points(read(data, "hybrid_concierge"), long, embedder, kept):
            points.append(point)
            figures = (point.first.mean(), point.recall.mean(), point.full.mean())
            print(f"{point!s:24} {' '.join(f'{figure:.3f}' for figure in figures)}", flush=True)
    half = np.array([int(sha256_text(row.question)[:8], 16) % 2 == 0 for row in long.rows])
    default = next(p for p in points if p.settings == IndexSettings())
    for here, there, name in ((half, ~half, "first"), (~half, half, "second")):
        best = max(points, key=lambda point: point.score(here))
        print(f"\nchosen with the {name} half ({here.sum()} questions): {best}")
        for label, point in (("chosen", best), ("default", default)):
            print(
                f"  {label:8} {point!s:22} score on this half {point.score(here):.4f}; on the other half span recall "
                f"{point.recall[there].mean():.3f}, full evidence {point.full[there].mean():.3f}"
            )


def _points(short: Set, long: Set, embedder: Embedder, kept: Path) -> Iterator[Point]:
    train = [row for row in short.rows if row.split == "train"]
    assert {row.split for row in short.rows} == {"train", "test"}
    raws = {document.id: document.raw for document in long.documents}
    count = lru_cache(maxsize=None)(embedder.count_tokens)
    ranked: dict[tuple[str, float], np.ndarray] = {}
    with bench(short, embedder, kept) as desk:
        searcher = desk.searcher(desk.cut(IndexSettings()), IndexSettings())
        for way, weight in WAYS:
            settings = replace(IndexSettings(), fusion=way, lexical_weight=weight)
            ranked[way, weight] = np.array(
                [
                    metrics.hit_at_k([h.chunk.doc for h in hits], {row.doc}, 1)
                    for row, hits in _found(searcher, train, settings, DEPTH[short.name])
                ]
            )
    with bench(long, embedder, kept) as desk:
        for size, overlap in CUTS:
            cut = replace(IndexSettings(), max_tokens=size, overlap=overlap)
            searcher = desk.searcher(desk.cut(cut), cut)
            for way, weight in WAYS:
                settings = replace(cut, fusion=way, lexical_weight=weight)
                shown = [
                    metrics.measure_evidence(
                        context.passages_within_budget(hits, PROMPT_TOKENS, count),
                        row.doc,
                        raws[row.doc],
                        row.spans,
                    )
                    for row, hits in _found(searcher, long.rows, settings, DEPTH[long.name])
                ]
                recall, full = (
                    np.array([getattr(each, name) for each in shown]) for name in ("recall", "full")
                )
                yield Point(settings, ranked[way, weight], recall, full)


def _found(
    searcher: Searcher, rows: Sequence[Row], settings: IndexSettings, depth: int
) -> Iterator[tuple[Row, Sequence[Hit]]]:
    asked = [row.question for row in rows]
    results = searcher.find(asked, [Query(k=depth)] * len(rows), settings)
    return zip(rows, (result.hits for result in results), strict=True)


if __name__ == "__main__":
    main()

"""Quality of the one shipped default on the public sets, beside BM25 alone and vectors alone, with intervals.

Run from the repository's root: ``python -m benchmarks.retrieval EMBEDDER_FOLDER SHARED_DATA_FOLDER [KEPT_FOLDER]``;
what is kept there (the vectors) need not be made by the next run.
The default was chosen without these test questions: see ``benchmarks.fusion``.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from benchmarks.sets import Row, bench, read
from rag.embedding.embedder import Embedder
from rag.evaluation import metrics
from rag.evaluation.statistics import bootstrap_interval
from rag.grounding import context
from rag.search.query import Query
from rag.settings import IndexSettings
from rag.types import Hit

PROMPT_TOKENS = 1600
"""In the embedder's tokens, headers of the passages included."""
DEPTH = {"hybrid_concierge": 10, "xquad_en": 10, "chunk_eval": 30}
"""Hits taken; more do not change the metrics, for 30 passages never fit the prompt."""
DEFAULT = IndexSettings()
WAYS = {
    "default": DEFAULT,
    "BM25 alone": replace(DEFAULT, fusion="convex", lexical_weight=1.0),
    "vectors alone": replace(DEFAULT, fusion="convex", lexical_weight=0.0),
}
TARGETS = {
    ("hybrid_concierge", "hit@1"): 0.89,
    ("hybrid_concierge", "hit@5"): 0.985,
    ("chunk_eval", "span recall"): 0.94,
    ("chunk_eval", "full evidence"): 0.91,
    ("xquad_en", "hit@5"): 0.99,
}


def main() -> None:
    """Print one table for each set, with the targets of the default."""
    embedder, data = Embedder(sys.argv[1]), Path(sys.argv[2])
    met = []
    with tempfile.TemporaryDirectory() as spare:
        kept = Path(sys.argv[3] if len(sys.argv) > 3 else spare)
        for name, judge in (
            ("hybrid_concierge", _ranks),
            ("xquad_en", _ranks),
            ("chunk_eval", _evidence(data, embedder)),
        ):
            found = read(data, name)
            rows = [row for row in found.rows if row.split in ("", "test")]
            with bench(found, embedder, kept) as desk:
                chunks = desk.cut(DEFAULT)
                searcher = desk.searcher(chunks, DEFAULT)
            print(f"\n{name}: {len(found.documents)} documents, {len(chunks)} chunks, {len(rows)} questions")
            for way, settings in WAYS.items():
                asked = [row.question for row in rows]
                results = searcher.find(asked, [Query(k=DEPTH[name])] * len(rows), settings)
                scores = [judge(row, result.hits) for row, result in zip(rows, results, strict=True)]
                met += _print(name, way, {key: [each[key] for each in scores] for key in scores[0]})
    print(f"\n{sum(met)} of {len(met)} targets met")
    assert len(met) == len(TARGETS)


def _print(name: str, way: str, values: Mapping[str, Sequence[float]]) -> list[bool]:
    """Print the means with their intervals; return for each target of the default whether it is met."""
    met, said = [], []
    for metric, found in values.items():
        mean = bootstrap_interval(found)
        target = TARGETS.get((name, metric)) if way == "default" else None
        if target is not None:
            met.append(mean.mean >= target)
        mark = "" if target is None else f" ({'met' if met[-1] else 'MISSED'}: {target})"
        said.append(f"{metric} {mean.mean:.3f} {mean.low:.3f}-{mean.high:.3f}{mark}")
    print(f"  {way:13} {', '.join(said)}")
    return met


def _ranks(row: Row, hits: Sequence[Hit]) -> dict[str, float]:
    found = [hit.chunk.doc for hit in hits]
    return {
        "hit@1": metrics.hit_at_k(found, {row.doc}, 1),
        "hit@5": metrics.hit_at_k(found, {row.doc}, 5),
        "MRR@10": metrics.mrr(found, {row.doc}),
        "nDCG@10": metrics.ndcg_at_k(found, {row.doc}, 10),
    }


def _evidence(data: Path, embedder: Embedder) -> Callable[[Row, Sequence[Hit]], dict[str, float]]:
    """Return the judge of what a prompt of ``PROMPT_TOKENS`` shows of the gold spans."""
    raws = {document.id: document.raw for document in read(data, "chunk_eval").documents}
    count = lru_cache(maxsize=None)(embedder.count_tokens)

    def judge(row: Row, hits: Sequence[Hit]) -> dict[str, float]:
        shown = context.passages_within_budget(hits, PROMPT_TOKENS, count)
        found = metrics.measure_evidence(shown, row.doc, raws[row.doc], row.spans)
        return {
            "span recall": found.recall,
            "full evidence": found.full,
            "precision": found.precision,
            "IoU": found.iou,
        }

    return judge


if __name__ == "__main__":
    main()

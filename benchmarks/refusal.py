"""When to refuse, judged on public questions: with the gold document removed, and on a set's own labels.

Each question is judged by a fit on the others (five folds, five deals); the shipped example also as a run would do it:
fitted on a third of its questions, judged on the rest, twelve times.

    python -m benchmarks.refusal SHARED/data
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from advisor.harbor_desk.folder import example_folder as example_path
from rag.embedding.embedder import Embedder
from rag.grounding import curve
from rag.grounding.refusal import (
    SEARCH_SIGNALS,
    SIGNAL_DEPTH,
    best_cut,
    cross_validated_log_odds,
    fit_logistic,
    refusal_signals,
)
from rag.index import Index
from runners.models.resolve import resolve_model

DEALS, SPLITS = 5, 12


def main() -> None:
    """Build the indexes, and print a table for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--most", type=int, default=600, help="questions of a set at most")
    given = parser.parse_args()
    embedder = Embedder(resolve_model("all-minilm-l6-v2").folder)
    sets = {
        "clapnq_dev": (
            given.data / "clapnq_dev" / "documents.jsonl",
            given.data / "clapnq_dev" / "questions.jsonl",
        ),
        "harbor-desk": (example_path() / "documents", example_path() / "questions.jsonl"),
        "hybrid_concierge": (
            given.data / "hybrid_concierge" / "documents.jsonl",
            given.data / "hybrid_concierge" / "questions.jsonl",
        ),
        "xquad_en": (
            given.data / "xquad_en" / "documents.jsonl",
            given.data / "xquad_en" / "questions.jsonl",
        ),
    }
    print("| set | task | questions | AUROC, all signals | dense alone | refused wrongly at 90 % right |")
    for name, (documents, questions) in sets.items():
        with tempfile.TemporaryDirectory() as folder:
            Index.build(Path(folder), documents, embedder)
            judge(name, Index.open(Path(folder), embedder), read(questions, given.most))


def read(path: Path, most: int) -> list[dict[str, object]]:
    """The rows of a file, or as many spread over it."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return rows if len(rows) <= most else [rows[n] for n in np.linspace(0, len(rows) - 1, most).astype(int)]


def judge(name: str, index: Index, rows: Sequence[dict[str, object]]) -> None:
    """Print the lines of one set."""
    asked = [str(row["question"]) for row in rows]
    labels = np.array([bool(row.get("answerable", True)) for row in rows])
    x = np.array(
        [
            refusal_signals(q, h).vector()
            for q, h in zip(asked, index.search_many(asked, SIGNAL_DEPTH), strict=True)
        ]
    )
    gold = np.flatnonzero(labels & np.array([bool(row.get("doc_id")) for row in rows]))
    without = [[str(rows[n]["doc_id"])] for n in gold.tolist()]
    found = index.search_many([asked[n] for n in gold], SIGNAL_DEPTH, without)
    removed = np.array([refusal_signals(asked[n], h).vector() for n, h in zip(gold, found, strict=True)])
    tell(
        name,
        "gold removed",
        np.vstack([x[gold], removed]),
        np.arange(2 * len(gold)) < len(gold),
        np.tile(gold, 2),
    )
    if (~labels).sum() >= 5:
        tell(name, "own labels", x, labels, np.arange(len(rows)))
        as_run(name, x, labels, removed, gold)


def tell(name: str, task: str, x: np.ndarray, y: np.ndarray, group: np.ndarray) -> None:
    """Print AUROC and the price of refusing 90 %, each question judged by a fit on other folds."""
    made = np.zeros(len(y), dtype=bool)
    areas, prices = [], []
    for deal in range(DEALS):
        order = np.random.default_rng(deal).permutation(int(group.max()) + 1)
        scores = cross_validated_log_odds(x, y, made, order[group], folds=5)
        areas.append(curve.auroc(scores, y))
        prices.append(curve.threshold_for_refusal_share(0.9, scores, y).wrong)
    dense = curve.auroc(x[:, SEARCH_SIGNALS.index("dense")], y)
    print(
        f"| {name} | {task} | {y.sum()} + {(~y).sum()} | {np.mean(areas):.3f} ({min(areas):.3f}–{max(areas):.3f}) "
        f"| {dense:.3f} | {np.mean(prices):.3f} |",
        flush=True,
    )


def as_run(name: str, x: np.ndarray, y: np.ndarray, removed: np.ndarray, gold: np.ndarray) -> None:
    """Fit on a third of the questions with their gold-removed searches, judge on the rest."""
    right, wrong = [], []
    for split in range(SPLITS):
        dev = np.zeros(len(y), dtype=bool)
        dev[np.random.default_rng(split).permutation(len(y))[: len(y) // 3]] = True
        inside = dev[gold]
        rows = np.vstack([x[dev], removed[inside]])
        labels = np.concatenate([y[dev], np.zeros(int(inside.sum()), dtype=bool)])
        made = np.arange(len(labels)) >= dev.sum()
        group = np.concatenate([np.flatnonzero(dev), gold[inside]])
        limit = best_cut(cross_validated_log_odds(rows, labels, made, group), labels, made)
        weights, bias = fit_logistic(rows, labels, made)
        judged = curve.refusal_point(limit, x[~dev] @ weights + bias, y[~dev])
        right.append(judged.right)
        wrong.append(judged.wrong)
    print(
        f"{name}, fitted on a third: refused {np.mean(right):.3f} rightly, {np.mean(wrong):.3f} wrongly",
        flush=True,
    )


if __name__ == "__main__":
    main()

"""Contradicting sources: how often they are noticed where they are planted, and how often where there are none.

Planted: the shipped example's documents of before and after its update, indexed together, asked about what changed.
None: the questions of four sets over their own documents.

    python -m benchmarks.conflict SHARED/data
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from advisor.harbor_desk.folder import example_folder as example_path
from rag.embedding.embedder import Embedder
from rag.grounding.conflicts import Conflict, find_conflicts
from rag.index import Index
from runners.models.resolve import resolve_model

SHOWN = 3


def main() -> None:
    """Count, and print examples of every false alarm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--most", type=int, default=400, help="questions of a set at most")
    given = parser.parse_args()
    embedder = Embedder(resolve_model("all-minilm-l6-v2").folder)
    example = example_path()
    planted(example, embedder)
    alarms("harbor-desk", example / "documents", example / "questions.jsonl", given.most, embedder)
    for name in ("clapnq_dev", "xquad_en", "hybrid_concierge"):
        folder = given.data / name
        alarms(name, folder / "documents.jsonl", folder / "questions.jsonl", given.most, embedder)


def planted(example: Path, embedder: Embedder) -> None:
    """Index old and new together, and count the questions for which both facts are shown side by side."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        shutil.copytree(example / "documents", folder / "documents" / "now")
        shutil.copytree(example / "update" / "documents", folder / "documents" / "later")
        rows = read(example / "update" / "stale.jsonl", 10_000)
        found = search(folder / "documents", rows, folder / "index", embedder)
    noticed = told = 0
    for row, each in zip(rows, found, strict=True):
        said = " ".join(side.quote for conflict in each for side in conflict.sides)
        noticed += bool(each)
        told += any(a in said for a in row["answers"]) and any(a in said for a in row["old_answers"])
    print(
        f"harbor-desk, old and new together: noticed {noticed} of {len(rows)}, both facts shown {told}",
        flush=True,
    )


def alarms(name: str, documents: Path, questions: Path, most: int, embedder: Embedder) -> None:
    """Count the questions for which a contradiction is claimed."""
    rows = read(questions, most)
    with tempfile.TemporaryDirectory() as folder:
        found = search(documents, rows, Path(folder), embedder)
    print(f"{name}: claimed {sum(map(bool, found))} of {len(rows)}", flush=True)
    for row, each in zip(rows, found, strict=True):
        for conflict in each:
            print(f"  {row['question']} | " + " | ".join(side.quote[:120] for side in conflict.sides))


def read(path: Path, most: int) -> list[dict[str, str]]:
    """The rows of a file, or as many spread over it."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return rows if len(rows) <= most else [rows[n] for n in np.linspace(0, len(rows) - 1, most).astype(int)]


def search(
    documents: Path, rows: list[dict[str, str]], folder: Path, embedder: Embedder
) -> list[tuple[Conflict, ...]]:
    """The conflicts among the first hits of each question."""
    Index.build(folder, documents, embedder)
    asked = [row["question"] for row in rows]
    hits = Index.open(folder, embedder).search_many(asked, SHOWN)
    return [find_conflicts(question, each) for question, each in zip(asked, hits, strict=True)]


if __name__ == "__main__":
    main()

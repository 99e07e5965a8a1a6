"""How long one question takes: p50 and p99 in process, peak memory, and the cold start of the command line.

Run from the repository's root: ``python -m benchmarks.bench_query DOCUMENTS QUESTIONS [--store NAME]``. The
index is built by a child process, so that the memory measured is that of searching. Every question is asked
alone, embedder included, after twenty to warm up.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

EMBEDDER = "all-minilm-l6-v2"
WARM = 20
COLD_STARTS = 5


def main() -> None:
    """Build, then measure and print one table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("documents", type=Path)
    parser.add_argument("questions", type=Path)
    parser.add_argument("--store", default="flat")
    parser.add_argument("--index", type=Path, help="an index built before")
    parser.add_argument("--asked", type=int, default=1000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        index = given.index or built(Path(place) / "index", given.documents, given.store)
        questions = [json.loads(line)["question"] for line in given.questions.read_text("utf-8").splitlines()]
        measure(index, questions[: given.asked])
        cold(index, questions[0])


def built(index: Path, documents: Path, store: str) -> Path:
    """Build the index in a process of its own."""
    verb = [sys.executable, "-m", "advisor", "index", "build", str(index), "--documents", str(documents)]
    subprocess.run([*verb, "--store", store], check=True)
    return index


def measure(folder: Path, questions: list[str]) -> None:
    """Ask one question after the other; print the time of opening, of the questions, and the peak memory."""
    from datetime import date

    from rag import Condition, Embedder, Index, Query
    from runners.models.resolve import resolve_model

    embedder = Embedder(resolve_model(EMBEDDER).folder, name=EMBEDDER)
    before = _rss()
    began = time.perf_counter()
    index = Index.open(folder, embedder)
    print(
        f"open: {(time.perf_counter() - began) * 1000:.0f} ms, {_rss() - before:.0f} MiB, {len(index.chunks)} chunks"
    )
    half = Condition.parse(f"doc={index.chunks[0].doc[:3]}*")
    ways = {
        "default": Query(k=5),
        "filtered": Query(k=5, where=(half,), as_of=date(2026, 1, 1)),
        "everything": Query(k=5, where=(half,), as_of=date(2026, 1, 1), neighbours=1, per_source=1),
    }
    for name, query in ways.items():
        for question in questions[:WARM]:
            index.find(question, query)
        took, stages = [], defaultdict(list)
        for question in questions:
            began = time.perf_counter()
            found = index.find(question, query)
            took.append((time.perf_counter() - began) * 1000)
            for stage, ms in found.timings_ms.items():
                stages[stage].append(ms)
        p50, p99 = np.percentile(took, [50, 99])
        each = ", ".join(f"{stage} {np.median(ms):.2f}" for stage, ms in stages.items())
        print(f"{name}: n {len(took)}, p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {max(took):.1f} ms ({each})")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of the searching process: {peak:.0f} MiB")


def cold(index: Path, question: str) -> None:
    """Time the whole command, process start to exit."""
    took = []
    for _ in range(COLD_STARTS):
        began = time.perf_counter()
        verb = [sys.executable, "-m", "advisor", "index", "search", str(index), question, "--json"]
        subprocess.run(verb, check=True, capture_output=True)
        took.append(time.perf_counter() - began)
    print(f"cold `tunewise index search`: {', '.join(f'{seconds:.2f}' for seconds in took)} s")


def _rss() -> float:
    import psutil

    return float(psutil.Process().memory_info().rss / 1024**2)


if __name__ == "__main__":
    main()

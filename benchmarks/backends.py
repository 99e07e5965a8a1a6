"""Measure the backends of an index on made-up documents: build, update, searches with and without filters, recall, memory.

    python -m benchmarks.backends --to LOCATION [--chunks 100000] [--dimension 384] [--queries 200]

LOCATION is an index folder or the URL of a database. Vectors are drawn from the text around 500 centres, words by Zipf's law
over 50,000; five chunks make a document, which has a tenant (200 of them, 0.5 % of the documents each) and a half (50 %).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from tokenizers import Tokenizer, models, pre_tokenizers

from rag.index import Index
from rag.search.filters import Condition
from rag.search.query import Query
from rag.settings import IndexSettings

CENTRES, TENANTS, VOCABULARY = 500, 200, 50_000
CHUNKS_OF_DOCUMENT = 5
ROWS_OF_FILE = 500
WORDS_OF_CHUNK = 70
SETTINGS = IndexSettings(max_tokens=100, overlap=0.0)
FILTERS = {
    "all": (),
    "0.5 %": (Condition.parse("tenant=7"),),
    "50 %": (Condition.parse("half=1"),),
}


class DrawnEncoder:
    """An encoder without a model: a text's vector is drawn near one of the centres, by its hash."""

    name, max_tokens, cut = "drawn", 512, 0

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self.fingerprint = f"drawn-{dimension}"
        self.centres = np.random.default_rng(0).standard_normal((CENTRES, dimension)).astype(np.float32)
        self.tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
        self.tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def encode(
        self, texts: Sequence[str], *, query: bool = False, on_event: Callable[..., None] | None = None
    ) -> np.ndarray:
        rows = np.empty((len(texts), self.dimension), dtype=np.float32)
        for n, text in enumerate(texts):
            seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
            noise = np.random.default_rng(seed).standard_normal(self.dimension, dtype=np.float32)
            rows[n] = self.centres[seed % CENTRES] + 0.9 * noise
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def write_documents(folder: Path, chunks: int, words_of_chunk: int = WORDS_OF_CHUNK) -> None:
    """Write files of 500 rows of documents each, with about this many chunks in all, one a paragraph."""
    draw = np.random.default_rng(1)
    chances = 1 / np.arange(1, VOCABULARY + 1)
    cumulative = np.cumsum(chances / chances.sum())
    starts = range(0, CHUNKS_OF_DOCUMENT * words_of_chunk, words_of_chunk)
    folder.mkdir(parents=True, exist_ok=True)
    for first in range(0, chunks // CHUNKS_OF_DOCUMENT, ROWS_OF_FILE):
        with (folder / f"{first:07}.jsonl").open("w") as out:
            for number in range(first, min(first + ROWS_OF_FILE, chunks // CHUNKS_OF_DOCUMENT)):
                ranks = np.searchsorted(cumulative, draw.random(CHUNKS_OF_DOCUMENT * words_of_chunk))
                words = [f"w{rank}" for rank in ranks]
                text = "\n\n".join(" ".join(words[start : start + words_of_chunk]) for start in starts)
                row = {"id": f"d{number}", "text": text, "tenant": number % TENANTS, "half": number % 2}
                out.write(json.dumps(row) + "\n")


def questions(count: int) -> list[str]:
    """Return questions of eight words of the documents, frequent and rare."""
    draw = np.random.default_rng(2)
    ranks = (VOCABULARY ** draw.random((count, 8))).astype(int) - 1
    return [" ".join(f"w{rank}" for rank in row) for row in ranks]


class ExactSearch:
    """All vectors of an index in memory, searched by brute force under the filters of these documents."""

    def __init__(self, index: Index) -> None:
        chunks = list(index.backend.all_chunks())
        numbers = np.array([int(chunk.doc[1:]) for chunk in chunks])
        self.ids = np.array([chunk.id for chunk in chunks], dtype=np.int64)
        self.matrix = index.vectors(self.ids.tolist())
        self.masks = {
            "all": np.ones(len(chunks), bool),
            "0.5 %": numbers % TENANTS == 7,
            "50 %": numbers % 2 == 1,
        }

    def nearest(self, vectors: np.ndarray, depth: int, filtered: str) -> list[np.ndarray]:
        """Return the ids nearest to each vector."""
        mask = self.masks[filtered]
        ids, scores = self.ids[mask], vectors @ self.matrix[mask].T
        return [ids[np.argsort(-row, kind="stable")[:depth]] for row in scores]


def recalls(index: Index, exact: ExactSearch, asked: Sequence[str], depth: int) -> dict[str, float]:
    """Return the share of the exact nearest chunks that the backend finds, by filter."""
    vectors = index.encoder.encode(asked, query=True)
    results = {}
    for filtered, where in FILTERS.items():
        selection = index.backend.select(Query(where=where), date(2026, 1, 1))
        found_ids = index.backend.by_vector(vectors, depth, [selection] * len(asked))
        wanted = exact.nearest(vectors, depth, filtered)
        shares = [
            len(set(a.tolist()) & set(b.tolist())) / len(b) for a, b in zip(found_ids, wanted, strict=True)
        ]
        results[filtered] = float(np.mean(shares))
    return results


def search_times(index: Index, asked: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return the milliseconds of whole hybrid searches, one by one: median and 95th percentile, by filter."""
    times = {}
    for filtered, where in FILTERS.items():
        index.find(asked[0], Query(where=where))
        spent = []
        for question in asked:
            start = time.perf_counter()
            index.find(question, Query(where=where))
            spent.append((time.perf_counter() - start) * 1000)
        times[filtered] = (float(np.percentile(spent, 50)), float(np.percentile(spent, 95)))
    return times


def private_mib() -> float:
    """Return this process's private memory in MiB."""
    return float(psutil.Process().memory_full_info().uss) / (1 << 20)


def main() -> None:
    """Build, search, update; print one line for each figure."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--to", required=True)
    options.add_argument("--chunks", type=int, default=100_000)
    options.add_argument("--dimension", type=int, default=384)
    options.add_argument("--queries", type=int, default=200)
    options.add_argument("--depth", type=int, default=50)
    given = options.parse_args()
    encoder: Any = DrawnEncoder(given.dimension)
    asked = questions(given.queries)
    with tempfile.TemporaryDirectory() as folder:
        documents = Path(folder) / "documents"
        write_documents(documents, given.chunks)
        marks: dict[str, float] = {}

        def mark(event: dict[str, Any]) -> None:
            marks.setdefault(event["event"], time.time())

        report = Index.build(given.to, documents, encoder, SETTINGS, mark)
        print(f"built: {report.chunks} chunks in {report.seconds:.1f} s", *report.remarks, sep="\n  ")
        if "index.writing" in marks:
            print(
                f"  of which writing and indexing: {marks['index.published'] - marks['index.writing']:.1f} s"
            )
        file = documents / "0000000.jsonl"
        rows = file.read_text().splitlines()
        rows[3] = json.dumps({**json.loads(rows[3]), "text": "w1 w2 w3 changed"})
        file.write_text("\n".join(rows) + "\n")
        changed = Index.update(given.to, documents, encoder, trust_mtime=True)
        print(
            f"update of one document: {changed.seconds:.2f} s, of a build {changed.seconds / report.seconds:.1%}"
        )
    before, start = private_mib(), time.perf_counter()
    index = Index.open(given.to, encoder)
    print(f"opened in {time.perf_counter() - start:.2f} s, private memory +{private_mib() - before:.0f} MiB")
    times = search_times(index, asked)
    print(f"after {3 * len(asked)} searches: private memory +{private_mib() - before:.0f} MiB")
    shares = recalls(index, ExactSearch(index), asked, given.depth)
    for filtered, (median, high) in times.items():
        print(
            f"filter {filtered:6}: {median:7.1f} / {high:7.1f} ms a search, recall@{given.depth} {shares[filtered]:.4f}"
        )
    index.close()


if __name__ == "__main__":
    main()

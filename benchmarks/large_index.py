"""Opening, searching and updating large indexes of files: time and memory at several sizes, with the slope.

    python -m benchmarks.large_index --chunks 100000 1000000 --folder FOLDER

Vectors are pseudo-random and texts are drawn from a Zipf distribution, because only sizes matter here. The index is
written by the program's own writer; opening and searching run in a process of their own, whose private memory and mapped
file pages are read from /proc. ``--update`` builds an index of document files by ``Index.build``, changes one document
and compares the time of the update with that of a rebuild whose vectors come from the cache.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models

from rag.files import sha256_text
from rag.index import Index
from rag.indexing.writer import index_facts, write_generation_files
from rag.settings import IndexSettings
from rag.stores.bm25 import TermRows
from rag.stores.text import RowChange, RowSummary, TextStore, store_row
from rag.types import Chunk, Document

DIMENSION = 384
VOCABULARY = 200_000
WORDS = 60
"""Words of a chunk."""
CHUNKS_PER_DOCUMENT = 10
SEARCHES = 100


class RandomEncoder:
    """An embedder whose vectors are pseudo-random unit vectors, seeded by the text."""

    name = "random"
    fingerprint = "random-384"
    dimension = DIMENSION
    max_tokens = 256
    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))

    def count_tokens(self, text: str) -> int:
        """Return the number of words."""
        return len(text.split())

    def encode(self, texts: Sequence[str], *, query: bool = False, on_event: Any = None) -> np.ndarray:
        """Return one vector for each text, float32 [texts, 384]."""
        rows = np.empty((len(texts), DIMENSION), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
            row[:] = np.random.default_rng(seed).standard_normal(DIMENSION, dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def drawn_words(draw: np.random.Generator, count: int) -> np.ndarray:
    """Return word numbers by a Zipf distribution with exponent 1.1, int64 [count]."""
    return np.minimum(draw.zipf(1.1, count), VOCABULARY) - 1


def chunk_text(draw: np.random.Generator) -> str:
    """Return the text of one chunk."""
    return " ".join(f"word{number}" for number in drawn_words(draw, WORDS))


def write_index(folder: Path, chunks: int) -> float:
    """Write an index of that many chunks; return the seconds."""
    start = time.monotonic()
    draw = np.random.default_rng(7)
    encoder = RandomEncoder()
    folder.mkdir(parents=True)
    settings = IndexSettings()
    rows, documents = [], []
    for number in range(chunks // CHUNKS_PER_DOCUMENT):
        doc = f"folder{number % 100}/document{number}.txt"
        metadata = {"team": f"team{number % 200}"}
        documents.append(Document(doc, f"Document {number}", "", (), sha256_text(doc), "text", metadata))
        for ordinal in range(CHUNKS_PER_DOCUMENT):
            text = chunk_text(draw)
            start_at = ordinal * len(text)
            chunk = Chunk(0, doc, f"Document {number}", ordinal, text, start_at, start_at + len(text))
            rows.append(store_row(chunk, sha256_text(text)))
    change = RowChange((), tuple(documents), (), tuple(rows), whole=True)
    with TextStore(folder, write=True) as store:
        record = store.apply(1, change, index_facts(encoder, settings, {}))
        text_sum = store.digest_sum(1)
    terms = TermRows.of([row.chunk.text for row in rows])
    summaries = [RowSummary(n, row.chunk.doc, row.embedded, row.sha256) for n, row in enumerate(rows, 1)]
    del rows, change, documents
    matrix = np.random.default_rng(1).standard_normal((chunks, DIMENSION), dtype=np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    write_generation_files(folder, record, summaries, matrix, terms, None, text_sum)
    return time.monotonic() - start


def memory() -> dict[str, float]:
    """Return private and mapped resident memory of this process in MiB, from /proc."""
    fields = dict(
        line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line
    )
    return {name: int(fields[name].split()[0]) / 1024 for name in ("RssAnon", "RssFile")}


def measure(folder: Path) -> dict[str, float]:
    """Open an index and search it; return seconds and MiB."""
    before = memory()
    start = time.monotonic()
    index = Index.open(folder, RandomEncoder())
    opened = time.monotonic() - start
    after_open = memory()
    draw = np.random.default_rng(3)
    times = []
    for _ in range(SEARCHES):
        # words of middle frequency, as questions have them
        question = " ".join(f"word{number}" for number in draw.integers(20, 20_000, 8))
        start = time.monotonic()
        results = index.find(question)
        times.append((time.monotonic() - start) * 1000)
        assert len(results.hits) == 5
    after = memory()
    return {
        "open_s": opened,
        "private_open_mib": after_open["RssAnon"] - before["RssAnon"],
        "mapped_open_mib": after_open["RssFile"] - before["RssFile"],
        "private_mib": after["RssAnon"] - before["RssAnon"],
        "private_total_mib": after["RssAnon"],
        "mapped_mib": after["RssFile"] - before["RssFile"],
        "first_search_ms": times[0],
        "p50_ms": float(np.percentile(times, 50)),
        "p95_ms": float(np.percentile(times, 95)),
    }


def measure_update(folder: Path, chunks: int) -> dict[str, float]:
    """Build an index of files, change one, and return the seconds of build, rebuild and update."""
    documents = folder / "documents"
    documents.mkdir(parents=True)
    draw = np.random.default_rng(11)
    for number in range(chunks // CHUNKS_PER_DOCUMENT):
        paragraphs = [f"{chunk_text(draw)}." for _ in range(3 * CHUNKS_PER_DOCUMENT)]
        (documents / f"document{number}.txt").write_text("\n\n".join(paragraphs))
    encoder = RandomEncoder()
    seconds: dict[str, float] = {}
    for name in ("build", "rebuild"):
        start = time.monotonic()
        report = Index.build(folder / "index", documents, encoder)
        seconds[name] = time.monotonic() - start
    seconds["chunks"] = report.chunks
    for name, trust in (("update", False), ("second update", False), ("update, --trust-mtime", True)):
        changed = documents / f"document{len(seconds)}.txt"
        changed.write_text(changed.read_text() + f"\n\n{chunk_text(draw)}.")
        start = time.monotonic()
        report = Index.update(folder / "index", documents, encoder, trust_mtime=trust)
        seconds[name] = time.monotonic() - start
        assert report.changed == 1, report
    return seconds


def main() -> None:
    """Measure each size and print JSON lines."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chunks", type=int, nargs="+", default=[100_000])
    parser.add_argument("--folder", type=Path, required=True, help="where indexes are written")
    parser.add_argument("--update", action="store_true", help="measure an update of document files instead")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure)))
        return
    for chunks in arguments.chunks:
        folder = arguments.folder / f"{'update' if arguments.update else 'open'}-{chunks}"
        if arguments.update:
            shutil.rmtree(folder, ignore_errors=True)
            print(json.dumps({"chunks": chunks, **measure_update(folder, chunks)}), flush=True)
            continue
        written = 0.0 if folder.exists() else write_index(folder, chunks)
        command = [sys.executable, "-m", "benchmarks.large_index", "--folder", "x", "--measure", str(folder)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        print(json.dumps({"chunks": chunks, "write_s": written, **json.loads(output)}), flush=True)


if __name__ == "__main__":
    main()

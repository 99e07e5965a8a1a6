"""How much of a full build an update costs: change 1 % of the documents and count what is embedded.

With --fake an encoder without a model, which leaves only the index's own work; else the real embedder. Times
are in process, imports aside: the objects that they made, torch's by the hundred thousand, are kept from Python's
garbage collector, which would walk them all in every second update (.15 s). "cpu" is processor time, which other
work on the machine does not lengthen.

    python benchmarks/bench_update.py SHARED/data/hybrid_concierge/documents.jsonl --fake
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import json
import pstats
import random
import resource
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from rag.index import Index


class Fake:
    """The embedder's tokenizer, and vectors drawn from a checksum of the text."""

    name, dimension, max_tokens, fingerprint = "fake", 384, 254, "fake-1"

    def __init__(self, folder: Path) -> None:
        """Load the tokenizer only."""
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()

    def count_tokens(self, text: str) -> int:
        """Count in the real tokens."""
        return len(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def encode(self, texts: Sequence[str], *, query: bool = False, on_event: Any = None) -> np.ndarray:
        """Draw a unit vector per text."""
        rows = [np.random.default_rng(zlib.crc32(text.encode())).standard_normal(384, "f4") for text in texts]
        found = np.array(rows, dtype=np.float32).reshape(-1, 384)
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), dtype=np.float32)


def embedder(fake: bool) -> Any:
    """The real embedder, or the fake one with its tokenizer."""
    from runners.models.resolve import resolve_model

    folder = resolve_model("all-minilm-l6-v2").folder
    if fake:
        return Fake(folder)
    from rag.embedding.embedder import Embedder

    return Embedder(folder, name="all-minilm-l6-v2")


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """The result, the wall-clock seconds and the processor seconds of some work, its children included."""
    began, used = time.perf_counter(), _cpu()
    result = work()
    return result, time.perf_counter() - began, _cpu() - used


def _cpu() -> float:
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(use.ru_utime + use.ru_stime for use in map(resource.getrusage, whose))


def main() -> None:
    """Build, then change one document in a hundred, a few times; print the shares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("documents", type=Path)
    parser.add_argument("--fake", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", action="store_true", help="one file per document instead of one .jsonl")
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    rows = [json.loads(line) for line in given.documents.read_text("utf-8").splitlines()]
    encoder = embedder(given.fake)
    import bm25s  # noqa: F401
    import faiss  # noqa: F401

    gc.collect()
    gc.freeze()
    with tempfile.TemporaryDirectory() as place:
        source = Path(place, "documents") if given.files else Path(place, "documents.jsonl")
        write = write_files if given.files else write_rows
        write(source, rows, rows)
        folder = Path(place, "index")
        report, wall, cpu = timed(lambda: Index.build(folder, source, encoder))
        print(f"build: {report.chunks} chunks, {report.embedded} embedded, {wall:.2f} s, cpu {cpu:.2f} s")
        for turn in range(given.rounds):
            changed = random.Random(turn).sample(rows, len(rows) // 100)
            for row in changed:
                row["text"] += f" Changed in round {turn}."
            write(source, rows, changed)
            profile = cProfile.Profile(time.process_time) if given.profile else nullcontext()
            with profile:
                found, wall_now, cpu_now = timed(lambda: Index.update(folder, source, encoder))
            print(
                f"update: {found.changed} changed, {found.embedded} embedded, {wall_now:.2f} s "
                f"({wall_now / wall:.1%}), cpu {cpu_now:.2f} s ({cpu_now / cpu:.1%})"
            )
            assert found.changed == found.embedded == len(changed)
            if isinstance(profile, cProfile.Profile) and turn == given.rounds - 1:
                pstats.Stats(profile).sort_stats("cumtime").print_stats(45)
        report, wall_now, cpu_now = timed(lambda: Index.build(folder, source, encoder))
        print(f"rebuild from the cache: {report.embedded} embedded, {wall_now:.2f} s, cpu {cpu_now:.2f} s")


def write_rows(path: Path, rows: list[dict[str, Any]], changed: list[dict[str, Any]]) -> None:
    """One row per document."""
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")


def write_files(path: Path, rows: list[dict[str, Any]], changed: list[dict[str, Any]]) -> None:
    """One file per document; only the changed ones are written."""
    for row in changed:
        file = path / f"{row['id'].replace('/', '_').replace('*', 'all')}.md"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"# {row['title']}\n\n{row['text']}\n", "utf-8")


if __name__ == "__main__":
    main()

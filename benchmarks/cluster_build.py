"""Builds by actors of Ray against builds in one process: seconds, memory, and how both grow with the documents.

Every build is a process of its own with one thread; the actors of Ray are on the same machine. Documents are Markdown files
of about 1.2 kB under two headings, of words drawn at random, the same every time. The tiny embedder (a BERT of one layer
and width 16) costs next to nothing, so that its seconds are those of the pipeline itself. "driver" is the largest memory of
the process that joins the index; "all" adds its children (Ray's own processes and the actors), their private memory
sampled twice a second. The indexes are compared to the byte, their text stores by rows.

    python -m benchmarks.cluster_build --sizes 1000 10000 100000 --out FOLDER
    python -m benchmarks.cluster_build --sizes 1000 --embedder all-minilm-l6-v2 --out FOLDER
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

WORDS = [f"{first}{last}" for first in ("har", "fer", "pier", "qua", "boa", "sail", "dec", "tick") for last in (
    "bour", "ry", "side", "y", "t", "or", "k", "et", "land", "ing", "mast", "line", "port", "gate", "wind"
)]  # fmt: skip


def write_documents(folder: Path, count: int) -> None:
    """Write the files of a size, 1,000 in a folder, unless they are there."""
    for n in range(count):
        path = folder / f"{n // 1000:04d}" / f"{n:06d}.md"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        draw = random.Random(n)
        parts = [f"## Part {part}\n\n" + " ".join(draw.choices(WORDS, k=90)) + ".\n" for part in range(2)]
        path.write_text(f"# Document {n}\n\n" + "\n".join(parts))


def tiny_embedder(folder: Path) -> Path:
    """Save a BERT of one layer and width 16 with a tokenizer of words, and return its folder."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel

    if (folder / "modules.json").exists():
        return folder
    (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
    words = ["?", "[PAD]", "Document", "Part", ".", *dict.fromkeys(WORDS)]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=256,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (folder / "modules.json").write_text("[]")
    return folder


class MemorySampler:
    """Samples the private memory of this process and all its children, in MiB."""

    def __init__(self) -> None:
        """Start the thread that samples."""
        self.peak = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        import psutil

        own = psutil.Process()
        while not self._stop.wait(0.5):
            total = 0
            for process in (own, *own.children(recursive=True)):
                try:
                    total += process.memory_full_info().uss
                except psutil.Error:
                    continue
            self.peak = max(self.peak, total / 2**20)

    def stop(self) -> float:
        """End the sampling and return the largest sum."""
        self._stop.set()
        self._thread.join()
        return self.peak


def one_build(engine: str, index: Path, documents: Path, embedder: str, actors: int) -> dict[str, Any]:
    """Build an index in this process and return its seconds by stage and its memory."""
    from rag.embedding.embedder import Embedder
    from rag.index import Index

    encoder = Embedder(embedder, device="cpu")
    sampler = MemorySampler()
    stages: dict[str, float] = {}
    start = time.perf_counter()

    def on_event(event: dict[str, Any]) -> None:
        done = event.get("done") == event.get("total")
        if event["event"] != "embed.batch" or done:
            stages[event["event"]] = round(time.perf_counter() - start, 2)

    if engine == "local":
        report = Index.build(index, documents, encoder, on_event=on_event)
    else:
        from rag.indexing.sharded.engine import ShardedBuild
        from rag.indexing.sharded.ray_cluster import ActorOptions, RayCluster
        from rag.indexing.sharded.worker import EmbedderFolderSource

        with RayCluster(ActorOptions(actors=actors)) as cluster:
            stages["ray.start"] = round(time.perf_counter() - start, 2)
            build = ShardedBuild(cluster, EmbedderFolderSource.of(encoder))
            report = Index.build(index, documents, encoder, on_event=on_event, engine=build)
    return {
        "seconds": round(time.perf_counter() - start, 2),
        "chunks": report.chunks,
        "stages": stages,
        "driver_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "all_mib": round(sampler.stop()),
        "remark": report.remarks[-1] if report.remarks else "",
    }


def equal_indexes(one: Path, other: Path) -> bool:
    """Return whether two indexes have equal files and text stores of equal rows."""
    from rag.stores.text import TextStore

    names = {
        path.relative_to(one) for path in one.rglob("*") if path.is_file() and ".sqlite" not in path.name
    }
    equal = all((one / name).read_bytes() == (other / name).read_bytes() for name in names)
    with TextStore(one) as first, TextStore(other) as second:
        return equal and all(a == b for a, b in zip(first.dump(), second.dump(), strict=True))


def slope(sizes: list[int], values: list[float]) -> str:
    """Return the straight line through the values, for 1,000 documents each."""
    if len(sizes) < 2:
        return "-"
    rise, base = np.polyfit(np.array(sizes) / 1000, values, 1)
    return f"{base:.1f} + {rise:.3f} per 1,000 documents"


def main() -> None:
    """Build every size by both engines and print a table and the slopes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000])
    parser.add_argument("--embedder", default="tiny")
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--one", nargs=4, metavar=("ENGINE", "INDEX", "DOCUMENTS", "EMBEDDER"))
    given = parser.parse_args()
    if given.one:
        engine, index, documents, embedder = given.one
        print(json.dumps(one_build(engine, Path(index), Path(documents), embedder, given.actors)))
        return
    if given.embedder == "tiny":
        embedder = str(tiny_embedder(given.out / "tiny embedder"))
    else:
        from runners.models.resolve import resolve_model

        embedder = str(resolve_model(given.embedder).folder)
    rows: dict[str, list[dict[str, Any]]] = {"local": [], "ray": []}
    for size in given.sizes:
        documents = given.out / f"documents-{size}"
        write_documents(documents, size)
        indexes = []
        for engine, results in rows.items():
            indexes.append(given.out / f"{engine}-{size}-{Path(embedder).name}")
            command = [
                sys.executable,
                "-m",
                "benchmarks.cluster_build",
                "--out",
                str(given.out),
                "--actors",
                str(given.actors),
            ]
            command += ["--one", engine, str(indexes[-1]), str(documents), embedder]
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
            )
            results.append(json.loads(done.stdout.splitlines()[-1]))
            print(size, engine, json.dumps(results[-1]), flush=True)
        print(size, "equal:", equal_indexes(*indexes), flush=True)
    for engine, results in rows.items():
        for what in ("seconds", "driver_mib", "all_mib"):
            print(engine, what, slope(given.sizes, [row[what] for row in results]))


if __name__ == "__main__":
    main()

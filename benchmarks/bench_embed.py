"""How fast texts become vectors: our encode against the bare model and against sentence-transformers.

All contenders take turns in one process on the same texts (the chunks of the documents, prefix included) and
the same weights. "raw" is what a careful hand would write: rows sorted by length, padded to the longest of
their batch, the best of several batch sizes, bfloat16, mean of the tokens; once with the time of tokenising and once
without. The other two are sentence-transformers' encode as it comes (float32, batches of 32) and with its
model loaded in bfloat16.

    python benchmarks/bench_embed.py SHARED/data/hybrid_concierge/documents.jsonl --rounds 3
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from transformers import AutoModel

from rag.embedding.embedder import Embedder
from rag.indexing.chunking import Chunker
from rag.loading.reader import load_documents
from rag.settings import IndexSettings
from runners.models.resolve import resolve_model

Contender = Callable[[], np.ndarray]
SIZES = (64, 256)
"""Rows in a batch of the raw contender; the fastest counts."""


class Raw:
    """The model's forward alone over sorted, padded batches of a fixed number of rows."""

    def __init__(self, folder: Path, embedder: Embedder, texts: Sequence[str]) -> None:
        """Load the model plainly; keep the texts, and their token numbers for who is spared the tokenising."""
        self._model: Any = AutoModel.from_pretrained(folder, dtype=embedder.dtype).eval()
        self._tokenizer = embedder.tokenizer
        self._texts = list(texts)
        self._rows = self.tokenised()

    def tokenised(self) -> list[list[int]]:
        """Return the texts' token numbers, all tokenised in one call."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch(self._texts)]

    def contender(self, size: int, tokenise: bool) -> Contender:
        """Return the work over batches of ``size`` rows."""
        return lambda: self.encode(self.tokenised() if tokenise else self._rows, size)

    @torch.inference_mode()
    def encode(self, rows: list[list[int]], size: int) -> np.ndarray:
        """Return one unit vector per row, float32."""
        found = np.empty((len(rows), self._model.config.hidden_size), dtype=np.float32)
        for batch in _batches(sorted(range(len(rows)), key=lambda n: len(rows[n])), size):
            longest = len(rows[batch[-1]])
            ids = torch.tensor([rows[n] + [0] * (longest - len(rows[n])) for n in batch])
            mask = torch.tensor([[1] * len(rows[n]) + [0] * (longest - len(rows[n])) for n in batch])
            hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
            pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            found[batch] = torch.nn.functional.normalize(pooled, dim=1).numpy()
        return found


def _batches(order: list[int], size: int) -> Iterator[list[int]]:
    return (order[at : at + size] for at in range(0, len(order), size))


def library(folder: Path, texts: Sequence[str], dtype: str) -> Contender:
    """Return sentence-transformers' encode with its own defaults, its model loaded in ``dtype``."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": dtype})
    return lambda: model.encode(list(texts), show_progress_bar=False)


def texts_of(documents: Path, embedder: Embedder, most: int) -> list[str]:
    """Return what is embedded of a documents path, at most ``most`` texts, evenly drawn."""
    chunker = Chunker(embedder, IndexSettings())
    found = [
        chunker.embedded_text(chunk)
        for d in load_documents(documents).documents
        for chunk in chunker.chunks(d)
    ]
    return found[:: max(1, len(found) // most)][:most] if most else found


def contenders(documents: Path, most: int) -> tuple[dict[str, Contender], list[str], int]:
    """Return all contenders by name, the texts, and the number of their tokens."""
    folder = resolve_model("all-minilm-l6-v2").folder
    embedder = Embedder(folder)
    texts = texts_of(documents, embedder, most)
    raw = Raw(folder, embedder, texts)
    found: dict[str, Contender] = {"ours": lambda: embedder.encode(texts)}
    for size in SIZES:
        found[f"raw, tokenised before, {size} rows"] = raw.contender(size, tokenise=False)
    found["raw, tokenising too, 64 rows"] = raw.contender(64, tokenise=True)
    found["sentence-transformers"] = library(folder, texts, "float32")
    found["sentence-transformers bf16"] = library(folder, texts, "bfloat16")
    return found, texts, sum(map(len, raw.tokenised()))


def main() -> None:
    """Let the contenders take turns; print the median seconds of each, texts a second, and how near the vectors are."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("documents", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--most", type=int, default=0, help="use at most this many texts")
    given = parser.parse_args()
    entrants, texts, tokens = contenders(given.documents, given.most)
    print(f"{len(texts)} texts, {tokens} tokens, torch threads {torch.get_num_threads()}", flush=True)
    took: dict[str, list[float]] = {name: [] for name in entrants}
    last: dict[str, Any] = {}
    for _ in range(given.rounds):
        for name, encode in entrants.items():
            began = time.perf_counter()
            last[name] = encode()
            took[name].append(time.perf_counter() - began)
            print(f"{name:36} {took[name][-1]:7.2f} s", flush=True)
    exact = last["sentence-transformers"]
    for name, seconds in took.items():
        near = float((last[name] * exact).sum(axis=1).min())
        spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
        print(
            f"{name:36} {median(seconds):7.2f} s ({spread})  {len(texts) / median(seconds):7.0f} texts/s  "
            f"ours {median(seconds) / median(took['ours']):.2f} x  cosine >= {near:.4f}"
        )


if __name__ == "__main__":
    main()

"""The reranker: a cross-encoder from a local folder, which reads question and passage together."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rag.errors import BadInput
from rag.files import sha256_file
from rag.types import Chunk, Hit

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

BATCH_TOKENS = 4096
"""Tokens of a batch, padding included."""


class Scorer(Protocol):
    """What search needs of a reranker; ``Reranker`` is the real one."""

    @property
    def truncated(self) -> int:
        """How many texts were too long to be read whole, so far."""

    def scores(self, question: str, texts: Sequence[str]) -> np.ndarray:
        """Return float32 [len(texts)]: how well each answers the question, higher is better."""


def rerank(
    scorer: Scorer, question: str, hits: Sequence[Hit], depth: int, text: Callable[[Chunk], str]
) -> list[Hit]:
    """Return the hits with the first ``depth`` of them in the order of the scorer; ``text`` is what it reads."""
    first = hits[:depth]
    scores = scorer.scores(question, [text(hit.chunk) for hit in first])
    order = np.argsort(-scores, kind="stable").tolist()
    return [*(replace(first[n], rerank=float(scores[n])) for n in order), *hits[depth:]]


class Reranker:
    """Scores texts for a question with a cross-encoder; nothing is fetched, no code is run."""

    def __init__(self, folder: Path | str, name: str = "", dtype: str = "auto") -> None:
        """Load a folder of ``config.json``, ``model.safetensors`` and ``tokenizer.json``.

        ``dtype`` is auto (bfloat16 where the CPU computes in it, else float32), float32 or bfloat16.
        Raises BadInput when the folder holds something else than a classifier with one output.
        """
        from rag.embedding.embedder import resolve_dtype

        folder = Path(folder)
        self.name = name or folder.name
        self.truncated = 0
        config = _config(folder)
        self._tokenizer, self._pad = _tokenizer(folder), int(config.get("pad_token_id") or 0)
        self._model = _model(folder, resolve_dtype(dtype))
        self.max_tokens = _window(folder, config)
        """Tokens of question and passage together, special tokens included; the longer one is cut."""
        self._tokenizer.enable_truncation(self.max_tokens, strategy="longest_first")
        weights, words = (sha256_file(folder / name) for name in ("model.safetensors", "tokenizer.json"))
        self.fingerprint = f"sha256:{weights} tokenizer:{words} {self.max_tokens} tokens"

    def scores(self, question: str, texts: Sequence[str]) -> np.ndarray:
        """Return float32 [len(texts)], the model's logits: higher is better, of any range.

        Texts are batched by length. One too long to be read whole is cut and counted in ``truncated``.
        """
        rows = self._tokenizer.encode_batch([(question, text) for text in texts])
        self.truncated += sum(bool(row.overflowing) for row in rows)
        found = np.empty(len(rows), dtype=np.float32)
        order = sorted(range(len(rows)), key=lambda n: len(rows[n]))
        for batch in _batches(order, rows):
            found[batch] = self._logits([rows[n] for n in batch])
        return found

    def _logits(self, rows: Sequence[Encoding]) -> np.ndarray:
        import torch

        width = max(map(len, rows))
        ids = torch.full((len(rows), width), self._pad)
        types, mask = torch.zeros_like(ids), torch.zeros_like(ids)
        for n, row in enumerate(rows):
            ids[n, : len(row)] = torch.tensor(row.ids)
            types[n, : len(row)] = torch.tensor(row.type_ids)
            mask[n, : len(row)] = 1
        given: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        if getattr(self._model.config, "type_vocab_size", 0) > 1:
            given["token_type_ids"] = types
        with torch.inference_mode():
            logits = self._model(**given).logits
        return np.asarray(logits[:, 0].float().numpy(), dtype=np.float32)


def _batches(order: Sequence[int], rows: Sequence[Encoding]) -> Iterator[list[int]]:
    """Yield runs of rows, shortest first, whose padded batch has at most BATCH_TOKENS tokens."""
    batch: list[int] = []
    for n in order:
        if batch and (len(batch) + 1) * len(rows[n]) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(n)
    if batch:
        yield batch


def _config(folder: Path) -> dict[str, Any]:
    """Return the folder's config; BadInput when it is no cross-encoder that can be loaded safely."""
    hint = "give the folder of a cross-encoder: config.json, model.safetensors, tokenizer.json"
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        if not (folder / name).is_file():
            raise BadInput(f"the reranker folder {folder} has no {name}", hint)
    try:
        config = dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise BadInput(f"{folder / 'config.json'} is damaged: {error}") from error
    kinds = config.get("architectures") or ["nothing"]
    if "auto_map" in config:
        raise BadInput(f"the reranker {folder} brings code of its own, which is never run", hint)
    if not str(kinds[0]).endswith("ForSequenceClassification"):
        raise BadInput(f"{folder} holds a {kinds[0]}, not a cross-encoder", hint)
    labels = len(config.get("id2label") or "01")
    if labels != 1:
        raise BadInput(f"{folder} sorts into {labels} classes, but a reranker gives one score", hint)
    return config


def _tokenizer(folder: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers raises bare Exception
        raise BadInput(f"{folder / 'tokenizer.json'} is damaged: {error}") from error
    tokenizer.no_padding()
    return tokenizer


def _model(folder: Path, dtype: Any) -> Any:
    from transformers import AutoModelForSequenceClassification

    with _quiet():
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=dtype, local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
    return model.eval()


@contextmanager
def _quiet() -> Iterator[None]:
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            logging.enable_progress_bar()


def _window(folder: Path, config: dict[str, Any]) -> int:
    """Return how many tokens the model reads: its positions, or fewer where its tokenizer says so.

    RoBERTa and its kin number positions from beyond the padding token.
    """
    positions = int(config.get("max_position_embeddings") or 512)
    if "roberta" in str(config.get("model_type")):
        positions -= int(config.get("pad_token_id") or 0) + 1
    path = folder / "tokenizer_config.json"
    said = json.loads(path.read_text(encoding="utf-8")).get("model_max_length") if path.is_file() else None
    return min(positions, int(said)) if said else positions

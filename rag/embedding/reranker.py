"""The reranker: a cross-encoder from a local folder, which reads question and passage together.

:func:`rerank` reorders the first hits of a search with a :class:`Scorer`; :class:`Reranker` is the
implementation. torch and transformers are imported when a model is loaded.
"""

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
    """The protocol of a reranker; :class:`Reranker` implements it."""

    @property
    def truncated(self) -> int:
        """How many texts so far were too long to be read whole."""

    def scores(self, question: str, texts: Sequence[str]) -> np.ndarray:
        """Return float32 [len(texts)]: how well each answers the question, higher is better."""


def rerank(
    scorer: Scorer, question: str, hits: Sequence[Hit], depth: int, text: Callable[[Chunk], str]
) -> list[Hit]:
    """Return the hits with the first ``depth`` of them in the order of the scorer's scores.

    Args:
        scorer: the reranker.
        question: the question.
        hits: best first.
        depth: how many hits are scored.
        text: returns what the scorer reads of a chunk.
    """
    first = hits[:depth]
    scores = scorer.scores(question, [text(hit.chunk) for hit in first])
    order = np.argsort(-scores, kind="stable").tolist()
    return [*(replace(first[n], rerank=float(scores[n])) for n in order), *hits[depth:]]


class Reranker:
    """Scores texts for a question with a cross-encoder; nothing is fetched, no code is run."""

    def __init__(self, folder: Path | str, name: str = "", dtype: str = "auto") -> None:
        """Load a folder of ``config.json``, ``model.safetensors`` and ``tokenizer.json``.

        Args:
            folder: the folder.
            name: the name shown to people; empty takes that of the folder.
            dtype: auto (bfloat16 where the CPU computes in it, else float32), float32 or bfloat16.

        Raises:
            BadInput: when the folder holds something else than a classifier with one output.
        """
        from rag.embedding.embedder import resolve_dtype

        folder = Path(folder)
        self.name = name or folder.name
        self.truncated = 0
        config = _config(folder)
        self._tokenizer = _tokenizer(folder)
        self._pad_token_id = int(config.get("pad_token_id") or 0)
        self._model = _model(folder, resolve_dtype(dtype))
        self.max_tokens = _window(folder, config)
        """Tokens of question and passage together, special tokens included; the longer one is cut."""
        self._tokenizer.enable_truncation(self.max_tokens, strategy="longest_first")
        weights = sha256_file(folder / "model.safetensors")
        vocabulary = sha256_file(folder / "tokenizer.json")
        self.fingerprint = f"sha256:{weights} tokenizer:{vocabulary} {self.max_tokens} tokens"

    def scores(self, question: str, texts: Sequence[str]) -> np.ndarray:
        """Return float32 [len(texts)], the model's logits: higher is better, of any range.

        Texts are batched by length. One too long to be read whole is cut and counted in ``truncated``.
        """
        rows = self._tokenizer.encode_batch([(question, text) for text in texts])
        self.truncated += sum(bool(row.overflowing) for row in rows)
        scores = np.empty(len(rows), dtype=np.float32)
        order = sorted(range(len(rows)), key=lambda n: len(rows[n]))
        for batch in _batches(order, rows):
            scores[batch] = self._logits([rows[n] for n in batch])
        return scores

    def _logits(self, rows: Sequence[Encoding]) -> np.ndarray:
        """Return the logits of one batch, float32 [rows]; shorter rows are padded and masked."""
        import torch

        width = max(map(len, rows))
        ids = torch.full((len(rows), width), self._pad_token_id)
        types, mask = torch.zeros_like(ids), torch.zeros_like(ids)
        for n, row in enumerate(rows):
            ids[n, : len(row)] = torch.tensor(row.ids)
            types[n, : len(row)] = torch.tensor(row.type_ids)
            mask[n, : len(row)] = 1
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        if getattr(self._model.config, "type_vocab_size", 0) > 1:
            inputs["token_type_ids"] = types
        with torch.inference_mode():
            logits = self._model(**inputs).logits
        return np.asarray(logits[:, 0].float().numpy(), dtype=np.float32)


def _batches(order: Sequence[int], rows: Sequence[Encoding]) -> Iterator[list[int]]:
    """Yield batches of row numbers in order; a batch padded to its longest row has at most BATCH_TOKENS tokens."""
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
    architectures = config.get("architectures") or ["nothing"]
    if "auto_map" in config:
        raise BadInput(f"the reranker {folder} brings code of its own, which is never run", hint)
    if not str(architectures[0]).endswith("ForSequenceClassification"):
        raise BadInput(f"{folder} holds a {architectures[0]}, not a cross-encoder", hint)
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

    with _no_progress_bars():
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=dtype, local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
    return model.eval()


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    from transformers.utils import logging

    progress_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if progress_bars:
            logging.enable_progress_bar()


def _window(folder: Path, config: dict[str, Any]) -> int:
    """Return how many tokens the model reads: its positions, or fewer where its tokenizer says so.

    RoBERTa and its relatives number positions from the padding token on, so that many fewer remain for text.
    """
    positions = int(config.get("max_position_embeddings") or 512)
    if "roberta" in str(config.get("model_type")):
        positions -= int(config.get("pad_token_id") or 0) + 1
    path = folder / "tokenizer_config.json"
    limit = json.loads(path.read_text(encoding="utf-8")).get("model_max_length") if path.is_file() else None
    return min(positions, int(limit)) if limit else positions

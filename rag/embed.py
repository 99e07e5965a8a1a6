"""The embedder: a local sentence-transformers folder run through transformers.

Vectors are reproducible: on one machine a text's vector is the same bit for bit whatever else is embedded with
it. Texts are laid one after the other (see ``packed``; models that this does not fit take batches of one length),
without padding or mask, and the model's products have sizes that are known to agree (see ``even``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Encoding, Tokenizer
from transformers import AutoModel
from transformers.utils import logging

from rag.durable import sha256_file
from rag.errors import BadInput
from rag.even import LARGEST, even_out
from rag.packed import first_position, packed, runs_of
from rag.types import OnEvent

BATCH_TOKENS = LARGEST
_BF16_FLAGS = ("avx512_bf16", "amx_bf16")


class Embedder:
    """Turns texts into unit vectors with a model from a local folder; nothing is fetched, no code is run."""

    def __init__(self, folder: Path | str, dtype: str = "auto", name: str = "") -> None:
        """Load the model.

        ``dtype`` is auto (bfloat16 where the CPU computes in it, else float32), float32 or bfloat16.
        Raises BadInput when the folder is not an embedder this class can run faithfully.
        """
        folder = Path(folder)
        self.name = name or folder.name
        self.dtype = resolve_dtype(dtype)
        self._pooling = _pooling(folder)
        prompts = _json(folder / "config_sentence_transformers.json").get("prompts") or {}
        self._prefixes = str(prompts.get("document") or ""), str(prompts.get("query") or "")
        self.tokenizer = _tokenizer(folder)
        self._specials = len(self.tokenizer.encode("").ids)
        self._model = _model(folder, self.dtype)
        even_out(self._model)
        self._first = first_position(self._model)
        config = self._model.config
        self.dimension: int = config.hidden_size
        limit = _json(folder / "sentence_bert_config.json").get("max_seq_length")
        self._window = min(int(limit or config.max_position_embeddings), int(config.max_position_embeddings))
        self.max_tokens = self._window - self._specials - max(map(self.count_tokens, self._prefixes))
        weights, words = (sha256_file(folder / name) for name in ("model.safetensors", "tokenizer.json"))
        self.fingerprint = (
            f"sha256:{weights} tokenizer:{words} "
            f"{self.dimension}d {self._window} tokens {self._pooling} unit prefixes={list(self._prefixes)!r}"
        )

    def count_tokens(self, text: str) -> int:
        """Return the text's length in the model's tokens, without special tokens."""
        return len(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def encode(
        self, texts: Sequence[str], *, query: bool = False, on_event: OnEvent | None = None
    ) -> np.ndarray:
        """Return float32 [len(texts), dimension], each row of length 1.

        A text longer than the window is cut into windows whose vectors are averaged: nothing is dropped.
        Emits ``{"event": "embed.batch", "done", "total"}`` counted in windows.
        """
        prefix = self._prefixes[1] if query else self._prefixes[0]
        encodings = self.tokenizer.encode_batch_fast([prefix + text for text in texts])
        pieces = [self._windows(encoding) for encoding in encodings]
        flat = [ids for windows in pieces for ids in windows]
        vectors = self._encode_ids(flat, on_event)
        counts = np.array([len(windows) for windows in pieces], dtype=np.int64)
        if len(flat) == len(texts):
            return vectors
        sums = np.add.reduceat(vectors, np.concatenate([[0], counts.cumsum()[:-1]]), axis=0)
        return np.ascontiguousarray(sums / np.linalg.norm(sums, axis=1, keepdims=True), dtype=np.float32)

    def _windows(self, encoding: Encoding) -> list[list[int]]:
        if len(encoding.ids) <= self._window:
            return [encoding.ids]
        encoding.truncate(self._window, stride=0)
        return [part.ids for part in [encoding, *encoding.overflowing]]

    def _encode_ids(self, rows: list[list[int]], on_event: OnEvent | None) -> np.ndarray:
        vectors = np.empty((len(rows), self.dimension), dtype=np.float32)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        done = 0
        for batch in _batches(order, rows, mixed=self._first is not None):
            vectors[batch] = self._forward([rows[i] for i in batch])
            done += len(batch)
            if on_event:
                on_event({"event": "embed.batch", "done": done, "total": len(rows)})
        return vectors

    @torch.inference_mode()
    def _forward(self, batch: list[list[int]]) -> np.ndarray:
        if self._first is None:
            hidden = self._model(input_ids=torch.tensor(batch)).last_hidden_state.flatten(0, 1)
        else:
            hidden = packed(self._model, batch, self._first)
        runs = runs_of(batch)
        parts = hidden.float().split([count * length for count, length in runs])
        texts = [part.unflatten(0, run) for part, run in zip(parts, runs, strict=True)]
        pooled = torch.cat([text[:, 0] if self._pooling == "cls" else text.mean(dim=1) for text in texts])
        unit = torch.nn.functional.normalize(pooled, dim=1)
        return np.asarray(unit.numpy(), dtype=np.float32)


def resolve_dtype(dtype: str) -> torch.dtype:
    """Return the torch type for auto, float32 or bfloat16; auto asks whether the CPU computes in bf16."""
    if dtype == "auto":
        return torch.bfloat16 if computes_bf16() else torch.float32
    try:
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]
    except KeyError:
        raise BadInput(f"the embedder's dtype {dtype!r} is none of auto, float32, bfloat16") from None


def computes_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether the CPU has bf16 instructions; without them bf16 is emulated and slower than fp32."""
    try:
        flags = next(line for line in cpuinfo.read_text().splitlines() if line.startswith("flags"))
    except (OSError, StopIteration):
        return False
    return any(flag in flags.split() for flag in _BF16_FLAGS)


def _batches(order: list[int], rows: list[list[int]], *, mixed: bool) -> Iterator[list[int]]:
    """Yield rows in order, at most BATCH_TOKENS tokens together, of one length unless ``mixed``."""
    batch: list[int] = []
    size = 0
    for i in order:
        length = len(rows[i])
        if batch and (size + length > BATCH_TOKENS or not (mixed or length == len(rows[batch[0]]))):
            yield batch
            batch, size = [], 0
        batch.append(i)
        size += length
    if batch:
        yield batch


def _model(folder: Path, dtype: torch.dtype) -> Any:
    if not (folder / "model.safetensors").is_file():
        raise BadInput(
            f"the embedder folder {folder} has no model.safetensors", "only safetensors are loaded"
        )
    if "auto_map" in (config := _json(folder / "config.json")) or not config:
        raise BadInput(
            f"the embedder folder {folder} has no plain config.json (or one that names code to run)"
        )
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model = AutoModel.from_pretrained(
            folder, dtype=dtype, local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
    finally:
        if bars:
            logging.enable_progress_bar()
    return model.eval()


def _tokenizer(folder: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers raises bare Exception
        raise BadInput(f"the embedder folder {folder} has no readable tokenizer.json: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _pooling(folder: Path) -> str:
    config = _json(folder / "1_Pooling" / "config.json")
    if config.get("pooling_mode_cls_token"):
        return "cls"
    if config.get("pooling_mode_mean_tokens", not config):
        return "mean"
    raise BadInput(f"the embedder folder {folder} pools in a way that is not supported", "mean and cls are")


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(f"{path} is damaged: {error}") from error

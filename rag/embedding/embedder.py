"""The embedder: a local sentence-transformers folder run through transformers.

Vectors are reproducible: on one machine a text's vector is the same bit for bit whatever else is embedded with
it. Texts are laid one after the other (see ``packed``; models that this does not fit take batches of one length),
without padding or mask, and the model's products have sizes that are known to agree (see ``even``).

Texts of different lengths in one pass of the embedder, one after the other, without padding or mask.

Every layer but attention treats each token by itself; attention is computed for one run of equally long texts
after the other. So a batch is always full, and a text's vector has the bits it has alone: on all 11,105 texts of
concierge they were those of batches of one length, 5 to 10 % faster, 111 texts of 21 lengths four times faster.

Linear layers that give a row the same bits whatever other rows come with it.

A matrix product picks its kernel by the number of rows, and kernels add up in different orders. On one CPU with
AMX (torch 2.13, two threads) the 1536 to 384 product of all-MiniLM gave other bits in bf16 for 33 to 511 rows
than for 2,048, and in fp32 for 1 to 15 and 57 to 192; elsewhere only fp32 below 16 rows did. So rows are filled
up with zeros to one of a few sizes, those that were seen to agree here when the model was loaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Encoding, Tokenizer
from torch.nn.functional import linear, pad, scaled_dot_product_attention
from transformers import AttentionInterface, AutoModel
from transformers.utils import logging

from rag.errors import BadInput
from rag.files import sha256_file
from rag.types import OnEvent

_NAME = "tunewise_runs"
_FROM_ZERO = ("bert",)
_AFTER_PADDING = ("camembert", "roberta", "xlm-roberta")
"""Model types that number positions from the padding token's id on."""

RowRun = tuple[int, int]
"""How many texts, and how many tokens each of them has."""


def prepare_packed_encoding(model: Any) -> int | None:
    """Prepare a model for ``packed`` and return its first token's position; None leaves a model that it does not fit."""
    config = model.config
    if config.model_type not in (*_FROM_ZERO, *_AFTER_PADDING) or config.is_decoder:
        return None
    AttentionInterface.register(_NAME, _attention)
    model.set_attn_implementation(_NAME)
    return 0 if config.model_type in _FROM_ZERO else int(config.pad_token_id) + 1


def equal_length_runs(rows: Sequence[Sequence[int]]) -> list[RowRun]:
    """Return the runs of equally long rows, in order."""
    return [(len(list(run)), length) for length, run in groupby(map(len, rows))]


def encode_packed(model: Any, rows: Sequence[Sequence[int]], first: int) -> torch.Tensor:
    """Return the hidden states of rows of token ids, [all tokens, hidden], in order."""
    runs = equal_length_runs(rows)
    ids = torch.tensor([token for row in rows for token in row])
    places = torch.cat([torch.arange(first, first + length).repeat(count) for count, length in runs])
    hidden: torch.Tensor = model(
        input_ids=ids[None], position_ids=places[None], runs=runs
    ).last_hidden_state.squeeze(0)
    return hidden


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    *,
    runs: Sequence[RowRun],
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend inside each text; query, key, value are [1, heads, all tokens, width]."""
    del module, mask
    sizes = [count * length for count, length in runs]
    parts = []
    for run, *three in zip(
        runs, *(x.squeeze(0).split(sizes, dim=1) for x in (query, key, value)), strict=True
    ):
        q, k, v = (x.unflatten(1, run).transpose(0, 1) for x in three)
        parts.append(scaled_dot_product_attention(q, k, v, scale=scaling).transpose(1, 2).flatten(0, 1))
    return torch.cat(parts).unsqueeze(0), None


MAX_ROWS_PER_PRODUCT = 2048
"""Rows of the largest product; more are taken in parts."""
PRODUCT_SIZES = (32, 64, 128, 256, *range(512, MAX_ROWS_PER_PRODUCT + 1, 256))
"""Rows that are filled up to; a batch of 1,300 is then a twelfth of filling on average. Trying all of them takes
a tenth of a second for all-MiniLM in bf16."""


class DeterministicLinear(torch.nn.Module):
    """A linear layer that multiplies only in sizes that agree."""

    def __init__(self, layer: torch.nn.Linear, sizes: tuple[int, ...]) -> None:
        """Take over a layer's weights; ``sizes`` ascend, the last is ``LARGEST``."""
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self._sizes = sizes

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Return the layer's output, [..., out] for [..., in]."""
        rows = given.reshape(-1, given.shape[-1])
        parts = [self._product(part) for part in rows.split(MAX_ROWS_PER_PRODUCT)]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).reshape(*given.shape[:-1], -1)

    def _product(self, rows: torch.Tensor) -> torch.Tensor:
        size = next(size for size in self._sizes if size >= len(rows))
        return linear(pad(rows, (0, 0, 0, size - len(rows))), self.weight, self.bias)[: len(rows)]


@torch.inference_mode()
def make_deterministic(model: torch.nn.Module) -> None:
    """Replace every linear layer of a model, its weights kept."""
    sizes: dict[tuple[int, int], tuple[int, ...]] = {}
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, torch.nn.Linear):
                shape = (layer.in_features, layer.out_features)
                if shape not in sizes:
                    sizes[shape] = bit_identical_sizes(layer)
                setattr(parent, name, DeterministicLinear(layer, sizes[shape]))


def bit_identical_sizes(layer: torch.nn.Linear) -> tuple[int, ...]:
    """Return the sizes whose products are bit for bit those of the largest, wherever the rows stand."""
    draw = torch.Generator().manual_seed(1234)
    rows = torch.randn(MAX_ROWS_PER_PRODUCT, layer.in_features, generator=draw).to(layer.weight.dtype)
    whole = layer(rows)
    return tuple(
        size
        for size in PRODUCT_SIZES
        if torch.equal(layer(rows[:size]), whole[:size]) and torch.equal(layer(rows[-size:]), whole[-size:])
    )


BATCH_TOKENS = MAX_ROWS_PER_PRODUCT
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
        make_deterministic(self._model)
        self._first = prepare_packed_encoding(self._model)
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
            hidden = encode_packed(self._model, batch, self._first)
        runs = equal_length_runs(batch)
        parts = hidden.float().split([count * length for count, length in runs])
        texts = [part.unflatten(0, run) for part, run in zip(parts, runs, strict=True)]
        pooled = torch.cat([text[:, 0] if self._pooling == "cls" else text.mean(dim=1) for text in texts])
        unit = torch.nn.functional.normalize(pooled, dim=1)
        return np.asarray(unit.numpy(), dtype=np.float32)


def resolve_dtype(dtype: str) -> torch.dtype:
    """Return the torch type for auto, float32 or bfloat16; auto asks whether the CPU computes in bf16."""
    if dtype == "auto":
        return torch.bfloat16 if cpu_supports_bf16() else torch.float32
    try:
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]
    except KeyError:
        raise BadInput(f"the embedder's dtype {dtype!r} is none of auto, float32, bfloat16") from None


def cpu_supports_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
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

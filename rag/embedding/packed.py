"""Packed encoding: texts of many lengths in one pass through a transformer, without padding. Imports torch.

It is the fast path of :class:`rag.embedding.embedder.Embedder` on a CPU, for the models of :data:`PACKED_MODEL_TYPES`;
the reference path is :mod:`rag.embedding.library`. Vectors are reproducible: on one machine a text's vector is the same bit
for bit whatever other texts are embedded with it. Two measures make it so.

Packed encoding (:func:`encode_packed`): texts of different lengths go through the model in one pass, one
after the other, without padding or mask. Every layer but attention treats each token by itself; attention is
computed for one run of equally long texts after the other. So a batch is always full, and a text's vector has
the bits it has alone: on all 11,105 texts of concierge they were those of batches of one length, 5 to 10 %
faster, and 111 texts of 21 lengths four times faster.

Deterministic batching (:class:`DeterministicLinear`): a matrix product picks its kernel by the number of
rows, and kernels add up in different orders. On one CPU with AMX (torch 2.13, two threads) the 1536 to 384
product of all-MiniLM gave other bits in bf16 for 33 to 511 rows than for 2,048, and in fp32 for 1 to 15 and
57 to 192; elsewhere only fp32 below 16 rows did. So rows are padded with zeros to one of a few sizes, those
that gave the same bits on this machine when the model was loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import linear, normalize, pad, scaled_dot_product_attention
from transformers import AttentionInterface, AutoModel
from transformers.utils import logging

from rag.embedding.folder import EmbedderFolder
from rag.embedding.low_rank import add_changes
from rag.errors import BadInput

PACKED_POOLING = ("mean", "cls")
"""Ways of pooling that the packed encoder computes."""
_ATTENTION_NAME = "tunewise_runs"
"""Name under which the attention function is registered with transformers."""
_POSITIONS_FROM_ZERO = ("bert",)
"""Model types that number positions from 0."""
_POSITIONS_AFTER_PADDING = ("camembert", "roberta", "xlm-roberta")
"""Model types that number positions from the padding token's id on."""
PACKED_MODEL_TYPES = (*_POSITIONS_FROM_ZERO, *_POSITIONS_AFTER_PADDING)
"""Model types whose layers treat each token by itself, but for attention."""

RowRun = tuple[int, int]
"""A run of equally long texts: the number of texts, and the number of tokens in each."""


MAX_ROWS_PER_PRODUCT = 2048
"""Rows of the largest product; more rows are multiplied in parts."""
PRODUCT_SIZES = (32, 64, 128, 256, *range(512, MAX_ROWS_PER_PRODUCT + 1, 256))
"""Numbers of rows that a product may be padded to; of a batch of 1,300 a twelfth is then padding on average.
Trying all of them takes a tenth of a second for all-MiniLM in bf16."""


BATCH_TOKENS = MAX_ROWS_PER_PRODUCT
"""Tokens of a batch, so that its products need no second part."""
_BF16_FLAGS = ("avx512_bf16", "amx_bf16")
"""CPU flags in /proc/cpuinfo that announce bf16 instructions."""


class PackedEncoder:
    """Runs a BERT or RoBERTa with mean or cls pooling on token ids."""

    def __init__(
        self, folder: EmbedderFolder, dtype: torch.dtype, *, mixed: bool = True, changes: Path | None = None
    ) -> None:
        """Load the model; :func:`why_not_packed` must have returned "".

        Args:
            folder: of the embedder.
            dtype: of the model.
            mixed: whether a batch has texts of different lengths; else the model computes its own attention.
            changes: a file of low-rank changes of its weights.
        """
        self._pooling = folder.pooling_modes[0]
        self._model = _load_model(folder.input_folder, dtype)
        if changes:
            add_changes(self._model, changes)
        make_deterministic(self._model)
        self._first_position = prepare_packed_encoding(self._model) if mixed else None

    def encode(self, rows: Sequence[Sequence[int]], on_batch: Callable[[int], None]) -> np.ndarray:
        """Return the unit vectors of rows of token ids, float32 [rows, hidden size].

        Args:
            rows: token ids of each text, special ones included; sorted by length here, to fill the batches.
            on_batch: receives the number of rows done so far.
        """
        vectors = np.empty((len(rows), self._model.config.hidden_size), dtype=np.float32)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        done = 0
        for batch in length_batches(order, list(map(len, rows)), mixed=self._first_position is not None):
            vectors[batch] = self._forward([rows[i] for i in batch])
            done += len(batch)
            on_batch(done)
        return vectors

    @torch.inference_mode()
    def _forward(self, batch: Sequence[Sequence[int]]) -> np.ndarray:
        """Return the unit vectors of one batch, [rows, hidden size]."""
        if self._first_position is None:
            hidden = self._model(input_ids=torch.tensor(batch)).last_hidden_state.flatten(0, 1)
        else:
            hidden = encode_packed(self._model, batch, self._first_position)
        runs = equal_length_runs(batch)
        # Pooling adds up in float32, also where the model computed in bf16.
        parts = hidden.float().split([count * length for count, length in runs])
        texts = [part.unflatten(0, run) for part, run in zip(parts, runs, strict=True)]
        pooled = torch.cat([text[:, 0] if self._pooling == "cls" else text.mean(dim=1) for text in texts])
        return np.asarray(normalize(pooled, dim=1).numpy(), dtype=np.float32)


def why_not_packed(folder: EmbedderFolder) -> str:
    """Return why a folder cannot be run by :class:`PackedEncoder`, "" when it can."""
    model_type = str(folder.model_config.get("model_type"))
    if not folder.has_only_transformer:
        return f"modules {', '.join(module.kind for module in folder.modules)}"
    if model_type not in PACKED_MODEL_TYPES or folder.model_config.get("is_decoder"):
        return f"model type {model_type}"
    if len(folder.pooling_modes) > 1 or folder.pooling_modes[0] not in PACKED_POOLING:
        return f"pooling {'+'.join(folder.pooling_modes)}"
    if folder.pooling_config.get("include_prompt") is False:
        return "the prompt is not pooled"
    return "texts are put in lower case" if folder.lowers_case else ""


class DeterministicLinear(torch.nn.Module):
    """A linear layer whose output for a row has the same bits whatever other rows come with it.

    It multiplies only in sizes whose products agree bit for bit (see the module's text).
    """

    def __init__(self, layer: torch.nn.Linear, sizes: tuple[int, ...]) -> None:
        """Share a layer's weights.

        Args:
            layer: the layer to replace.
            sizes: allowed numbers of rows, ascending; the last is ``MAX_ROWS_PER_PRODUCT``.
        """
        super().__init__()
        self.weight = layer.weight
        self.bias = layer.bias
        self._sizes = sizes

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the layer's output, [..., out features] for [..., in features]."""
        # All leading dimensions become one of rows, because the kernel is chosen by their number.
        rows = inputs.reshape(-1, inputs.shape[-1])
        parts = [self._product(part) for part in rows.split(MAX_ROWS_PER_PRODUCT)]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).reshape(*inputs.shape[:-1], -1)

    def _product(self, rows: torch.Tensor) -> torch.Tensor:
        """Return [rows, out]: pad with zero rows to an allowed size, multiply, and drop the padding."""
        size = next(size for size in self._sizes if size >= len(rows))
        return linear(pad(rows, (0, 0, 0, size - len(rows))), self.weight, self.bias)[: len(rows)]


@torch.inference_mode()
def make_deterministic(model: torch.nn.Module) -> None:
    """Replace every linear layer of a model by a :class:`DeterministicLinear` with the same weights."""
    sizes: dict[tuple[int, int], tuple[int, ...]] = {}
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, torch.nn.Linear):
                shape = (layer.in_features, layer.out_features)
                if shape not in sizes:
                    sizes[shape] = bit_identical_sizes(layer)
                setattr(parent, name, DeterministicLinear(layer, sizes[shape]))


def bit_identical_sizes(layer: torch.nn.Linear) -> tuple[int, ...]:
    """Return the sizes whose products equal, bit for bit, those of ``MAX_ROWS_PER_PRODUCT`` rows.

    Random rows are multiplied once all together and once as the first and the last ``size`` of them: a row's
    bits must depend neither on the number of rows nor on its position among them.
    """
    generator = torch.Generator().manual_seed(1234)
    rows = torch.randn(MAX_ROWS_PER_PRODUCT, layer.in_features, generator=generator).to(layer.weight.dtype)
    full = layer(rows)
    return tuple(
        size
        for size in PRODUCT_SIZES
        if torch.equal(layer(rows[:size]), full[:size]) and torch.equal(layer(rows[-size:]), full[-size:])
    )


def prepare_packed_encoding(model: Any) -> int | None:
    """Switch a model to packed attention and return the position id of a text's first token.

    Returns None, and leaves the model as it is, when packed encoding does not fit its architecture.
    """
    config = model.config
    if config.model_type not in (*_POSITIONS_FROM_ZERO, *_POSITIONS_AFTER_PADDING) or config.is_decoder:
        return None
    AttentionInterface.register(_ATTENTION_NAME, _attention)
    model.set_attn_implementation(_ATTENTION_NAME)
    return 0 if config.model_type in _POSITIONS_FROM_ZERO else int(config.pad_token_id) + 1


def equal_length_runs(rows: Sequence[Sequence[int]]) -> list[RowRun]:
    """Return the runs of equally long rows, in order."""
    return [(len(list(run)), length) for length, run in groupby(map(len, rows))]


def encode_packed(model: Any, rows: Sequence[Sequence[int]], first: int) -> torch.Tensor:
    """Return the hidden states of rows of token ids, [all tokens, hidden], in order.

    Args:
        model: a model prepared by :func:`prepare_packed_encoding`.
        rows: token ids of each text.
        first: position id of a text's first token.
    """
    runs = equal_length_runs(rows)
    ids = torch.tensor([token for row in rows for token in row])
    # Position ids start anew with every text: the model must not see that texts share one sequence.
    positions = torch.cat([torch.arange(first, first + length).repeat(count) for count, length in runs])
    # One batch of a single sequence, [1, all tokens]; ``runs`` reaches the attention function as a keyword.
    output = model(input_ids=ids[None], position_ids=positions[None], runs=runs)
    hidden: torch.Tensor = output.last_hidden_state.squeeze(0)
    return hidden


def resolve_dtype(dtype: str) -> torch.dtype:
    """Return the torch type for auto, float32 or bfloat16; auto is bfloat16 where the CPU computes in it."""
    if dtype == "auto":
        return torch.bfloat16 if cpu_supports_bf16() else torch.float32
    try:
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]
    except KeyError:
        raise BadInput(f"the embedder's dtype {dtype!r} is none of auto, float32, bfloat16") from None


def cpu_supports_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether the CPU has bf16 instructions; without them bf16 is emulated and slower than fp32."""
    try:
        flags = next(
            line for line in cpuinfo.read_text("ascii", "replace").splitlines() if line.startswith("flags")
        )
    except (OSError, StopIteration):
        return False
    return any(flag in flags.split() for flag in _BF16_FLAGS)


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
    """Attend inside each text only: the attention function that transformers calls in every layer.

    Args:
        module: unused.
        query: [1, heads, all tokens, head width]; ``key`` and ``value`` have the same shape.
        key: see ``query``.
        value: see ``query``.
        mask: unused; the split into runs takes its place.
        runs: the runs of equally long texts, in the order of the tokens.
        scaling: factor on query times key; None is 1/sqrt(head width).

    Returns:
        [1, all tokens, heads, head width], and None for the attention weights, which are not kept.
    """
    del module, mask
    sizes = [count * length for count, length in runs]
    parts = []
    split = (tensor.squeeze(0).split(sizes, dim=1) for tensor in (query, key, value))
    for run, *tensors in zip(runs, *split, strict=True):
        # [heads, count * length, width] -> [count, heads, length, width]: the texts of a run are a plain
        # batch.
        q, k, v = (tensor.unflatten(1, run).transpose(0, 1) for tensor in tensors)
        attended = scaled_dot_product_attention(q, k, v, scale=scaling)
        # [count, heads, length, width] -> [count * length, heads, width], the layout that transformers
        # expects.
        parts.append(attended.transpose(1, 2).flatten(0, 1))
    return torch.cat(parts).unsqueeze(0), None


def length_batches(
    order: Sequence[int], lengths: Sequence[int], *, mixed: bool, batch_tokens: int = BATCH_TOKENS
) -> Iterator[list[int]]:
    """Yield row numbers in order, at most ``batch_tokens`` tokens together, of one length unless ``mixed``."""
    batch: list[int] = []
    size = 0
    for i in order:
        length = lengths[i]
        if batch and (size + length > batch_tokens or not (mixed or length == lengths[batch[0]])):
            yield batch
            batch, size = [], 0
        batch.append(i)
        size += length
    if batch:
        yield batch


def _load_model(folder: Path, dtype: torch.dtype) -> Any:
    """Return the model of a folder, from safetensors, without code of its own."""
    progress_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model = AutoModel.from_pretrained(
            folder, dtype=dtype, local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
    finally:
        if progress_bars:
            logging.enable_progress_bar()
    return model.eval()

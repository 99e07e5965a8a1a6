"""Packed encoding: texts of many lengths in one pass through a transformer, without padding. Imports torch.

It is the fast path of :class:`rag.embedding.embedder.Embedder` on a CPU, for the models of :data:`PACKED_MODEL_TYPES`;
the reference path is :mod:`rag.embedding.library`. :class:`Bert` computes them with torch alone, since transformers takes
seconds to import: the operations and their order are those of its ``modeling_bert``, so that the hidden states are the same
bit for bit. Vectors are reproducible: on one machine a text's vector is the same bit for bit whatever other texts are
embedded with it. Two measures make it so.

Packed encoding (:func:`encode_packed`): texts of different lengths go through the model in one pass, one
after the other, without padding or mask. Every layer but attention treats each token by itself; attention is
computed for one run of equally long texts after the other. So a batch is always full, and a text's vector has
the bits it has alone: on all 11,105 texts of concierge they were those of batches of one length, 5 to 10 %
faster, and 111 texts of 21 lengths four times faster.

Deterministic batching (:class:`DeterministicLinear`): a matrix product picks its kernel by the number of
rows, and kernels add up in different orders. On one CPU with AMX (torch 2.13, two threads) the 1536 to 384
product of all-MiniLM gave other bits in bf16 for 33 to 511 rows than for 2,048, and in fp32 for 1 to 15 and
57 to 192; elsewhere only fp32 below 16 rows did. So rows are padded with zeros to one of a few sizes, those
that give the same bits on this machine (:class:`ProductSizes`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import nn
from torch.nn.functional import gelu, layer_norm, linear, normalize, pad, scaled_dot_product_attention

from rag.embedding.folder import EmbedderFolder, read_object
from rag.embedding.low_rank import add_changes
from rag.errors import BadInput

PACKED_POOLING = ("mean", "cls")
"""Ways of pooling that the packed encoder computes."""
_POSITIONS_FROM_ZERO = ("bert",)
"""Model types that number positions from 0."""
_POSITIONS_AFTER_PADDING = ("camembert", "roberta", "xlm-roberta")
"""Model types that number positions from the padding token's id on."""
PACKED_MODEL_TYPES = (*_POSITIONS_FROM_ZERO, *_POSITIONS_AFTER_PADDING)
"""Model types whose layers treat each token by itself, but for attention."""
_BERT_DEFAULTS: Mapping[str, Any] = {
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}
"""What transformers takes for settings that a ``config.json`` leaves out."""

Weights = Mapping[str, torch.Tensor]
"""Tensors by the names of parameters."""
Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Attention: query, key and value [rows, heads, tokens, head width] to [rows, tokens, heads, head width]."""

RowRun = tuple[int, int]
"""A run of equally long texts: the number of texts, and the number of tokens in each."""


MAX_ROWS_PER_PRODUCT = 2048
"""Rows of the largest product; more rows are multiplied in parts."""
PRODUCT_SIZES = (32, 64, 128, 256, *range(512, MAX_ROWS_PER_PRODUCT + 1, 256))
"""Numbers of rows that a product may be padded to; of a batch of 1,300 a twelfth is then padding on average."""


BATCH_TOKENS = MAX_ROWS_PER_PRODUCT
"""Tokens of a batch, so that its products need no second part."""
_BF16_FLAGS = ("avx512_bf16", "amx_bf16")
"""CPU flags in /proc/cpuinfo that announce bf16 instructions."""


def linear_layer(weights: Weights, name: str) -> nn.Linear:
    """Return a linear layer with the weight and the bias, if there is one, of a name.

    torch would first draw a weight at random. (On its meta device that imports ``torch._dynamo``, which takes seconds.)

    Raises:
        KeyError: when there is no such weight.
    """
    layer = nn.Linear.__new__(nn.Linear)
    nn.Module.__init__(layer)
    weight, bias = weights[f"{name}.weight"], weights.get(f"{name}.bias")
    layer.out_features, layer.in_features = weight.shape
    layer.weight = nn.Parameter(weight, requires_grad=False)
    layer.register_parameter("bias", None if bias is None else nn.Parameter(bias, requires_grad=False))
    return layer


class _Norm(nn.Module):
    """A layer norm with the weights of a name."""

    def __init__(self, weights: Weights, name: str, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weights[f"{name}.weight"], requires_grad=False)
        self.bias = nn.Parameter(weights[f"{name}.bias"], requires_grad=False)
        self._eps = eps

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return layer_norm(hidden, self.weight.shape, self.weight, self.bias, self._eps)


class _SelfAttention(nn.Module):
    def __init__(self, weights: Weights, name: str, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.query, self.key, self.value = (
            linear_layer(weights, f"{name}.{part}") for part in ("query", "key", "value")
        )

    def forward(self, hidden: torch.Tensor, attend: Attend) -> torch.Tensor:
        parts = (
            layer(hidden).unflatten(-1, (self._heads, -1)) for layer in (self.query, self.key, self.value)
        )
        return attend(*(part.transpose(1, 2) for part in parts)).flatten(2)


class _AddAndNorm(nn.Module):
    """A linear layer; what came in before is added to its output, and the sum normalised."""

    def __init__(self, weights: Weights, name: str, eps: float) -> None:
        super().__init__()
        self.dense = linear_layer(weights, f"{name}.dense")
        self.LayerNorm = _Norm(weights, f"{name}.LayerNorm", eps)

    def forward(self, inputs: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = self.LayerNorm(self.dense(inputs) + before)
        return normed


class _Layer(nn.Module):
    def __init__(self, weights: Weights, name: str, config: Mapping[str, Any]) -> None:
        super().__init__()
        eps = config["layer_norm_eps"]
        attention = _SelfAttention(weights, f"{name}.attention.self", config["num_attention_heads"])
        output = _AddAndNorm(weights, f"{name}.attention.output", eps)
        self.attention = nn.ModuleDict({"self": attention, "output": output})
        self.intermediate = nn.ModuleDict({"dense": linear_layer(weights, f"{name}.intermediate.dense")})
        self.output = _AddAndNorm(weights, f"{name}.output", eps)
        self._activation = _activation(str(config["hidden_act"]))

    def forward(self, hidden: torch.Tensor, attend: Attend) -> torch.Tensor:
        attended = self.attention["output"](self.attention["self"](hidden, attend), hidden)
        result: torch.Tensor = self.output(self._activation(self.intermediate["dense"](attended)), attended)
        return result


class Bert(nn.Module):
    """A BERT, RoBERTa, XLM-RoBERTa or CamemBERT without pooler or head; its modules are named as transformers names them."""

    def __init__(self, config: Mapping[str, Any], weights: Weights) -> None:
        """Make the model of a ``config.json`` in evaluation mode; KeyError where a weight is missing."""
        super().__init__()
        config = {**_BERT_DEFAULTS, **config}
        after_padding = config["model_type"] in _POSITIONS_AFTER_PADDING
        self.first_position = int(config.get("pad_token_id", 1)) + 1 if after_padding else 0
        """Position id of a text's first token."""
        tables = [f"{table}_embeddings" for table in ("word", "position", "token_type")]
        self.embeddings = nn.ModuleDict(
            {name: nn.Embedding.from_pretrained(weights[f"embeddings.{name}.weight"]) for name in tables}
        )
        self.embeddings["LayerNorm"] = _Norm(weights, "embeddings.LayerNorm", config["layer_norm_eps"])
        numbers = range(config["num_hidden_layers"])
        layers = nn.ModuleList(_Layer(weights, f"encoder.layer.{number}", config) for number in numbers)
        self.encoder = nn.ModuleDict({"layer": layers})
        self.hidden_size = weights["embeddings.LayerNorm.weight"].shape[0]
        self.eval()

    @classmethod
    def load(cls, folder: Path, dtype: torch.dtype) -> Bert:
        """Return the model of a folder, from safetensors.

        Raises:
            BadInput: when a weight is missing that its ``config.json`` describes.
        """
        whole = folder / "model.safetensors"
        weights: dict[str, torch.Tensor] = {}
        for file in [whole] if whole.is_file() else sorted(folder.glob("*.safetensors")):
            with safe_open(str(file), "pt") as tensors:
                names: list[str] = tensors.keys()
                weights |= {_parameter_name(name): tensors.get_tensor(name).to(dtype) for name in names}
        try:
            return cls(read_object(folder / "config.json"), weights)
        except KeyError as error:
            raise BadInput(f"the weights in {folder} lack {error}, which its config.json describes") from None

    def forward(
        self, ids: torch.Tensor, positions: torch.Tensor, types: torch.Tensor, attend: Attend
    ) -> torch.Tensor:
        """Return the hidden states of the last layer, [rows, tokens, hidden size].

        Args:
            ids: token ids, [rows, tokens].
            positions: position ids, [rows, tokens]; one row is for all.
            types: token type ids, [rows, tokens].
            attend: which tokens see which.
        """
        table = self.embeddings
        hidden = table["word_embeddings"](ids) + table["token_type_embeddings"](types)
        hidden = table["LayerNorm"](hidden + table["position_embeddings"](positions))
        layers: Any = self.encoder["layer"]
        for layer in layers:
            hidden = layer(hidden, attend)
        return hidden

    def encode_padded(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        """Return the hidden states of padded rows, [rows, tokens, hidden size].

        Args:
            ids: token ids, [rows, tokens].
            mask: 1 for tokens, 0 for padding, which comes last, [rows, tokens].
            types: token type ids, [rows, tokens].
        """
        width = ids.shape[1]
        positions = torch.arange(self.first_position, self.first_position + width, device=ids.device)[None]
        allowed = None if mask.all() else mask[:, None, None].bool().expand(-1, 1, width, width)
        hidden: torch.Tensor = self(ids, positions, types, partial(_attend, mask=allowed))
        return hidden


def _activation(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return an activation function by transformers' name of it."""
    if name == "gelu":
        return gelu
    from transformers.activations import ACT2FN

    function: Callable[[torch.Tensor], torch.Tensor] = ACT2FN[name]
    return function


def _parameter_name(name: str) -> str:
    """Return a stored tensor's name in :class:`Bert`: without the prefix of a model with a head, and TensorFlow's words."""
    name = name.removeprefix("bert.").removeprefix("roberta.")
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


class PackedEncoder:
    """Runs a BERT or RoBERTa with mean or cls pooling on token ids."""

    def __init__(self, folder: EmbedderFolder, dtype: torch.dtype, *, changes: Path | None = None) -> None:
        """Load the model; :func:`why_not_packed` must have returned "".

        Args:
            folder: of the embedder.
            dtype: of the model.
            changes: a file of low-rank changes of its weights.
        """
        self._pooling = folder.pooling_modes[0]
        self._model = Bert.load(folder.input_folder, dtype)
        if changes:
            add_changes(self._model, changes)
        make_deterministic(self._model)

    def encode(self, rows: Sequence[Sequence[int]], on_batch: Callable[[int], None]) -> np.ndarray:
        """Return the unit vectors of rows of token ids, float32 [rows, hidden size].

        Args:
            rows: token ids of each text, special ones included; sorted by length here, to fill the batches.
            on_batch: receives the number of rows done so far.
        """
        vectors = np.empty((len(rows), self._model.hidden_size), dtype=np.float32)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        done = 0
        for batch in length_batches(order, list(map(len, rows)), mixed=True):
            vectors[batch] = self._forward([rows[i] for i in batch])
            done += len(batch)
            on_batch(done)
        return vectors

    @torch.inference_mode()
    def _forward(self, batch: Sequence[Sequence[int]]) -> np.ndarray:
        """Return the unit vectors of one batch, [rows, hidden size]."""
        hidden = encode_packed(self._model, batch)
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


class ProductSizes:
    """The numbers of rows whose products with a layer equal, bit for bit, those of ``MAX_ROWS_PER_PRODUCT`` rows.

    Each is tried when it is first needed: a question needs one, an index all. Random rows are multiplied once all together
    and once as the first and the last ``size`` of them: a row's bits must depend neither on the number of rows nor on its
    position among them.
    """

    def __init__(self, layer: torch.nn.Linear) -> None:
        """Take a layer; others of its shape and dtype have the same sizes."""
        self._layer = layer
        self._agree = {MAX_ROWS_PER_PRODUCT: True}

    def smallest(self, rows: int) -> int:
        """Return the smallest size of at least so many rows, at most ``MAX_ROWS_PER_PRODUCT``."""
        return next(size for size in PRODUCT_SIZES if size >= rows and self._agrees(size))

    @torch.inference_mode()
    def _agrees(self, size: int) -> bool:
        if size not in self._agree:
            rows, full = self._products
            first, last = self._layer(rows[:size]), self._layer(rows[-size:])
            self._agree[size] = torch.equal(first, full[:size]) and torch.equal(last, full[-size:])
        return self._agree[size]

    @cached_property
    def _products(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The random rows, [rows, in features], and their product, [rows, out features]."""
        layer, generator = self._layer, torch.Generator().manual_seed(1234)
        rows = torch.randn(MAX_ROWS_PER_PRODUCT, layer.in_features, generator=generator).to(
            layer.weight.dtype
        )
        return rows, layer(rows)


class DeterministicLinear(torch.nn.Module):
    """A linear layer whose output for a row has the same bits whatever other rows come with it.

    It multiplies only in sizes whose products agree bit for bit (see the module's text).
    """

    def __init__(self, layer: torch.nn.Linear, sizes: ProductSizes) -> None:
        """Share a layer's weights.

        Args:
            layer: the layer to replace.
            sizes: allowed numbers of rows.
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
        size = self._sizes.smallest(len(rows))
        return linear(pad(rows, (0, 0, 0, size - len(rows))), self.weight, self.bias)[: len(rows)]


def make_deterministic(model: torch.nn.Module) -> None:
    """Replace every linear layer of a model by a :class:`DeterministicLinear` with the same weights."""
    sizes: dict[tuple[int, int], ProductSizes] = {}
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, torch.nn.Linear):
                shape = (layer.in_features, layer.out_features)
                if shape not in sizes:
                    sizes[shape] = ProductSizes(layer)
                setattr(parent, name, DeterministicLinear(layer, sizes[shape]))


def equal_length_runs(rows: Sequence[Sequence[int]]) -> list[RowRun]:
    """Return the runs of equally long rows, in order."""
    return [(len(list(run)), length) for length, run in groupby(map(len, rows))]


def encode_packed(model: Bert, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Return the hidden states of rows of token ids, [all tokens, hidden size], in order."""
    runs = equal_length_runs(rows)
    # One batch of a single sequence, [1, all tokens].
    ids = torch.tensor([[token for row in rows for token in row]])
    # Position ids start anew with every text: the model must not see that texts share one sequence.
    first = model.first_position
    positions = torch.cat([torch.arange(first, first + length).repeat(count) for count, length in runs])
    hidden: torch.Tensor = model(
        ids, positions[None], torch.zeros_like(ids), partial(_attend_in_runs, runs=runs)
    )
    return hidden.squeeze(0)


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


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Attend where a mask [rows, 1, tokens, tokens] is true, everywhere without one: see :data:`Attend`."""
    scale = query.shape[-1] ** -0.5
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale).transpose(1, 2)


def _attend_in_runs(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, runs: Sequence[RowRun]
) -> torch.Tensor:
    """Attend inside each text only.

    Args:
        query: [1, heads, all tokens, head width]; ``key`` and ``value`` have the same shape.
        key: see ``query``.
        value: see ``query``.
        runs: the runs of equally long texts, in the order of the tokens.

    Returns:
        [1, all tokens, heads, head width].
    """
    sizes = [count * length for count, length in runs]
    parts = []
    split = (tensor.squeeze(0).split(sizes, dim=1) for tensor in (query, key, value))
    for run, *tensors in zip(runs, *split, strict=True):
        # [heads, count * length, width] -> [count, heads, length, width]: the texts of a run are a plain batch.
        attended = _attend(*(tensor.unflatten(1, run).transpose(0, 1) for tensor in tensors))
        parts.append(attended.flatten(0, 1))  # [count * length, heads, width]
    return torch.cat(parts).unsqueeze(0)


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

"""A fused decoding step and prefill for models built like Llama, with little overhead around the matrix products.

transformers' layers spend a third of a single-stream step outside the products (22 ms against 15 ms a token on a 135M
model in bf16, 2 cores). Here query, key and value are one product, so are gate and up, and the cache is written in
place; every number is computed as transformers computes it, in the same order and dtype.

transformers' forward pass of a prompt writes every intermediate to memory, computes padding as tokens, what rows share
once for each, and the last layer to its end for tokens of which only keys and values are needed. In
:class:`FusedPrefill` the tokens of all rows stand one after the other without padding, those of a shared segment once;
the parts of a layer that see one token at a time run on chunks that stay in the processor's cache; a block of queries sees
the keys up to its last token, so half of the scores are never computed; and of the last layer only the last token of a row
is computed to its end. Numbers are computed in the same order and dtype as well, but sums in other blocks.

Neither calls transformers' layers, whose modules take seconds to import: :class:`StepModel` is a model that holds what the
two read, and :func:`equals_whole_model` says whether it is the same bit for bit. Imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional as F

from rag.embedding.packed import Weights, linear_layer
from runners.inference.kv_cache import StaticKVCache
from runners.inference.prefix_groups import PromptPart, prompt_parts, shared_segments
from runners.models.fingerprint import read_json, weight_files

MODEL_TYPES = ("llama", "mistral", "qwen2")
"""Architectures whose layers are exactly these; a mistral with a sliding window is recognised by its cache."""

CHUNK_TOKENS = 512
"""Tokens of a chunk: their intermediates stay in a second-level cache, and the weights are read once for many."""
QUERY_BLOCK = 128
"""Queries of a block of attention. Fewer compute fewer scores that the mask hides, more keep more threads busy."""
TOKEN_MULTIPLE = 16
"""A chunk has a multiple of this many tokens. For every new number of rows of a product oneDNN compiles kernels and caches
them: 150 questions of as many lengths left 110 MiB in memory, in such multiples 58, ever fewer."""
MatrixProduct = Callable[[torch.Tensor], torch.Tensor]
"""A matrix product with weights, and a bias where the layer has one: [..., in] to [..., out]."""
PackWeight = Callable[[torch.Tensor, torch.Tensor | None], MatrixProduct]
"""Makes a product from a weight [out, in] and a bias [out]."""


def unpacked(weight: torch.Tensor, bias: torch.Tensor | None) -> MatrixProduct:
    """Return the product with the model's own weights, in their own dtype."""
    return lambda x: F.linear(x, weight, bias)


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One layer's norms and products; `qkv` and `gate_up` are several of the model's in one."""

    norm_in: torch.Tensor
    qkv: MatrixProduct
    out: MatrixProduct
    norm_mlp: torch.Tensor
    gate_up: MatrixProduct
    down: MatrixProduct


class FusedLlamaStep:
    """The decoding step of a Llama-like model over a :class:`runners.inference.kv_cache.StaticKVCache`."""

    def __init__(self, model: Any, pack: PackWeight = unpacked) -> None:
        """Join the weights in place: the model's own modules keep working, on views of the joined memory.

        `pack` makes the products; the benchmark of streams tries 8- and 4-bit ones with it.
        """
        config = model.config
        self.inner = model.model
        self.heads = config.num_attention_heads
        self.groups = config.num_key_value_heads
        self.size = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.eps = config.rms_norm_eps
        self.scaling = self.inner.layers[0].self_attn.scaling
        self.layers = [_layer_weights(layer, pack) for layer in self.inner.layers]
        self.head = pack(model.lm_head.weight, model.lm_head.bias)
        self.prefill = FusedPrefill(self)

    def step(
        self, ids: torch.Tensor, positions: torch.Tensor, cache: StaticKVCache, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the logits [rows, new, vocabulary] of new tokens [rows, new], and write them to the cache.

        `mask` [rows, 1, new, tokens] is added to the scores; None lets every token see all before it and itself,
        which is right for one new token only.
        """
        rows, new = ids.shape
        x = F.embedding(ids, self.inner.embed_tokens.weight)  # [rows, new, hidden]
        cos, sin = self.inner.rotary_emb(x, positions)  # [rows, new, d]
        cos, sin = cos[:, None], sin[:, None]  # one for all heads
        fold = self.heads // self.groups  # query heads that share a key head
        if mask is not None and new > 1:
            # The fold query heads of a group are more queries below; with one new token the mask broadcasts.
            mask = mask.repeat(1, 1, fold, 1)
        for number, w in enumerate(self.layers):
            h = w.qkv(self.norm(x, w.norm_in))
            h = h.view(rows, new, self.heads + 2 * self.groups, self.size).transpose(1, 2)
            # Query and key heads are next to each other, so one rotation does both: x cos + rotate_half(x) sin with
            # rotate_half([a, b]) = [-b, a], as transformers computes it.
            rotated = h[:, : self.heads + self.groups]
            half = self.size // 2
            rotated = rotated * cos + torch.cat((-rotated[..., half:], rotated[..., :half]), dim=-1) * sin
            fresh = (rotated[:, self.heads :], h[:, self.heads + self.groups :])
            keys, values = cache.update(*fresh, number)  # [rows, groups, tokens, d]
            # The heads that share a key are queries of one group: no key is copied for each of them.
            query = rotated[:, : self.heads].reshape(rows, self.groups, fold * new, self.size)
            seen = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=self.scaling)
            seen = seen.reshape(rows, self.heads, new, self.size).transpose(1, 2).reshape(rows, new, -1)
            x = x + w.out(seen)
            gate, up = w.gate_up(self.norm(x, w.norm_mlp)).chunk(2, dim=-1)
            x = x + w.down(F.silu(gate) * up)
        return self.head(self.norm(x, self.inner.norm.weight))

    def norm(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Return x [..., hidden] normalised as transformers' RMSNorm rounds it: fp32 inside, the weight after."""
        wide = x.float()
        return weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)).to(x.dtype)


class FusedPrefill:
    """The prefill of a Llama-like model over a :class:`runners.inference.kv_cache.StaticKVCache`."""

    def __init__(self, step: FusedLlamaStep) -> None:
        """Take the fused layers of a step."""
        self.step = step
        # The probe of the decoding path sets both lower, so that short prompts go through several chunks and blocks.
        self.chunk_tokens = CHUNK_TOKENS
        self.query_block = QUERY_BLOCK

    def logits(self, rows: Sequence[Sequence[int]], cache: StaticKVCache) -> torch.Tensor:
        """Compute new tokens of every row into the cache; return the logits [rows, vocabulary] after each row's last.

        What the cache holds already precedes the new tokens of every row. Shorter rows are padded on the left, after what
        was cached; keys and values of padding are zeros.
        """
        step, before, width = self.step, cache.length, max(map(len, rows))
        parts = prompt_parts(shared_segments(rows), rows)
        pads = [before + width - len(row) for row in rows]
        x, turns = self.embedded(rows, parts, before)
        mask = self.causal_mask(before + width, x)
        ends = [
            p.place.start + (n + 1) * (p.end - p.start) - 1
            for p in parts
            if not p.shared
            for n in range(len(p.rows))
        ]
        for number, weights in enumerate(step.layers):
            final = number == len(step.layers) - 1
            heads = self._projected(x, weights, turns)
            stored = cache.kv_layers[number].extend(width, heads, step.groups, step.size)
            _write(heads[:, step.heads :], parts, pads, before, stored)
            # Zeros for the tokens that only fill the last chunk.
            seen = x.new_zeros(len(rows) if final else len(x), step.heads * step.size)
            for part in parts:
                known = [_known(c[part.sources], before, pads[part.rows[0]], part.end) for c in stored]
                query = heads[part.place, : step.heads]
                query = query.view(
                    -1, part.end - part.start, step.groups, step.heads // step.groups, step.size
                )
                if not final:
                    self._attend(query, known[0], known[1], mask, seen[part.place])
                elif not part.shared:
                    self._attend(query[:, -1:], known[0], known[1], mask, seen[part.sources])
            if final:
                x = x[ends]
            for chunk in self._chunks(len(x)):
                self._finish(x[chunk], seen[chunk], weights)
        return step.head(step.norm(x, step.inner.norm.weight))

    def embedded(
        self, rows: Sequence[Sequence[int]], parts: Sequence[PromptPart], before: int
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """Return the embeddings [tokens, hidden] of all parts, and cosines and sines [tokens, 1, d] of their positions."""
        step, half = self.step, self.step.size // 2
        tokens: list[int] = []
        positions: list[int] = []
        for part in parts:
            for row in part.rows[:1] if part.shared else part.rows:
                tokens += rows[row][part.start : part.end]
                positions += range(before + part.start, before + part.end)
        spare = [0] * (-len(tokens) % TOKEN_MULTIPLE)
        x = F.embedding(torch.tensor(tokens + spare), step.inner.embed_tokens.weight)
        cos, sin = step.inner.rotary_emb(x[None], torch.tensor([positions + spare]))
        # rotate_half([a, b]) = [-b, a]: with the sign in the sine, each half is multiplied where it stands.
        signed = torch.cat((-sin[0, :, :half], sin[0, :, half:]), dim=-1)
        return x, (cos[0, :, None], signed[:, None])

    def _chunks(self, tokens: int) -> list[slice]:
        """Return the chunks of so many tokens."""
        return [slice(at, min(at + self.chunk_tokens, tokens)) for at in range(0, tokens, self.chunk_tokens)]

    def _projected(
        self, x: torch.Tensor, weights: LayerWeights, turns: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        """Return query, key and value heads [tokens, heads + 2 groups, d] of x [tokens, hidden], the first two rotated."""
        step, half = self.step, self.step.size // 2
        turned = step.heads + step.groups
        heads = x.new_empty(len(x), turned + step.groups, step.size)
        for chunk in self._chunks(len(x)):
            h = weights.qkv(step.norm(x[chunk], weights.norm_in)).view(-1, turned + step.groups, step.size)
            cos, sin = turns[0][chunk], turns[1][chunk]
            crossed = torch.empty_like(h[:, :turned])
            torch.mul(h[:, :turned, half:], sin[..., :half], out=crossed[..., :half])
            torch.mul(h[:, :turned, :half], sin[..., half:], out=crossed[..., half:])
            torch.add(h[:, :turned].mul_(cos), crossed, out=heads[chunk, :turned])
            heads[chunk, turned:] = h[:, turned:]
        return heads

    def causal_mask(self, keys: int, like: torch.Tensor) -> torch.Tensor:
        """Return what hides later keys from a block of queries [fold, block, keys], the last of which sees all keys."""
        block, fold = self.query_block, self.step.heads // self.step.groups
        hidden = torch.full((block, keys), torch.finfo(like.dtype).min, dtype=like.dtype)
        # Each of the heads that share a key head has the same; repeated once here rather than for every block.
        return hidden.triu(keys - block + 1).repeat(fold, 1, 1)

    def _attend(
        self,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        mask: torch.Tensor,
        seen: torch.Tensor,
    ) -> None:
        """Write what queries [rows, new, groups, fold, d] attend to into `seen` [rows, new, heads x d].

        `keys` and `values` [rows, groups, tokens, d] end with those of the queries' own tokens. The `fold` query heads
        that share a key head are more queries of it, so no key is copied for each of them.
        """
        rows, new, groups, fold, size = query.shape
        seen = seen.view(rows, new, groups, fold, size)
        before = keys.shape[2] - new
        for at in range(0, new, self.query_block):
            end = min(at + self.query_block, new)
            block, width = end - at, before + end
            hidden = None  # a single query sees all keys
            if block > 1:
                hidden = mask[:, -block:, -width:].reshape(fold * block, width)
            queries = query[:, at:end].permute(0, 2, 3, 1, 4).reshape(rows, groups, fold * block, size)
            result = F.scaled_dot_product_attention(
                queries, keys[:, :, :width], values[:, :, :width], attn_mask=hidden, scale=self.step.scaling
            )
            seen[:, at:end] = result.view(rows, groups, fold, block, size).permute(0, 3, 1, 2, 4)

    def _finish(self, x: torch.Tensor, seen: torch.Tensor, weights: LayerWeights) -> None:
        """Add the output of attention and the feed-forward layer to x [tokens, hidden], in place."""
        x.add_(weights.out(seen))
        gate, up = weights.gate_up(self.step.norm(x, weights.norm_mlp)).chunk(2, dim=-1)
        x.add_(weights.down(F.silu(gate).mul_(up)))


class _Weight(nn.Module):
    def __init__(self, weights: Weights, name: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(weights[f"{name}.weight"], requires_grad=False)


class _Rotary(nn.Module):
    """Rotary positions without scaling, as transformers' layers compute them."""

    def __init__(self, theta: float, size: int) -> None:
        super().__init__()
        self.frequencies = 1.0 / theta ** (torch.arange(0, size, 2, dtype=torch.float) / size)

    def forward(self, x: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        angles = positions[..., None].float() * self.frequencies
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)


class _Products(nn.Module):
    def __init__(self, weights: Weights, name: str, parts: str, scaling: float) -> None:
        super().__init__()
        self.scaling = scaling
        for part in parts.split():
            self.add_module(f"{part}_proj", linear_layer(weights, f"{name}.{part}_proj"))


class _StepLayer(nn.Module):
    def __init__(self, weights: Weights, name: str, scaling: float) -> None:
        super().__init__()
        self.input_layernorm = _Weight(weights, f"{name}.input_layernorm")
        self.self_attn = _Products(weights, f"{name}.self_attn", "q k v o", scaling)
        self.post_attention_layernorm = _Weight(weights, f"{name}.post_attention_layernorm")
        self.mlp = _Products(weights, f"{name}.mlp", "gate up down", 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepConfig:
    """What decoding reads of a Llama-like model's config, with transformers' names."""

    model_type: str
    hidden_act: str
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    max_position_embeddings: int
    vocab_size: int
    tie_word_embeddings: bool = False

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> StepConfig:
        """Return the config of a ``config.json``; KeyError where it leaves out what has no one default."""
        heads = values["num_attention_heads"]
        size = values.get("head_dim") or values["hidden_size"] // heads
        known = {key: values[key] for key in cls.__dataclass_fields__ if values.get(key) is not None}
        return cls(**{"num_key_value_heads": heads, "hidden_act": "silu", **known, "head_dim": size})

    def get_text_config(self) -> StepConfig:
        """Return this, as a config of transformers does that is of text alone."""
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return all values."""
        return asdict(self)


class StepModel(nn.Module):
    """A Llama-like model on the CPU that holds what the fused step reads, with transformers' names, and no forward pass."""

    def __init__(
        self, config: StepConfig, theta: float, generation_config: Any, weights: Weights, dtype: torch.dtype
    ) -> None:
        """Take the weights by their names in the file; KeyError for one that is missing."""
        super().__init__()
        self.config, self.generation_config = config, generation_config
        self.dtype, self.device = dtype, torch.device("cpu")
        self.model: Any = nn.Module()
        self.model.embed_tokens = _Weight(weights, "model.embed_tokens")
        self.model.layers = nn.ModuleList(
            _StepLayer(weights, f"model.layers.{number}", config.head_dim**-0.5)
            for number in range(config.num_hidden_layers)
        )
        self.model.norm = _Weight(weights, "model.norm")
        self.model.rotary_emb = _Rotary(theta, config.head_dim)
        self.lm_head = linear_layer(
            weights, "model.embed_tokens" if config.tie_word_embeddings else "lm_head"
        )
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def get_output_embeddings(self) -> nn.Linear:
        """Return the layer of the logits."""
        return self.lm_head


def load_step_model(folder: Path, dtype: torch.dtype) -> StepModel | None:
    """Return the model of a folder without transformers' layers; None where it is not built like Llama."""
    from transformers import GenerationConfig

    values = read_json(folder / "config.json")
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    plain = rope.get("rope_type", rope.get("type", "default")) == "default"
    settings = folder / "generation_config.json"
    if values.get("model_type") not in MODEL_TYPES or not (plain and settings.is_file()):
        return None
    weights: dict[str, torch.Tensor] = {}
    for file in weight_files(folder):
        with safe_open(str(file), "pt") as tensors:
            names: list[str] = tensors.keys()
            weights |= {name: tensors.get_tensor(name).to(dtype) for name in names}
    try:
        config = StepConfig.read(values)
        theta = rope["rope_theta"] if "rope_theta" in rope else values["rope_theta"]
        generation = GenerationConfig.from_pretrained(folder, local_files_only=True)
        return StepModel(config, theta, generation, weights, dtype).eval()
    except (KeyError, TypeError):
        return None


def equals_whole_model(step_model: StepModel, model: Any) -> bool:
    """Return whether a fused step reads the same bits of both models: weights, positions and settings."""
    known, weights = dict(model.named_parameters()), dict(step_model.named_parameters())
    positions = torch.arange(model.config.max_position_embeddings)[None]
    like = torch.empty(0, dtype=step_model.dtype)
    turns = [each.model.rotary_emb(like, positions) for each in (step_model, model)]
    config = step_model.config.to_dict()
    config["head_dim"] = getattr(model.config, "head_dim", None) and config["head_dim"]
    return (
        known.keys() == weights.keys()
        and all(torch.equal(weight, known[name]) for name, weight in weights.items())
        and all(torch.equal(*pair) for pair in zip(*turns, strict=True))
        and all(getattr(model.config, key, None) == value for key, value in config.items())
        and all(
            own.self_attn.scaling == other.self_attn.scaling
            for own, other in zip(step_model.model.layers, model.model.layers, strict=True)
        )
        and step_model.generation_config.to_dict() == model.generation_config.to_dict()
    )


def unsupported_reason(model: Any) -> str:
    """Return why a model's steps are computed by transformers, "" when they can be fused."""
    config = model.config
    if config.model_type not in MODEL_TYPES:
        return f"layers of {config.model_type} are not known here"
    if getattr(config, "hidden_act", "silu") != "silu":
        return f"its activation is {config.hidden_act}"
    linears = [m for name, m in model.named_modules() if name.endswith(("_proj", "lm_head"))]
    if any(type(m) is not nn.Linear for m in linears):
        return "its linear layers are quantised or have an adapter"
    return ""


def _layer_weights(layer: Any, pack: PackWeight) -> LayerWeights:
    """Return the weights of one of transformers' layers, joined where they read the same input."""
    attention, mlp = layer.self_attn, layer.mlp
    return LayerWeights(
        layer.input_layernorm.weight,
        pack(*_join(attention.q_proj, attention.k_proj, attention.v_proj)),
        pack(attention.o_proj.weight, attention.o_proj.bias),
        layer.post_attention_layernorm.weight,
        pack(*_join(mlp.gate_proj, mlp.up_proj)),
        pack(mlp.down_proj.weight, mlp.down_proj.bias),
    )


def _join(*linears: nn.Linear) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Concatenate the weights of linears to [sum of out, in], and make their own weights views of it.

    The model's own modules keep working, and no weight is in memory twice.
    """
    parts = [[linear.weight for linear in linears]]
    if linears[0].bias is not None:
        parts.append([linear.bias for linear in linears])
    joined = []
    for parameters in parts:
        whole = torch.cat([p.detach() for p in parameters])
        for parameter, view in zip(parameters, whole.split([len(p) for p in parameters]), strict=True):
            parameter.data = view
        joined.append(whole)
    return joined[0], joined[1] if len(joined) == 2 else None


def _write(
    heads: torch.Tensor,
    parts: Sequence[PromptPart],
    pads: Sequence[int],
    before: int,
    stored: tuple[torch.Tensor, torch.Tensor],
) -> None:
    """Write keys and values [tokens, 2 groups, d] to all rows of a layer of the cache, zeros to the padding.

    A row's first new token has the index `pads` in the cache, the first `before` were there already.
    """
    _, groups, _, size = stored[0].shape
    for row, pad in enumerate(pads):
        for target in stored:
            target[row, :, before:pad] = 0
    for part in parts:
        new = heads[part.place].view(-1, part.end - part.start, 2, groups, size).permute(2, 0, 3, 1, 4)
        first = pads[part.rows[0]]
        for fresh, target in zip(new, stored, strict=True):
            if not part.shared:
                target[part.sources, :, first + part.start : first + part.end] = fresh
                continue
            for row in part.rows:
                target[row, :, pads[row] + part.start : pads[row] + part.end] = fresh[0]


def _known(cached: torch.Tensor, before: int, pad: int, end: int) -> torch.Tensor:
    """Return the first `before` tokens and the `end` ones from `pad` on of keys or values [rows, groups, capacity, d]."""
    if pad == before:
        return cached[:, :, : before + end]
    if before == 0:
        return cached[:, :, pad : pad + end]
    return torch.cat((cached[:, :, :before], cached[:, :, pad : pad + end]), dim=2)

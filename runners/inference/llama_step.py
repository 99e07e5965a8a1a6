"""One fused decoding step for models built like Llama, with little overhead around the matrix products.

transformers' layers spend a third of a single-stream step outside the products (22 ms against 15 ms a token on a 135M
model in bf16, 2 cores). Here query, key and value are one product, so are gate and up, and the cache is written in
place; every number is computed as transformers computes it, in the same order and dtype. Imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runners.models import hub

hub.block_hub()

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from runners.inference.kv_cache import StaticKVCache  # noqa: E402
from runners.inference.llama_prefill import FusedPrefill  # noqa: E402

MODEL_TYPES = ("llama", "mistral", "qwen2")
"""Architectures whose layers are exactly these; a mistral with a sliding window is recognised by its cache."""

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


def unsupported_reason(model: Any) -> str:
    """Return why a model's steps are computed by transformers, "" when they can be fused."""
    config = model.config
    if config.model_type not in MODEL_TYPES:
        return f"layers of {config.model_type} are not known here"
    if getattr(config, "hidden_act", "silu") != "silu":
        return f"its activation is {config.hidden_act}"
    linears = [m for name, m in model.named_modules() if name.endswith(("_proj", "lm_head"))]
    if any(type(m) is not nn.Linear for m in linears):
        return "its linear layers are quantised or hold an adapter"
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

"""One step of decoding with little around the matrix products, for models built like Llama. Heavy: imports torch.

transformers' layers spend a third of a single-stream step outside the products (22 ms against 15 ms a token on a
135M model in bf16, 2 cores). Here query, key and value are one product, so are gate and up, and the cache is written
in place; every number is computed as transformers computes it, in the same order and type.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runners import hub

hub.close()

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from runners.slab import Slab  # noqa: E402

KINDS = ("llama", "mistral", "qwen2")
"""Architectures whose layers are exactly these; a mistral with a sliding window is told apart by its cache."""


Product = Callable[[torch.Tensor], torch.Tensor]
"""A matrix product with weights, and a bias where the layer has one."""
Pack = Callable[[torch.Tensor, torch.Tensor | None], Product]
"""Makes a product of a weight and a bias."""


def as_it_is(weight: torch.Tensor, bias: torch.Tensor | None) -> Product:
    """Return the product with the model's own weights, in their own type."""
    return lambda x: F.linear(x, weight, bias)


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer's norms and products; `qkv` and `gate_up` are several of the model's in one."""

    norm_in: torch.Tensor
    qkv: Product
    out: Product
    norm_mlp: torch.Tensor
    gate_up: Product
    down: Product


class Lean:
    """The step of a Llama-like model over a Slab."""

    def __init__(self, model: Any, pack: Pack = as_it_is) -> None:
        """Join the weights in place: the model's own modules go on working, on views of the joined memory.

        `pack` makes the products; `benchmarks/bench_stream.py` tries 8- and 4-bit ones with it.
        """
        config = model.config
        self.inner = model.model
        self.heads, self.groups = config.num_attention_heads, config.num_key_value_heads
        self.size = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.eps, self.scaling = config.rms_norm_eps, self.inner.layers[0].self_attn.scaling
        self.layers = [_layer(layer, pack) for layer in self.inner.layers]
        self.head = pack(model.lm_head.weight, model.lm_head.bias)

    def step(
        self, ids: torch.Tensor, positions: torch.Tensor, slab: Slab, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the logits [rows, new, vocabulary] of new tokens [rows, new], and write them to the slab.

        `mask` [rows, 1, new, tokens] is added to the scores; None lets every token see all before it and itself,
        which is right for one new token only.
        """
        rows, new = ids.shape
        x = F.embedding(ids, self.inner.embed_tokens.weight)
        cos, sin = self.inner.rotary_emb(x, positions)
        cos, sin = cos[:, None], sin[:, None]
        each = self.heads // self.groups
        if mask is not None and new > 1:
            mask = mask.repeat(1, 1, each, 1)
        for number, w in enumerate(self.layers):
            h = w.qkv(self._norm(x, w.norm_in))
            h = h.view(rows, new, self.heads + 2 * self.groups, self.size).transpose(1, 2)
            turned = h[:, : self.heads + self.groups]
            half = self.size // 2
            turned = turned * cos + torch.cat((-turned[..., half:], turned[..., :half]), dim=-1) * sin
            fresh = (turned[:, self.heads :], h[:, self.heads + self.groups :])
            keys, values = slab.update(*fresh, number)
            # The heads that share a key are queries of one group: no key is copied for each of them.
            query = turned[:, : self.heads].reshape(rows, self.groups, each * new, self.size)
            seen = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=self.scaling)
            seen = seen.reshape(rows, self.heads, new, self.size).transpose(1, 2).reshape(rows, new, -1)
            x = x + w.out(seen)
            gate, up = w.gate_up(self._norm(x, w.norm_mlp)).chunk(2, dim=-1)
            x = x + w.down(F.silu(gate) * up)
        return self.head(self._norm(x, self.inner.norm.weight))

    def _norm(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """RMSNorm as transformers rounds it: fp32 inside, the weight after."""
        wide = x.float()
        return weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)).to(x.dtype)


def why_not(model: Any) -> str:
    """Return why a model's steps are left to transformers, "" when they need not be."""
    config = model.config
    if config.model_type not in KINDS:
        return f"layers of {config.model_type} are not known here"
    if getattr(config, "hidden_act", "silu") != "silu":
        return f"its activation is {config.hidden_act}"
    linears = [m for name, m in model.named_modules() if name.endswith(("_proj", "lm_head"))]
    if any(type(m) is not nn.Linear for m in linears):
        return "its linear layers are quantised or hold an adapter"
    return ""


def _layer(layer: Any, pack: Pack) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    return _Layer(
        layer.input_layernorm.weight,
        pack(*_join(attention.q_proj, attention.k_proj, attention.v_proj)),
        pack(attention.o_proj.weight, attention.o_proj.bias),
        layer.post_attention_layernorm.weight,
        pack(*_join(mlp.gate_proj, mlp.up_proj)),
        pack(mlp.down_proj.weight, mlp.down_proj.bias),
    )


def _join(*linears: nn.Linear) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Lay the weights of linears over one another in one tensor, and make their own weights views of it."""
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

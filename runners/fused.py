"""Faster CPU training with the same result: low-rank layers and attention for short rows. Heavy.

Measured on 2 cores with AVX512-BF16, SmolLM2-135M, LoRA r16, rows of 82 tokens: 567 tokens/s with PEFT's
layers and torch's attention, 1,020 with these, 1,490 when the common beginning is computed once as well.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

ATTENTION = "tunewise_rows"
MAX_EAGER = 512
"""Longest row for the written-out attention; torch's own wins above (600 tokens: 32 against 28 ms)."""


@contextmanager
def fast(net: nn.Module, causal: PreTrainedModel) -> Iterator[None]:
    """Use the fast layers within the block; afterwards the model is as it was."""
    layers = [m for m in net.modules() if isinstance(m, LoraLayer) and _plain(m)]
    before = causal.config._attn_implementation
    try:
        for layer in layers:
            layer.forward = types.MethodType(_forward, layer)
        causal.config._attn_implementation = ATTENTION
        yield
    finally:
        causal.config._attn_implementation = before
        for layer in layers:
            del layer.forward


class AddLowRank(torch.autograd.Function):
    """``base + scale * x Aᵀ Bᵀ`` with fp32 A and B, computed in x's dtype; nothing big is cast."""

    @staticmethod
    def forward(ctx: Any, base: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
        """Take base [..., out], x [..., in], a [r, in], b [out, r]; return [..., out]."""
        rows = x.reshape(-1, x.shape[-1])
        a, b = a.to(x.dtype), b.to(x.dtype)
        low = rows @ a.t()
        ctx.save_for_backward(rows, low, a, b)
        ctx.scale, ctx.shape = scale, x.shape
        return torch.addmm(base.reshape(-1, base.shape[-1]), low, b.t(), alpha=scale).view(base.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of base, x, a and b."""
        rows, low, a, b = ctx.saved_tensors
        flat = grad.reshape(-1, grad.shape[-1])
        back = (flat @ b).mul_(ctx.scale)
        grad_b = (flat.t() @ low).float().mul_(ctx.scale)
        return grad, (back @ a).view(ctx.shape), (back.t() @ rows).float(), grad_b, None


def _plain(layer: LoraLayer) -> bool:
    """Say whether a layer is one active LoRA on a linear layer, the only case written out here."""
    weights = [*layer.lora_A.values(), *layer.lora_B.values()]
    linear = all(isinstance(w, nn.Linear) and w.bias is None for w in weights)
    variants = getattr(layer, "lora_variant", {})
    return len(layer.lora_A) == 1 and linear and not any(variants.values()) and not layer.merged


def _forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    name = next(iter(self.lora_A))
    dropped = self.lora_dropout[name](x)
    a, b = self.lora_A[name].weight, self.lora_B[name].weight
    out: Tensor = AddLowRank.apply(self.base_layer(x), dropped, a, b, self.scaling[name])
    return out


def rows_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, dropout: float = 0.0, prefix: int = 0, rows: int = 1, **_: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Causal attention of a :class:`runners.batch.Batch`: each row sees the shared prefix and itself.

    query [1, heads, T, d], key and value [1, groups, T, d], T = prefix + rows * width. Returns query's
    shape with heads and T exchanged.
    """
    heads, total, size = query.shape[1:]
    groups, width = key.shape[1], (total - prefix) // rows
    scale = scaling or size**-0.5
    if prefix == 0 and width > MAX_EAGER:
        return _flash(query, key, value, rows, scale), None
    fold = heads // groups
    # Splitting, not slicing: a slice's gradient is a tensor of zeros with a copy in it.
    (first_q, q), (first_k, k), (first_v, v) = (
        t[0].split([prefix, total - prefix], dim=1) for t in (query, key, value)
    )
    q = q.view(groups, fold, rows, width, size).permute(2, 0, 1, 3, 4)
    k, v = (t.view(groups, rows, width, size).transpose(0, 1) for t in (k, v))
    if prefix:
        k = torch.cat([first_k.expand(rows, -1, -1, -1), k], dim=2)
        v = torch.cat([first_v.expand(rows, -1, -1, -1), v], dim=2)
    own = _attend(
        q.reshape(rows * groups, fold * width, size),
        k.reshape(rows * groups, prefix + width, size),
        v.reshape(rows * groups, prefix + width, size),
        _causal(prefix, width, fold, query.dtype, query.device),
        scale,
    )
    own = own.view(rows, groups, fold, width, size).permute(0, 3, 1, 2, 4)
    out = own.reshape(rows * width, heads, size)
    if prefix:
        bias = _causal(0, prefix, fold, query.dtype, query.device)
        first = _attend(first_q.reshape(groups, fold * prefix, size), first_k, first_v, bias, scale)
        first = first.view(groups, fold, prefix, size).permute(2, 0, 1, 3).reshape(prefix, heads, size)
        out = torch.cat([first, out])
    return out.unsqueeze(0), None


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float) -> Tensor:
    scores = torch.baddbmm(bias, query, key.transpose(1, 2), alpha=scale)
    return torch.bmm(torch.softmax(scores, dim=-1), value)


def _flash(query: Tensor, key: Tensor, value: Tensor, rows: int, scale: float) -> Tensor:
    """Attend row by row with torch's own kernel: from [1, heads, T, d] to [1, T, heads, d]."""
    q, k, v = (t[0].unflatten(1, (rows, -1)).transpose(0, 1) for t in (query, key, value))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True)
    return out.transpose(1, 2).flatten(0, 1).unsqueeze(0)


@lru_cache(maxsize=8)
def _causal(prefix: int, width: int, fold: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return 0 where a token may look and -inf where not: [1, fold * width, prefix + width]."""
    one = torch.full((width, prefix + width), float("-inf"), dtype=dtype, device=device).triu(prefix + 1)
    return one.repeat(fold, 1).unsqueeze(0)


AttentionInterface.register(ATTENTION, rows_attention)

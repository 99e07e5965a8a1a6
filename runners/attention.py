"""Causal attention of rows that stand in one line, with their rotation. Heavy: imports torch and transformers."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from runners.batch import Segments

ATTENTION = "tunewise_rows"
MAX_EAGER = 512
"""Longest row for the written-out attention; torch's own wins above (600 tokens: 32 against 28 ms)."""


class Turn(torch.autograd.Function):
    """Rotary positions, a half of each head with the other: four passes, and four back with the sines negated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Take x [T, heads, d], cos and sin [T, 1, d / 2]; return x's shape."""
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin, -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of x: turned back."""
        cos, sin = ctx.saved_tensors
        return _turned(grad, cos, sin, 1), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    (a, b), (first, second) = x.chunk(2, dim=-1), out.chunk(2, dim=-1)
    torch.mul(a, cos, out=first).addcmul_(b, sin, value=sign)
    torch.mul(b, cos, out=second).addcmul_(a, sin, value=-sign)
    return out


class Move(torch.autograd.Function):
    """Rows of x at given places; the gradient goes back by the inverse, which costs no additions.

    Right where ``back`` undoes ``there`` and no gradient comes from rows that stand in two places.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: Tensor, back: Tensor, spread: bool) -> Tensor:
        """Take x [n, ...]; ``spread`` pads rows into a table, else they are taken out of one."""
        ctx.save_for_backward(there, back)
        ctx.spread = spread
        return x.index_select(0, there)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of x; padding gets none."""
        there, back = ctx.saved_tensors
        if ctx.spread:
            return grad.index_select(0, back), None, None, None
        table = grad.new_zeros(len(back), *grad.shape[1:])
        return table.index_copy_(0, there, grad), None, None, None


def rows_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, dropout: float = 0.0, segments: Segments | None = None, **_: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Be transformers' attention function: query [1, heads, T, d], key and value [1, groups, T, d].

    Returns query's shape with heads and T exchanged.
    """
    assert segments is not None
    q, k, v = (t[0].transpose(0, 1) for t in (query, key, value))
    return attend(q, k, v, segments, scaling or query.shape[-1] ** -0.5).unsqueeze(0), None


def attend(q: Tensor, k: Tensor, v: Tensor, segments: Segments, scale: float) -> Tensor:
    """Let each row of a :class:`runners.batch.Batch` see the shared prefix and itself.

    q [T, heads, d], k and v [T, groups, d]. Returns q's shape.
    """
    prefix, rows, width = segments.prefix, segments.rows, segments.width
    if prefix == 0 and width > MAX_EAGER:
        return _flash(q, k, v, segments.lengths, scale)
    heads, size, groups = q.shape[1], q.shape[2], k.shape[1]
    fold, total = heads // groups, len(q)
    # Splitting, not slicing: a slice's gradient is a tensor of zeros with a copy in it.
    (first_q, q), (first_k, k), (first_v, v) = (t.split([prefix, total - prefix]) for t in (q, k, v))
    if segments.place is not None:
        q, k, v = (Move.apply(t, segments.place, segments.taken, True) for t in (q, k, v))
    q = q.reshape(rows, width, groups, fold, size).permute(0, 2, 3, 1, 4)
    k, v = (t.reshape(rows, width, groups, size).transpose(1, 2) for t in (k, v))
    if prefix:
        first_k, first_v = first_k.transpose(0, 1), first_v.transpose(0, 1)
        k = torch.cat([first_k.expand(rows, -1, -1, -1), k], dim=2)
        v = torch.cat([first_v.expand(rows, -1, -1, -1), v], dim=2)
    own = _attend(
        q.reshape(rows * groups, fold * width, size),
        k.reshape(rows * groups, prefix + width, size),
        v.reshape(rows * groups, prefix + width, size),
        _causal(prefix, width, fold, q.dtype, q.device),
        scale,
    )
    own = own.view(rows, groups, fold, width, size).permute(0, 3, 1, 2, 4)
    out = own.reshape(rows * width, heads, size)
    if segments.place is not None:
        out = Move.apply(out, segments.taken, segments.place, False)
    if prefix:
        bias = _causal(0, prefix, fold, q.dtype, q.device)
        first_q = first_q.reshape(prefix, groups, fold, size).permute(1, 2, 0, 3)
        first = _attend(first_q.reshape(groups, fold * prefix, size), first_k, first_v, bias, scale)
        first = first.view(groups, fold, prefix, size).permute(2, 0, 1, 3).reshape(prefix, heads, size)
        out = torch.cat([first, out])
    return out


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float) -> Tensor:
    scores = torch.baddbmm(bias, query, key.transpose(1, 2), alpha=scale)
    return torch.bmm(torch.softmax(scores, dim=-1), value)


def _flash(q: Tensor, k: Tensor, v: Tensor, lengths: tuple[int, ...], scale: float) -> Tensor:
    """Attend row by row with torch's own kernel: from and to [T, heads, d]."""
    parts = zip(*(t.transpose(0, 1).unsqueeze(0).split(lengths, dim=2) for t in (q, k, v)), strict=True)
    out = [
        F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True)
        for q, k, v in parts
    ]
    return torch.cat(out, dim=2)[0].transpose(0, 1)


@lru_cache(maxsize=8)
def _causal(prefix: int, width: int, fold: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return 0 where a token may look and -inf where not: [1, fold * width, prefix + width]."""
    one = torch.full((width, prefix + width), float("-inf"), dtype=dtype, device=device).triu(prefix + 1)
    return one.repeat(fold, 1).unsqueeze(0)


AttentionInterface.register(ATTENTION, rows_attention)

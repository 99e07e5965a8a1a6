"""Causal attention over packed rows, with rotary positions. Imports torch and transformers.

Rows are packed into one line of T tokens (:class:`runners.batch.Batch`): the prefix that all rows share, then each
row's suffix. With grouped-query attention ``groups`` key/value heads serve ``heads`` query heads, ``fold = heads //
groups`` each.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from runners.batch import Segments

ATTENTION = "tunewise_rows"
"""Name under which transformers finds :func:`packed_attention`."""
MAX_EAGER = 512
"""Longest row for the eager attention; torch's own kernel is faster above (600 tokens: 32 against 28 ms)."""


class RotaryPositions(torch.autograd.Function):
    """Rotary position embedding (Su et al. 2021) in Llama's layout, where feature i pairs with feature i + d / 2.

    ``out = [a cos - b sin, b cos + a sin]`` for the halves ``x = [a, b]``: four passes over memory, without the negated
    copy of x that transformers' ``rotate_half`` makes. The backward pass is the inverse rotation, the sines negated.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Take x [T, heads, d], cos and sin [T, 1, d / 2]; return x's shape."""
        ctx.save_for_backward(cos, sin)
        return _rotate(x, cos, sin, -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of x: a rotation is orthogonal, so its transpose is the rotation back."""
        cos, sin = ctx.saved_tensors
        return _rotate(grad, cos, sin, 1), None, None


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
    """Return [a cos + sign b sin, b cos - sign a sin] of x's halves [a, b], written straight into the result."""
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    (a, b), (first, second) = x.chunk(2, dim=-1), out.chunk(2, dim=-1)
    torch.mul(a, cos, out=first).addcmul_(b, sin, value=sign)
    torch.mul(b, cos, out=second).addcmul_(a, sin, value=-sign)
    return out


class GatherRows(torch.autograd.Function):
    """Rows of x at given indexes; the gradient is gathered by the inverse index instead of added up.

    ``index_select``'s own gradient is an ``index_add``. Correct only where ``inverse`` undoes ``index`` and no gradient
    reaches rows that were repeated as padding; attention, being causal, gives padding none.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, inverse: Tensor, into_padded: bool) -> Tensor:
        """Take x [n, ...], return [len(index), ...]; ``into_padded`` says which of both sides is the padded table."""
        ctx.save_for_backward(index, inverse)
        ctx.into_padded = into_padded
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of x; padding's is dropped on the way in, and zero on the way out."""
        index, inverse = ctx.saved_tensors
        if ctx.into_padded:
            return grad.index_select(0, inverse), None, None, None
        table = grad.new_zeros(len(inverse), *grad.shape[1:])
        return table.index_copy_(0, index, grad), None, None, None


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    segments: Segments | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Run :func:`attend` as transformers' attention function, for architectures whose own forward pass is kept.

    query [1, heads, T, d], key and value [1, groups, T, d]; returns [1, T, heads, d], and no attention weights.
    """
    assert segments is not None
    q, k, v = (t[0].transpose(0, 1) for t in (query, key, value))
    return attend(q, k, v, segments, scaling or query.shape[-1] ** -0.5).unsqueeze(0), None


def attend(q: Tensor, k: Tensor, v: Tensor, segments: Segments, scale: float) -> Tensor:
    """Let each row of a :class:`runners.batch.Batch` attend to the shared prefix and to itself.

    q [T, heads, d], k and v [T, groups, d]; returns [T, heads, d]. ``scale`` multiplies the scores, usually d ** -0.5.
    """
    prefix, rows, width = segments.prefix, segments.rows, segments.width
    if prefix == 0 and width > MAX_EAGER:
        return _attend_row_by_row(q, k, v, segments.lengths, scale)
    heads, size, groups = q.shape[1], q.shape[2], k.shape[1]
    fold, total = heads // groups, len(q)
    # Splitting, not slicing: a slice's gradient is a tensor of zeros with a copy in it.
    (prefix_q, q), (prefix_k, k), (prefix_v, v) = (t.split([prefix, total - prefix]) for t in (q, k, v))
    if segments.pad_index is not None:
        q, k, v = (GatherRows.apply(t, segments.pad_index, segments.unpad_index, True) for t in (q, k, v))
    # The query heads of one group become more queries of its one key head, so keys and values are never repeated:
    # q [rows, groups, fold, width, d], k and v [rows, groups, width, d].
    q = q.reshape(rows, width, groups, fold, size).permute(0, 2, 3, 1, 4)
    k, v = (t.reshape(rows, width, groups, size).transpose(1, 2) for t in (k, v))
    if prefix:
        # [groups, prefix, d]: the same prefix before each row's own keys.
        prefix_k, prefix_v = prefix_k.transpose(0, 1), prefix_v.transpose(0, 1)
        k = torch.cat([prefix_k.expand(rows, -1, -1, -1), k], dim=2)
        v = torch.cat([prefix_v.expand(rows, -1, -1, -1), v], dim=2)
    own = _attend(
        q.reshape(rows * groups, fold * width, size),
        k.reshape(rows * groups, prefix + width, size),
        v.reshape(rows * groups, prefix + width, size),
        _causal_bias(prefix, width, fold, q.dtype, q.device),
        scale,
    )
    # Back to one line of tokens: [rows, groups, fold, width, d] to [rows * width, heads, d], padding taken out.
    own = own.view(rows, groups, fold, width, size).permute(0, 3, 1, 2, 4)
    out = own.reshape(rows * width, heads, size)
    if segments.pad_index is not None:
        out = GatherRows.apply(out, segments.unpad_index, segments.pad_index, False)
    if prefix:
        # The prefix sees only itself, so it is attended to once for all rows: batch dimension groups.
        bias = _causal_bias(0, prefix, fold, q.dtype, q.device)
        prefix_q = prefix_q.reshape(prefix, groups, fold, size).permute(1, 2, 0, 3)
        first = _attend(prefix_q.reshape(groups, fold * prefix, size), prefix_k, prefix_v, bias, scale)
        first = first.view(groups, fold, prefix, size).permute(2, 0, 1, 3).reshape(prefix, heads, size)
        out = torch.cat([first, out])
    return out


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float) -> Tensor:
    """Return softmax(scale * query keyᵀ + bias) value, for [batch, queries, d] and [batch, keys, d].

    Scores stay in the inputs' dtype between the products, as in transformers' eager attention; no row of ``bias`` is
    all -inf, as each token sees itself, so no softmax divides by zero.
    """
    scores = torch.baddbmm(bias, query, key.transpose(1, 2), alpha=scale)
    return torch.bmm(torch.softmax(scores, dim=-1), value)


def _attend_row_by_row(q: Tensor, k: Tensor, v: Tensor, lengths: tuple[int, ...], scale: float) -> Tensor:
    """Attend with torch's own kernel, one call a row without padding: from [T, heads, d] to [T, heads, d]."""
    # torch wants [1, heads, tokens, d].
    parts = zip(*(t.transpose(0, 1).unsqueeze(0).split(lengths, dim=2) for t in (q, k, v)), strict=True)
    out = [
        F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True)
        for q, k, v in parts
    ]
    return torch.cat(out, dim=2)[0].transpose(0, 1)


@lru_cache(maxsize=8)
def _causal_bias(prefix: int, width: int, fold: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return 0 where a query may attend to a key and -inf elsewhere: [1, fold * width, prefix + width].

    Query i of a row sees the whole prefix and keys 0 to i of its own; the fold query heads repeat the same rows.
    """
    one = torch.full((width, prefix + width), float("-inf"), dtype=dtype, device=device).triu(prefix + 1)
    return one.repeat(fold, 1).unsqueeze(0)


AttentionInterface.register(ATTENTION, packed_attention)

"""Linear layers with a low-rank adapter, computed together where they read the same input. Heavy: imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn


class AddLowRank(torch.autograd.Function):
    """``base + scale * x Aᵀ Bᵀ`` with fp32 A and B, computed in x's dtype, in the place of base."""

    @staticmethod
    def forward(ctx: Any, base: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
        """Take base [n, out], x [n, in], a [r, in], b [out, r]; return [n, out]."""
        a, b = a.to(x.dtype), b.to(x.dtype)
        low = x @ a.t()
        ctx.save_for_backward(x, low, a, b)
        ctx.scale = scale
        ctx.mark_dirty(base)
        return base.addmm_(low, b.t(), alpha=scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of base, x, a and b."""
        x, low, a, b = ctx.saved_tensors
        back = (grad @ b).mul_(ctx.scale)
        by_x = back @ a if ctx.needs_input_grad[1] else None
        return grad, by_x, (back.t() @ x).float(), (grad.t() @ low).float().mul_(ctx.scale), None


class Together(torch.autograd.Function):
    """Frozen linear layers of one input, each with its adapter: one product with all A, sums made in place.

    Apart, each layer's gradients of the input (by the base, by the adapter) are tensors of their own that autograd
    adds up; here every product adds to the first. A 4-bit base is dequantised once forward and once back, as
    bitsandbytes does it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, layers: Sequence[LoraLayer], *adapters: Tensor) -> tuple[Tensor, ...]:
        """Take x [n, in] and A [r, in], B [out, r] of each layer in turn; return each layer's [n, out]."""
        scales = [next(iter(layer.scaling.values())) for layer in layers]
        ranks = [len(a) for a in adapters[::2]]
        a = torch.cat(adapters[::2]).to(x.dtype)
        each = [(b * scale).to(x.dtype) for b, scale in zip(adapters[1::2], scales, strict=True)]
        low = x @ a.t()
        outs = []
        for layer, b, part in zip(layers, each, low.split(ranks, dim=1), strict=True):
            base: Any = layer.base_layer
            outs.append(F.linear(x, _weight(base, x.dtype), _bias(base, x.dtype)).addmm_(part, b.t()))
        ctx.save_for_backward(x, low, a, *each)
        ctx.layers, ctx.scales, ctx.ranks = layers, scales, ranks
        return tuple(outs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x and of every A and B."""
        x, low, a, *each = ctx.saved_tensors
        back = torch.cat([grad @ b for grad, b in zip(grads, each, strict=True)], dim=1)
        by_x = None
        if ctx.needs_input_grad[0]:
            by_x = back @ a
            for grad, layer in zip(grads, ctx.layers, strict=True):
                by_x.addmm_(grad, _weight(layer.base_layer, x.dtype))
        by_a = (back.t() @ x).float().split(ctx.ranks)
        found: list[Tensor | None] = [by_x, None]
        parts = low.split(ctx.ranks, dim=1)
        for grad, part, own, scale in zip(grads, parts, by_a, ctx.scales, strict=True):
            found += [own, (grad.t() @ part).float().mul_(scale)]
        return tuple(found)


def together(layers: Sequence[Any], x: Tensor) -> tuple[Tensor, ...]:
    """Return what each layer gives for x [n, in], as :class:`Together` where no dropout stands in the way."""
    if any(layer.training and drops(layer) for layer in layers):
        return tuple(layer(x) for layer in layers)
    adapters = [w.weight for layer in layers for w in (*layer.lora_A.values(), *layer.lora_B.values())]
    outs: tuple[Tensor, ...] = Together.apply(x, layers, *adapters)
    return outs


def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Be the forward pass of a layer that :func:`plain` says yes to."""
    # As a table of rows, because a product of more dimensions is a view, which is costly to write into.
    rows = x.reshape(-1, x.shape[-1])
    if self.training and drops(self):
        name = next(iter(self.lora_A))
        a, b = self.lora_A[name].weight, self.lora_B[name].weight
        dropped = self.lora_dropout[name](rows)
        out: Tensor = AddLowRank.apply(self.base_layer(rows), dropped, a, b, self.scaling[name])
    else:
        (out,) = together([self], rows)
    return out.view(*x.shape[:-1], -1)


def plain(layer: nn.Module) -> bool:
    """Say whether a layer is one active LoRA on a frozen linear layer, the only case written out here."""
    if not isinstance(layer, LoraLayer):
        return False
    weights = [*layer.lora_A.values(), *layer.lora_B.values()]
    linear = all(isinstance(w, nn.Linear) and w.bias is None for w in weights)
    variants = getattr(layer, "lora_variant", {})
    base: Any = layer.base_layer
    frozen = isinstance(base, nn.Linear) and not any(p.requires_grad for p in base.parameters())
    return len(layer.lora_A) == 1 and linear and frozen and not any(variants.values()) and not layer.merged


def drops(layer: Any) -> bool:
    """Whether a layer's adapters drop a part of their input while training."""
    return any(getattr(drop, "p", 0) for drop in layer.lora_dropout.values())


def _weight(base: Any, dtype: torch.dtype) -> Tensor:
    """Return a linear layer's weight [out, in]; a 4-bit one is dequantised."""
    weight: Tensor = base.weight
    state = getattr(weight, "quant_state", None)
    if state is None:
        return weight.detach()
    import bitsandbytes.functional as bnb

    return bnb.dequantize_4bit(weight.data, state).to(dtype)


def _bias(base: Any, dtype: torch.dtype) -> Tensor | None:
    return None if base.bias is None else base.bias.to(dtype)

"""Frozen linear layers with a LoRA adapter, computed together where they read the same input. Imports torch.

Shapes: x [n, in] are n tokens; a layer is ``y = x Wᵀ + bias + scale * x Aᵀ Bᵀ`` with W [out, in] frozen, A [r, in] and
B [out, r] trained in fp32 (LoRA, Hu et al. 2021). Products are in x's dtype; gradients of A and B are fp32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn


class AddLora(torch.autograd.Function):
    """``base + scale * x Aᵀ Bᵀ``, added in place to ``base``, which no other backward pass may need."""

    @staticmethod
    def forward(ctx: Any, base: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
        """Take base [n, out], x [n, in], A [r, in], B [out, r]; return [n, out]."""
        a, b = a.to(x.dtype), b.to(x.dtype)
        low = x @ a.t()  # [n, r]
        ctx.save_for_backward(x, low, a, b)
        ctx.scale = scale
        ctx.mark_dirty(base)  # autograd has to know that its input was overwritten
        return base.addmm_(low, b.t(), alpha=scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of base, x, A and B, in the order of the inputs.

        With G = dL/dy [n, out]: dx = scale G B A, dA = scale (G B)ᵀ x, dB = scale Gᵀ (x Aᵀ), and base gets G.
        """
        x, low, a, b = ctx.saved_tensors
        grad_low = (grad @ b).mul_(ctx.scale)  # [n, r]
        grad_x = grad_low @ a if ctx.needs_input_grad[1] else None
        return grad, grad_x, (grad_low.t() @ x).float(), (grad.t() @ low).float().mul_(ctx.scale), None


class LoraLinears(torch.autograd.Function):
    """Several LoRA layers of one input: one product with all A, every sum made in place.

    Apart, each layer's gradients of the input (by the base, by the adapter) are tensors of their own that autograd
    adds up; here every product adds to the first. A 4-bit base is dequantised once forward and once back, as
    bitsandbytes does it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, layers: Sequence[LoraLayer], *adapters: Tensor) -> tuple[Tensor, ...]:
        """Take x [n, in] and A [r, in], B [out, r] of each layer in turn; return each layer's [n, out]."""
        scales = [next(iter(layer.scaling.values())) for layer in layers]
        ranks = [len(a) for a in adapters[::2]]
        a = torch.cat(adapters[::2]).to(x.dtype)  # [sum of ranks, in]
        # The scale goes into B while that is still fp32: one rounding instead of two.
        scaled_b = [(b * scale).to(x.dtype) for b, scale in zip(adapters[1::2], scales, strict=True)]
        low = x @ a.t()  # [n, sum of ranks]
        outs = []
        for layer, b, part in zip(layers, scaled_b, low.split(ranks, dim=1), strict=True):
            base: Any = layer.base_layer
            outs.append(F.linear(x, _weight(base, x.dtype), _bias(base, x.dtype)).addmm_(part, b.t()))
        ctx.save_for_backward(x, low, a, *scaled_b)
        ctx.layers, ctx.scales, ctx.ranks = layers, scales, ranks
        return tuple(outs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x and of every A and B, with G = dL/dy [n, out] of each layer in ``grads``."""
        x, low, a, *scaled_b = ctx.saved_tensors
        # [n, sum of ranks]; the saved B holds the scale, so dx and dA need no factor.
        grad_low = torch.cat([grad @ b for grad, b in zip(grads, scaled_b, strict=True)], dim=1)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = grad_low @ a
            for grad, layer in zip(grads, ctx.layers, strict=True):
                grad_x.addmm_(grad, _weight(layer.base_layer, x.dtype))
        grads_a = (grad_low.t() @ x).float().split(ctx.ranks)
        returned: list[Tensor | None] = [grad_x, None]
        parts = low.split(ctx.ranks, dim=1)
        for grad, part, grad_a, scale in zip(grads, parts, grads_a, ctx.scales, strict=True):
            # `low` is x Aᵀ without the scale, so dB has the factor, in fp32.
            returned += [grad_a, (grad.t() @ part).float().mul_(scale)]
        return tuple(returned)


def lora_linears(layers: Sequence[Any], x: Tensor) -> tuple[Tensor, ...]:
    """Return what each LoRA layer gives for x [n, in], each [n, out]; fused where no dropout is applied."""
    # Dropout draws a mask of its own for each layer's adapter, so there is no common x Aᵀ.
    if any(layer.training and has_dropout(layer) for layer in layers):
        return tuple(layer(x) for layer in layers)
    adapters = [w.weight for layer in layers for w in (*layer.lora_A.values(), *layer.lora_B.values())]
    outs: tuple[Tensor, ...] = LoraLinears.apply(x, layers, *adapters)
    return outs


def lora_forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Compute a layer that :func:`is_supported` accepts: its forward pass, for x [..., in], returns [..., out]."""
    # As a table [n, in], because a product of more dimensions is a view, which is costly to write into.
    rows = x.reshape(-1, x.shape[-1])
    if self.training and has_dropout(self):
        name = next(iter(self.lora_A))
        a, b = self.lora_A[name].weight, self.lora_B[name].weight
        # Only the adapter's input is dropped, as in PEFT; the base sees all of x.
        dropped = self.lora_dropout[name](rows)
        out: Tensor = AddLora.apply(self.base_layer(rows), dropped, a, b, self.scaling[name])
    else:
        (out,) = lora_linears([self], rows)
    return out.view(*x.shape[:-1], -1)


def is_supported(layer: nn.Module) -> bool:
    """Whether a layer is one active plain LoRA adapter on a frozen linear layer, the only case computed here."""
    if not isinstance(layer, LoraLayer):
        return False
    weights = [*layer.lora_A.values(), *layer.lora_B.values()]
    linear = all(isinstance(w, nn.Linear) and w.bias is None for w in weights)
    variants = getattr(layer, "lora_variant", {})  # such as DoRA, which computes something else
    base: Any = layer.base_layer
    frozen = isinstance(base, nn.Linear) and not any(p.requires_grad for p in base.parameters())
    return len(layer.lora_A) == 1 and linear and frozen and not any(variants.values()) and not layer.merged


def has_dropout(layer: Any) -> bool:
    """Whether a layer's adapters drop a part of their input while training."""
    return any(getattr(drop, "p", 0) for drop in layer.lora_dropout.values())


def _weight(base: Any, dtype: torch.dtype) -> Tensor:
    """Return a linear layer's weight [out, in]; a 4-bit one is dequantised to ``dtype``."""
    weight: Tensor = base.weight
    state = getattr(weight, "quant_state", None)
    if state is None:
        return weight.detach()
    import bitsandbytes.functional as bnb

    return bnb.dequantize_4bit(weight.data, state).to(dtype)


def _bias(base: Any, dtype: torch.dtype) -> Tensor | None:
    """Return a linear layer's bias [out] in ``dtype``, None without one."""
    return None if base.bias is None else base.bias.to(dtype)

"""CPU kernels for training with the same result: fused forward and backward passes of a model's layers.

:func:`select` is the only way in; the plain path beside it (transformers' and PEFT's own layers, padded rows, torch's
cross-entropy) is :func:`runners.loss.plain_loss`, which the tests compare these with. Imports torch.

Measured on 2 cores with AVX512-BF16, SmolLM2-135M, LoRA r16, rows of 82 tokens: 567 tokens/s with PEFT's
layers and torch's attention, 1,020 with these, 1,490 when the common prefix is computed once as well. With AMX,
a step of 8 such rows took 1,056 ms of processor time with layers apart, 948 with those of one input together.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from runners import lowrank
from runners.attention import ATTENTION, RotaryPositions, attend
from runners.batch import Segments

ARCHITECTURES = ("Llama", "Mistral", "Qwen2")
"""Architectures whose attention and MLP are exactly those computed here; others keep their own."""

Forward = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class CpuKernels:
    """The fused forward passes of one model; the model itself is changed only within :meth:`active`."""

    causal: PreTrainedModel
    """The model below its adapters, whose attention function is exchanged."""
    forwards: list[tuple[nn.Module, Forward]]
    """Modules that are faster fused, each with its fused forward pass; collected once, as a model has a thousand."""
    covers_blocks: bool
    """Whether attention and MLP of every block are fused, and no dropout keeps their adapters from being so."""

    @contextmanager
    def active(self) -> Iterator[None]:
        """Use the fused passes and the packed attention within the block; afterwards the model is as it was."""
        before = self.causal.config._attn_implementation
        try:
            for module, forward in self.forwards:
                module.forward = types.MethodType(forward, module)
            self.causal.config._attn_implementation = ATTENTION
            yield
        finally:
            self.causal.config._attn_implementation = before
            for module, _ in self.forwards:
                vars(module).pop("forward", None)


def select(
    net: nn.Module, causal: PreTrainedModel, longest: int, resumed: bool = False
) -> tuple[CpuKernels | None, str]:
    """Return the fused kernels of a model and "", or None and the reason why they cannot be used.

    Args:
        net: The model with its adapters, or without.
        causal: The causal language model within ``net``.
        longest: Tokens of the longest training row.
        resumed: Whether an earlier run of the same settings used them: then nothing rules them out any more.
    """
    reason = "" if resumed else _not_usable(causal, longest)
    if reason:
        return None, reason
    passes = [(module, _fused(module)) for module in net.modules()]
    blocks = [forward for module, forward in passes if type(module).__name__.endswith(("Attention", "MLP"))]
    dropout = any(
        lowrank.has_dropout(module) for module, forward in passes if forward is lowrank.lora_forward
    )
    forwards = [(module, forward) for module, forward in passes if forward]
    return CpuKernels(causal, forwards, bool(blocks) and None not in blocks and not dropout), ""


def _not_usable(causal: PreTrainedModel, longest: int) -> str:
    """Return what rules the kernels out without a trial, "" when nothing does."""
    config = causal.config
    if causal.device.type != "cpu":
        return "not on a CPU"
    if any(getattr(module, "gradient_checkpointing", False) for module in causal.modules()):
        return "activations are computed again in the backward pass, where the fast layers are gone"
    if getattr(config, "attention_dropout", 0):
        return "the model drops attention out"
    window = getattr(config, "sliding_window", None)
    return f"rows are longer than the model's window of {window}" if window and longest > window else ""


def _fused(module: nn.Module) -> Forward | None:
    """Return the fused forward pass of a module, None where its own is kept."""
    name = type(module).__name__
    if lowrank.is_supported(module):
        return lowrank.lora_forward
    if _is_norm(module):
        return _norm_forward
    if name in [f"{kind}Attention" for kind in ARCHITECTURES] and _adapted(
        module, "q_proj", "k_proj", "v_proj"
    ):
        return _attention_forward
    if name in [f"{kind}MLP" for kind in ARCHITECTURES] and _adapted(module, "gate_proj", "up_proj"):
        return _mlp_forward
    return None


def _adapted(module: nn.Module, *names: str) -> bool:
    return all(lowrank.is_supported(module.get_submodule(name)) for name in names)


def _attention_forward(
    self: Any,
    hidden_states: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    segments: Segments | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Compute a Llama attention block over packed rows: hidden_states [1, T, hidden] to the same shape."""
    assert segments is not None
    x = hidden_states[0]
    q, k, v = (
        out.view(len(x), -1, self.head_dim)
        for out in lowrank.lora_linears([self.q_proj, self.k_proj, self.v_proj], x)
    )
    # transformers gives [1, T, d] with both halves of d alike; one half is enough: [T, 1, d / 2].
    cos, sin = (t[0, :, None, : self.head_dim // 2] for t in position_embeddings)
    q, k = RotaryPositions.apply(q, cos, sin), RotaryPositions.apply(k, cos, sin)
    out = attend(q, k, v, segments, self.scaling)
    return self.o_proj(out.reshape(1, len(x), -1)), None


def _mlp_forward(self: Any, x: Tensor) -> Tensor:
    """Compute a gated MLP, down(act(gate(x)) * up(x)), for x [1, T, hidden], with gate and up as one product."""
    gate, up = lowrank.lora_linears([self.gate_proj, self.up_proj], x[0])
    out: Tensor = self.down_proj(self.act_fn(gate) * up)
    return out.unsqueeze(0)


class RMSNorm(torch.autograd.Function):
    """Root mean square normalisation (Zhang & Sennrich 2019) in fp32, rounded as transformers' Llama rounds it.

    ``y = weight * round(x / sqrt(mean(x²) + epsilon))``, in fewer passes over memory than autograd makes.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """Take x [..., d] and weight [d]; return x's shape."""
        wide = x.float()  # squares of bf16 would lose the sum's small terms
        inverse = torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)  # [..., 1]
        # Rounded before the weight, because transformers does.
        unit = (wide * inverse).to(x.dtype)
        ctx.save_for_backward(unit, inverse, weight)
        return unit * weight

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x and, where it is trained, weight.

        With u = x / rms, h = grad * weight: dx = (h - u mean(h u)) / rms, the part of h along u taken out, as the
        length of x has no effect.
        """
        unit, inverse, weight = ctx.saved_tensors
        grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_weight = (grad * unit).flatten(0, -2).sum(0).to(weight.dtype)
        slope, wide = (grad * weight).float(), unit.float()
        along = (slope * wide).mean(-1, keepdim=True)
        grad_x = torch.addcmul(slope, wide, along, value=-1).mul_(inverse)
        return grad_x.to(unit.dtype), grad_weight, None


def _is_norm(module: nn.Module) -> bool:
    """Whether a module is an RMS normalisation that :class:`RMSNorm` gives the same numbers for."""
    weight = getattr(module, "weight", None)
    if not type(module).__name__.endswith("RMSNorm") or not hasattr(module, "variance_epsilon"):
        return False
    if weight is None or weight.ndim != 1 or module._forward_hooks or module._forward_pre_hooks:
        return False
    kind: Any = type(module)
    return _same_norm(kind)


@lru_cache(maxsize=32)
def _same_norm(kind: Any) -> bool:
    """Try a class of normalisation on random numbers: Gemma's, for one, is named alike and adds 1 to its weight."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 8, generator=generator)
    with torch.no_grad():
        try:
            norm: Any = kind(8)
            norm.weight.copy_(torch.rand(8, generator=generator))
            return torch.equal(norm(x), RMSNorm.apply(x, norm.weight, norm.variance_epsilon))
        except (TypeError, AttributeError, RuntimeError):
            return False


def _norm_forward(self: Any, x: Tensor) -> Tensor:
    out: Tensor = RMSNorm.apply(x, self.weight, self.variance_epsilon)
    return out

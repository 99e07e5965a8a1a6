"""CPU kernels for training: fused forward and backward passes of a model's layers, with the same result.

:func:`select` is the entry point. The reference is :func:`runners.training.loss.plain_loss` (transformers' and PEFT's
own layers, padded rows, torch's cross-entropy), with which the tests compare these kernels. They are causal attention
over packed rows with rotary positions, RMS normalisation, and frozen linear layers with a LoRA adapter, computed
together where they read the same input. Imports torch, transformers and peft.

Attention: rows are packed into one line of T tokens (:class:`runners.training.packing.TokenBatch`), first the prefix
that all rows share, then each row's suffix. With grouped-query attention ``groups`` key/value heads serve ``heads``
query heads, ``fold = heads // groups`` each.

Linear layers: x [n, in] are n tokens; a layer is ``y = x Wᵀ + bias + scale * x Aᵀ Bᵀ`` with W [out, in] frozen,
A [r, in] and B [out, r] trained in fp32 (LoRA, Hu et al. 2021). Products are in x's dtype; gradients of A and B are
fp32.

Measured on 2 cores with AVX512-BF16, SmolLM2-135M, LoRA r16, rows of 82 tokens: 567 tokens/s with PEFT's layers and
torch's attention, 1,020 with these, 1,490 when the shared prefix is computed once as well. With AMX, a step of 8 such
rows took 1,056 ms of processor time with each layer computed alone, 948 with those of one input together.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from runners.training.packing import RowSegments, TokenBatch
from runners.training.path_probe import length_dependent

ATTENTION_NAME = "tunewise_rows"
"""Name under which transformers finds :func:`packed_attention`."""
MAX_EAGER_TOKENS = 512
"""Longest row for the eager attention; torch's own kernel is faster above (600 tokens: 32 against 28 ms)."""
ARCHITECTURES = ("Llama", "Mistral", "Qwen2")
"""Architectures whose attention and MLP are exactly those computed here; others keep their own."""
PACKED_MODELS = frozenset(
    f"{name}Model"
    for name in (
        *(
            "Apertus",
            "Arcee",
            "Cohere",
            "Cohere2",
            "DiffLlama",
            "Ernie4_5",
            "Ernie4_5_Moe",
            "Exaone4",
            "Gemma",
        ),
        *(
            "Gemma3Text",
            "Glm",
            "Glm4",
            "Glm4Moe",
            "GPTNeoX",
            "Granite",
            "GraniteMoe",
            "Helium",
            "HunYuanDenseV1",
        ),
        *(
            "Llama",
            "Ministral",
            "Ministral3",
            "Mistral",
            "Mixtral",
            "NanoChat",
            "Olmo",
            "Olmo2",
            "Olmo3",
            "Olmoe",
        ),
        *(
            "Persimmon",
            "Phi",
            "Phi3",
            "Qwen2",
            "Qwen2Moe",
            "Qwen3",
            "Qwen3Moe",
            "SeedOss",
            "SmolLM3",
            "Starcoder2",
        ),
    )
)
"""transformers' models in which tokens of a row meet only in causal softmax attention, called by its interface with the
row's segments: no ALiBi, convolution, recurrent state, linear attention, sinks or capped scores. Read in their source;
tests/runners/families trains each of them. A sliding window is exact as long as no row is longer."""
EXACT_LAYERS = frozenset(("full_attention", "sliding_attention", "attention", "mlp", "moe"))
"""Values of a config's ``layer_types`` that are softmax attention, or that compute each token by itself."""

Forward = Callable[..., Any]
"""The forward pass of a module, as a function of the module and its arguments."""


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
    a, b = x.chunk(2, dim=-1)
    first, second = out.chunk(2, dim=-1)
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
    segments: RowSegments | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """Run :func:`attend_segments` as transformers' attention function, for architectures whose own forward pass is kept.

    query [1, heads, T, d], key and value [1, groups, T, d]; returns [1, T, heads, d], and no attention weights.

    Raises ValueError for what is not computed here: dropout, capped scores, sinks, a window shorter than a row.
    """
    if segments is None:
        raise ValueError(
            f"{type(module).__name__} does not hand the rows' segments to its attention function"
        )
    others = [
        name for name in ("softcap", "s_aux", "position_bias", "alibi") if settings.get(name) is not None
    ]
    window = settings.get("sliding_window")
    if window and window < segments.prefix + segments.width:
        others.append(f"a window of {window}")
    if others or dropout:
        raise ValueError(f"attention with {', '.join(others) or 'dropout'} is not computed here")
    q, k, v = (t[0].transpose(0, 1) for t in (query, key, value))
    return attend_segments(q, k, v, segments, scaling or query.shape[-1] ** -0.5).unsqueeze(0), None


def attend_segments(q: Tensor, k: Tensor, v: Tensor, segments: RowSegments, scale: float) -> Tensor:
    """Let each row of a :class:`runners.training.packing.TokenBatch` attend to the shared prefix and to itself.

    q [T, heads, d], k and v [T, groups, d]; returns [T, heads, d]. ``scale`` multiplies the scores, usually d ** -0.5.
    """
    prefix, rows, width = segments.prefix, segments.rows, segments.width
    if prefix == 0 and width > MAX_EAGER_TOKENS:
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
    # Above the diagonal that starts behind the prefix: key prefix + j is hidden from query i where j > i.
    one = torch.full((width, prefix + width), float("-inf"), dtype=dtype, device=device).triu(prefix + 1)
    return one.repeat(fold, 1).unsqueeze(0)


AttentionInterface.register(ATTENTION_NAME, packed_attention)


class LoraLinearFunction(torch.autograd.Function):
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
    if any(layer.training and has_lora_dropout(layer) for layer in layers):
        return tuple(layer(x) for layer in layers)
    adapters = [w.weight for layer in layers for w in (*layer.lora_A.values(), *layer.lora_B.values())]
    outs: tuple[Tensor, ...] = LoraLinears.apply(x, layers, *adapters)
    return outs


def lora_linear_forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Compute the forward pass of a layer that :func:`is_plain_lora` accepts: x [..., in] to [..., out]."""
    # As a table [n, in], because a product of more dimensions is a view, which is costly to write into.
    rows = x.reshape(-1, x.shape[-1])
    if self.training and has_lora_dropout(self):
        name = next(iter(self.lora_A))
        a, b = self.lora_A[name].weight, self.lora_B[name].weight
        # Only the adapter's input is dropped, as in PEFT; the base sees all of x.
        dropped = self.lora_dropout[name](rows)
        out: Tensor = LoraLinearFunction.apply(self.base_layer(rows), dropped, a, b, self.scaling[name])
    else:
        (out,) = lora_linears([self], rows)
    return out.view(*x.shape[:-1], -1)


def is_plain_lora(layer: nn.Module) -> bool:
    """Whether a layer is one active plain LoRA adapter on a frozen linear layer, the only case computed here."""
    if not isinstance(layer, LoraLayer):
        return False
    weights = [*layer.lora_A.values(), *layer.lora_B.values()]
    linear = all(isinstance(w, nn.Linear) and w.bias is None for w in weights)
    variants = getattr(layer, "lora_variant", {})  # such as DoRA, which computes something else
    base: Any = layer.base_layer
    frozen = isinstance(base, nn.Linear) and not any(p.requires_grad for p in base.parameters())
    return len(layer.lora_A) == 1 and linear and frozen and not any(variants.values()) and not layer.merged


def has_lora_dropout(layer: Any) -> bool:
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


@dataclass(frozen=True, slots=True)
class CpuKernels:
    """The fused forward passes of one model; the model itself is changed only within :meth:`active`."""

    causal: PreTrainedModel
    """The model below its adapters, whose attention function is exchanged."""
    forwards: list[tuple[nn.Module, Forward]]
    """Modules that are faster fused, each with its fused forward pass; collected once, as a model has a thousand."""
    covers_blocks: bool
    """Whether attention and MLP of every block are fused, and no dropout keeps their adapters from being so."""

    def hidden(self, batch: TokenBatch) -> Tensor:
        """Return the last hidden states [T, d] of packed rows, in the order of the batch's tokens."""
        with self.active():
            out = self.causal.base_model(
                input_ids=batch.ids,
                position_ids=batch.positions,
                use_cache=False,
                segments=batch.segments,
            )
        hidden: Tensor = out.last_hidden_state
        return hidden[0]

    @contextmanager
    def active(self) -> Iterator[None]:
        """Use the fused passes and the packed attention within the block; afterwards the model is as it was."""
        before = self.causal.config._attn_implementation
        try:
            for module, forward in self.forwards:
                module.forward = types.MethodType(forward, module)
            self.causal.config._attn_implementation = ATTENTION_NAME
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
        resumed: Whether an earlier run of the same settings used them: then only the kind of model rules them out.
    """
    reason = _not_exact(causal) or ("" if resumed else _not_usable(causal, longest))
    return (None, reason) if reason else (fuse(net, causal), "")


def fuse(net: nn.Module, causal: PreTrainedModel) -> CpuKernels:
    """Return the fused kernels of a model without asking whether they compute what the model computes."""
    passes = [(module, _fused(module)) for module in net.modules()]
    blocks = [forward for module, forward in passes if type(module).__name__.endswith(("Attention", "MLP"))]
    dropout = any(has_lora_dropout(module) for module, forward in passes if forward is lora_linear_forward)
    forwards = [(module, forward) for module, forward in passes if forward]
    return CpuKernels(causal, forwards, bool(blocks) and None not in blocks and not dropout)


def _not_exact(causal: PreTrainedModel) -> str:
    """Return why the packed kernels do not compute what a kind of model computes, "" when they do."""
    config = causal.config
    others = set(getattr(config, "layer_types", None) or ()) - EXACT_LAYERS
    if others:
        return f"packed rows would mix in layers of the kind {', '.join(sorted(others))}"
    if getattr(config, "alibi", False) or config.model_type in ("bloom", "mpt"):
        return "the packed attention has no ALiBi"
    if type(causal.base_model).__name__ not in PACKED_MODELS:
        return f"the packed attention is not known to be that of {config.model_type}"
    return ""


def _not_usable(causal: PreTrainedModel, longest: int) -> str:
    """Return what rules the kernels out without a trial, "" when nothing does."""
    config = causal.config
    if causal.device.type != "cpu":
        return "not on a CPU"
    if causal.dtype == torch.float16:
        return "float16 gradients need the loss scaled through every layer"
    if any(getattr(module, "gradient_checkpointing", False) for module in causal.modules()):
        return "activations are computed again in the backward pass, where the fast layers no longer exist"
    if getattr(config, "attention_dropout", 0):
        return "the model drops attention out"
    window = getattr(config, "sliding_window", None)
    if window and longest > window:
        return f"rows are longer than the model's window of {window}"
    return length_dependent(causal, longest)


def _fused(module: nn.Module) -> Forward | None:
    """Return the fused forward pass of a module, None where its own is kept."""
    name = type(module).__name__
    if is_plain_lora(module):
        return lora_linear_forward
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
    """Return whether all these layers of a module have a plain LoRA adapter."""
    return all(is_plain_lora(module.get_submodule(name)) for name in names)


def _attention_forward(
    self: Any,
    hidden_states: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    segments: RowSegments | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Compute a Llama attention block over packed rows: hidden_states [1, T, hidden] to the same shape."""
    assert segments is not None
    x = hidden_states[0]
    q, k, v = (
        out.view(len(x), -1, self.head_dim)
        for out in lora_linears([self.q_proj, self.k_proj, self.v_proj], x)
    )
    # transformers gives [1, T, d] with both halves of d alike; one half is enough: [T, 1, d / 2].
    cos, sin = (t[0, :, None, : self.head_dim // 2] for t in position_embeddings)
    q, k = RotaryPositions.apply(q, cos, sin), RotaryPositions.apply(k, cos, sin)
    out = attend_segments(q, k, v, segments, self.scaling)
    return self.o_proj(out.reshape(1, len(x), -1)), None


def _mlp_forward(self: Any, x: Tensor) -> Tensor:
    """Compute a gated MLP, down(act(gate(x)) * up(x)), for x [1, T, hidden], with gate and up as one product."""
    gate, up = lora_linears([self.gate_proj, self.up_proj], x[0])
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
    """Return whether a class of normalisation gives the same numbers on random input.

    The name is not enough: Gemma's, for one, is named RMSNorm too and adds 1 to its weight.
    """
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
    """Compute an RMS normalisation, for x [..., d]."""
    out: Tensor = RMSNorm.apply(x, self.weight, self.variance_epsilon)
    return out

"""The training loss, on target tokens only: the output head computes no logits for the other tokens.

Five paths to the same number: *fast* (CPU: packed rows, shared prefixes, fused layers), *rows* (any device: only the
loss of the head is this project's), *compiled* (rows with torch.compile, on a GPU and in a long run), *plain* (padded
rows, the model's own logits, torch's cross-entropy), *alone* (the reference: plain, each row by itself).
:func:`choose_loss` takes the fastest that is known to compute what the model computes and that gives the reference's
losses and gradients on a probe (:mod:`runners.training.path_probe`), or plain where that is asked for;
:func:`compiling_pays` decides about torch.compile. Imports torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from rag.errors import BadInput, CannotRun
from runners.resources.device import DEVICE_TABLE, synchronize_device
from runners.resources.loss_memory import logit_block_rows
from runners.tokenization.chat_template import EncodedRow
from runners.training.cpu_kernels import CpuKernels, select
from runners.training.packing import TokenBatch, collate, shared_prefix
from runners.training.path_probe import (
    MAX_LOSS_TOKENS,
    adapters_not_zero,
    cut_row,
    head_difference,
    layers_difference,
    length_dependent,
    plain_hidden,
    relative_distance,
)

COMPILE_SPEEDUP = 1.27
"""Speed of compiled relative to uncompiled steps on a GPU: torchtune, a 3B model on one A100, 7,075 to 8,998 tokens/s."""
COMPILE_COST_S = 120.0
"""Seconds that compiling takes; measured for a 135M model: 105 s."""
COMPILE_MARGIN = 2.0
"""How many times its cost compiling must save, because both numbers above were measured on other machines."""
NO_CPU_COMPILE = (
    "torch.compile is off on a CPU: for a 135M model on 2 cores it took 105 s to compile, and its 400 tokens/s "
    "are fewer than the fused layers give without it"
)
HALF_GRADIENT_SCALE = 1024.0
"""Factor on softmax less target, at most 1, in the products of a float16 loss: entries below 6e-8 would be lost."""
LOSS_TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.bfloat16: 0.02, torch.float16: 0.02}
"""Relative difference from the plain loss that rounding in a dtype explains, for the whole model."""
GRADIENT_TOLERANCE = {torch.float64: 1e-2, torch.float32: 1e-2, torch.bfloat16: 0.15, torch.float16: 0.15}
"""The same for the gradients of compiled layers: in bf16 those of two correct computations of a 135M model differ by
5 %, in fp32 a GPU's TF32 products by less than 1 %. What is not compiled is compared in fp32, to 0.1 %."""
PLAIN_REQUESTED = "kernels plain: asked for"


def compiling_pays(device: str, tokens: int, tokens_per_s: float) -> tuple[bool, str]:
    """Return whether to compile, and why.

    Args:
        device: torch's name of the kind of device; only ``cuda`` is compiled for.
        tokens: Tokens of the whole run.
        tokens_per_s: Measured speed without compiling.
    """
    if device == "cpu":
        return False, NO_CPU_COMPILE
    if not any(facts.compiles and facts.torch_type == device for facts in DEVICE_TABLE.values()):
        return False, f"torch.compile is not used on {device}: it was not measured there"
    seconds = tokens / max(tokens_per_s, 1e-9)  # guard against a measured speed of 0
    # At COMPILE_SPEEDUP times the speed a run takes 1 / COMPILE_SPEEDUP of the time.
    saved = seconds * (1 - 1 / COMPILE_SPEEDUP)
    least = COMPILE_MARGIN * COMPILE_COST_S
    reason = (
        f"a run of {seconds:.0f} s would save about {saved:.0f} s, "
        f"compiling costs about {COMPILE_COST_S:.0f} s"
    )
    return saved > least, f"{reason}; it is {'on' if saved > least else 'off'} (limit: {least:.0f} s saved)"


class LinearCrossEntropy(torch.autograd.Function):
    """Sum of cross-entropies of ``hidden @ headᵀ``, with the gradient computed during the forward pass.

    With z = hidden headᵀ [n, vocabulary], m = max z, e = exp(z - m), mass = sum e: the loss of a row is
    ``log mass - (z_target - m)``, its gradient by z ``softmax(z) - onehot(target) = (e - mass onehot) / mass``. One
    product forward and one back per block; a trained head costs one more. Softmax is in fp32, and its division by mass
    is applied to the small products [block, d] instead of the rows of logits [block, vocabulary].

    In float16, whose largest number is 65,504 and whose smallest 6e-8, the rows are divided by mass before they are
    rounded and multiplied by HALF_GRADIENT_SCALE for the products, which are scaled back and held in fp32.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
        """Take hidden [n, d], head [vocabulary, d], targets int64 [n]; return a scalar in fp32."""
        needs_hidden, needs_head = ctx.needs_input_grad[:2]
        total = hidden.new_zeros((), dtype=torch.float32)
        half = hidden.dtype == torch.float16
        wide_dtype = torch.float32 if half else hidden.dtype
        grad_hidden = torch.empty_like(hidden, dtype=wide_dtype) if needs_hidden else None
        # fp32, because it is summed over blocks.
        grad_head = torch.zeros_like(head, dtype=torch.float32) if needs_head else None
        # Blocks of one size, because each reads the whole head.
        block = -(-len(hidden) // -(-len(hidden) // block_rows(len(head), hidden.device)))
        # Two buffers for all blocks: logits in the model's dtype, and in fp32 (the same one where that is fp32).
        raw = hidden.new_empty(block, len(head))
        wide = raw if raw.dtype == torch.float32 else torch.empty_like(raw, dtype=torch.float32)
        for start in range(0, len(hidden), block):
            part, goal = hidden[start : start + block], targets[start : start + block, None]
            logits, slope = wide[: len(part)], raw[: len(part)]
            torch.mm(part, head.t(), out=slope)
            # The maximum is subtracted so that no exp overflows; the loss does not change.
            logits.copy_(slope).sub_(logits.amax(-1, keepdim=True))
            chosen = logits.gather(1, goal)  # read before exp_ overwrites it
            mass = logits.exp_().sum(-1, keepdim=True)  # at least 1, the maximum's own term
            total += (mass.log() - chosen).sum()
            # mass times the gradient by the logits, into the buffer of the model's dtype for the products.
            logits.scatter_add_(1, goal, -mass)
            if half:
                # Not the mass itself: with a vocabulary of 262,144 it can exceed float16's largest number.
                logits.mul_(HALF_GRADIENT_SCALE / mass)
                mass = torch.full_like(mass, HALF_GRADIENT_SCALE)
            slope.copy_(logits)
            if grad_hidden is not None:
                product = slope @ head
                grad_hidden[start : start + block] = (product.float() if half else product).div_(mass)
            if grad_head is not None:
                grad_head += slope.t().to(wide_dtype) @ (part.to(wide_dtype) / mass).to(wide_dtype)
        ctx.save_for_backward(grad_hidden, grad_head)
        ctx.dtypes = hidden.dtype, head.dtype
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients that the forward pass left by the scalar gradient of the loss."""
        grad_hidden, grad_head = ctx.saved_tensors
        hidden_dtype, head_dtype = ctx.dtypes
        by_head = None if grad_head is None else (grad_head * grad).to(head_dtype)
        by_hidden = (
            None if grad_hidden is None else (grad_hidden * grad.to(grad_hidden.dtype)).to(hidden_dtype)
        )
        return by_hidden, by_head, None


def block_rows(vocabulary: int, device: torch.device) -> int:
    """Return how many rows of logits are held at once."""
    return logit_block_rows(vocabulary, device.type != "cpu")


@dataclass(frozen=True, slots=True)
class TrainingLoss:
    """How a run computes its loss; made by :func:`choose_loss`, or by :func:`restore_loss` for a resumed run."""

    net: nn.Module
    causal: PreTrainedModel
    path: str
    """fast, compiled, rows, plain or alone."""
    reason: str = ""
    """Why not a faster path, "" for the fastest."""
    compiling: str = ""
    """Why torch.compile is on or off."""
    inner: Callable[..., Any] | None = None
    """The compiled layers below the head."""
    kernels: CpuKernels | None = None
    """The fused layers, for the fast path."""

    def __call__(self, rows: Sequence[EncodedRow]) -> Tensor:
        """Return the sum of the target tokens' cross-entropies over some rows, in fp32."""
        if self.path == "alone":
            return torch.stack([plain_loss(self.causal, self.collate([row])) for row in rows]).sum()
        batch = self.collate(rows)
        if self.path == "plain":
            return plain_loss(self.causal, batch)
        head = self.causal.get_output_embeddings()
        weight = head.weight if torch.is_grad_enabled() else head.weight.detach()
        total: Tensor = LinearCrossEntropy.apply(self.hidden(batch)[batch.keep], weight, batch.targets)
        return total

    def collate(self, rows: Sequence[EncodedRow]) -> TokenBatch:
        """Return rows in the layout of this path: packed on the fast one, else padded."""
        return collate(rows, self.path == "fast", self.causal.device)

    def shared(self, rows: Sequence[EncodedRow]) -> int:
        """Return how many first tokens, common to all rows, a forward pass computes only once."""
        return shared_prefix(rows) if self.path == "fast" else 0

    @property
    def fuses_blocks(self) -> bool:
        """Whether every block's attention and MLP is fused and so stores fewer activations, for the memory estimate."""
        return self.kernels is not None and self.kernels.covers_blocks

    def hidden(self, batch: TokenBatch) -> Tensor:
        """Return the last hidden states [T, d], in the order of the batch's tokens."""
        if self.path == "fast":
            assert self.kernels is not None
            return self.kernels.hidden(batch)
        if self.inner is None:
            return plain_hidden(self.causal, batch)
        out = self.inner(input_ids=batch.ids.view(batch.segments.rows, -1), use_cache=False)
        hidden: Tensor = out.last_hidden_state
        return hidden.flatten(0, 1)

    def choice(self) -> dict[str, str]:
        """Return what was chosen as JSON values; :func:`restore_loss` takes path and reason."""
        return {"path": self.path, "reason": self.reason, "compiling": self.compiling}


def plain_loss(causal: PreTrainedModel, batch: TokenBatch) -> Tensor:
    """Return the reference: cross-entropies of the model's own logits, for padded rows, summed in fp32.

    The layers are transformers' and PEFT's own. No attention mask is needed, as rows are padded on the right.
    """
    # [rows, width] in, [rows, width, vocabulary] out; flattened because batch.keep indexes the line of tokens.
    logits = causal(input_ids=batch.ids.view(batch.segments.rows, -1), use_cache=False).logits.flatten(0, 1)
    return F.cross_entropy(logits[batch.keep].float(), batch.targets, reduction="sum")


@contextmanager
def evaluation_mode(net: nn.Module) -> Iterator[None]:
    """Switch dropout and gradients off within the block.

    4-bit layers stay in training mode: in evaluation mode bitsandbytes repacks their weights permanently for inference
    on a CPU, and gradients through such a layer are silently wrong from then on.
    """
    net.eval()
    for module in net.modules():
        # PEFT's layer around it has the same name, and its dropout must be off.
        if type(module).__name__ == "Linear4bit" and not hasattr(module, "base_layer"):
            module.train()
    try:
        with torch.no_grad():
            yield
    finally:
        net.train()


FuseKernels = Callable[[nn.Module, PreTrainedModel, int], tuple[CpuKernels | None, str]]
"""What fuses a model for rows of so many tokens, as :func:`runners.training.cpu_kernels.select`."""


def choose_loss(
    net: nn.Module,
    rows: Sequence[EncodedRow],
    tokens: int = 0,
    kernels: str = "auto",
    fuse: FuseKernels = select,
) -> TrainingLoss:
    """Return the fastest path with the reference's losses and gradients on a probe, and why not a faster one.

    Weights, gradients and random state are the same afterwards, to the bit.

    Args:
        net: The model, with its adapter if one is trained.
        rows: The training rows; the longest and the shortest are the probe.
        tokens: Tokens of the whole run, by which compiling on a GPU is decided; 0 never compiles.
        kernels: auto, or plain for the reference path, which needs no probe.
        fuse: Returns the fused kernels for a model, which the probe compares, or why there are none.

    Raises BadInput for a model whose own forward pass fails, CannotRun where memory runs out.
    """
    causal = _causal(net)
    if kernels == "plain":
        return TrainingLoss(net, causal, "plain", PLAIN_REQUESTED, f"torch.compile is off: {PLAIN_REQUESTED}")
    shortest = [cut_row(row, MAX_LOSS_TOKENS) for row in sorted(rows, key=lambda row: len(row.ids))[:2]]
    longest = max(len(row.ids) for row in rows)
    device = causal.device
    drawing = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(drawing), evaluation_mode(net), adapters_not_zero(net):
        expected = _reference(TrainingLoss(net, causal, "alone"), shortest)
        fused, not_packed = fuse(net, causal, longest)
        head = _difference(partial(head_difference, causal, shortest[0]))
        if fused and not head:
            loss = TrainingLoss(net, causal, "fast", kernels=fused)
            packed = _difference(partial(layers_difference, net, causal, rows, fused.hidden, True))
            not_packed = packed or _loss_difference(loss, shortest, expected)
            if not not_packed:
                return _compiled(loss, rows, shortest, expected, tokens)
        padded = length_dependent(causal, longest) or _difference(
            partial(layers_difference, net, causal, rows, partial(plain_hidden, causal), False)
        )
        if padded:
            return TrainingLoss(net, causal, "alone", f"rows are not padded together: {padded}")
        loss = TrainingLoss(net, causal, "rows", not_packed)
        head = head or _loss_difference(loss, shortest, expected)
        if not head:
            return _compiled(loss, rows, shortest, expected, tokens)
    return TrainingLoss(net, causal, "plain", head)


def restore_loss(net: nn.Module, path: str, reason: str = "") -> TrainingLoss:
    """Return the loss that an earlier run of the same settings chose, so that the resumed run is bit-identical.

    Raises BadInput where it packed the rows of a model for which that is wrong.
    """
    causal = _causal(net)
    inner = torch.compile(causal.base_model, dynamic=True) if path == "compiled" else None
    why = NO_CPU_COMPILE if causal.device.type == "cpu" else "as the run began"
    if reason == PLAIN_REQUESTED:
        why = f"torch.compile is off: {reason}"
    fused, wrong = select(net, causal, 0, resumed=True) if path == "fast" else (None, "")
    if wrong:
        raise BadInput(
            f"the unfinished run packed its rows, which gives wrong gradients for this model: {wrong}",
            "start it again with --overwrite",
        )
    return TrainingLoss(net, causal, path, reason, why, inner, fused)


def _causal(net: nn.Module) -> PreTrainedModel:
    """Return the causal language model below the adapters, if any."""
    causal = net.get_base_model() if isinstance(net, PeftModel) else net
    assert isinstance(causal, PreTrainedModel)
    return causal


def _reference(loss: TrainingLoss, rows: Sequence[EncodedRow]) -> float:
    """Return the reference's loss of some rows; BadInput names the family of a model whose forward pass fails."""
    try:
        return float(loss(rows))
    except (RuntimeError, TypeError, ValueError, AttributeError, LookupError, AssertionError) as error:
        _refuse_without_memory(error)
        raise BadInput(
            f"models of the family {loss.causal.config.model_type} cannot be trained here like this: "
            f"{type(error).__name__}: {_first_line(error)}",
            "another method (lora, qlora, full) or another model",
        ) from error


def _difference(compare: Callable[[], str]) -> str:
    """Return what a comparison says; a computation that fails is a difference, CannotRun where memory runs out."""
    try:
        return compare()
    except (RuntimeError, TypeError, ValueError, AttributeError, LookupError, AssertionError) as error:
        _refuse_without_memory(error)
        return f"it fails on this model: {type(error).__name__}: {_first_line(error)}"


def _refuse_without_memory(error: Exception) -> None:
    """Raise CannotRun for an error that says that memory ran out, on a GPU or on a CPU."""
    if isinstance(error, torch.OutOfMemoryError) or "allocat" in str(error).lower():
        raise CannotRun(
            f"not enough memory to compare the ways to compute the loss on the longest rows ({_first_line(error)})",
            "a smaller max_tokens, lora or qlora; --kernels plain compares nothing",
        ) from error


def _first_line(error: Exception) -> str:
    """Return the first line of an error's message."""
    return next(iter(str(error).splitlines()), "")


def _loss_difference(loss: TrainingLoss, rows: Sequence[EncodedRow], expected: float) -> str:
    """Return how the whole model's loss differs from the reference's ``expected``, "" where it does not."""

    def compare() -> str:
        value = float(loss(rows))
        if abs(value - expected) <= LOSS_TOLERANCE[loss.causal.dtype] * abs(expected):
            return ""
        return f"{loss.path} gave {value:.4f} where the model's own logits give {expected:.4f}"

    return _difference(compare)


def _compiled(
    loss: TrainingLoss, rows: Sequence[EncodedRow], probe: Sequence[EncodedRow], expected: float, tokens: int
) -> TrainingLoss:
    """Return the loss with torch.compile where the run is long enough and the result agrees, else with the reason."""
    device = loss.causal.device.type
    # Timed only where compiling is possible.
    speed = _speed(loss, rows) if device == "cuda" and tokens else 1.0
    on, why = compiling_pays(device, tokens, speed)
    if on:
        causal = loss.causal
        inner = torch.compile(causal.base_model, dynamic=True)
        compiled = replace(loss, path="compiled", compiling=why, inner=inner, kernels=None)
        different = _loss_difference(compiled, probe, expected) or _difference(
            lambda: _gradient_difference(compiled, loss, probe)
        )
        if not different:
            return compiled
        why = f"torch.compile is off: {different}"
    return replace(loss, compiling=why)


def _gradient_difference(computed: TrainingLoss, reference: TrainingLoss, rows: Sequence[EncodedRow]) -> str:
    """Return how the gradients of one path differ from those of another, all of them as one vector; "" if little."""
    vectors = []
    for loss in (reference, computed):
        loss.net.zero_grad()
        with torch.enable_grad():
            loss(rows).backward()
        trained = [p for p in loss.net.parameters() if p.requires_grad]
        vectors.append(torch.cat([p.grad.flatten().float() for p in trained if p.grad is not None]))
        loss.net.zero_grad()
    if len(vectors[0]) != len(vectors[1]):
        return f"{computed.path} reaches other parameters than {reference.path}"
    error = relative_distance(vectors[1], vectors[0])
    return "" if error <= GRADIENT_TOLERANCE[computed.causal.dtype] else f"gradients are off by {error:.0%}"


def _speed(loss: TrainingLoss, rows: Sequence[EncodedRow]) -> float:
    """Return tokens per second of a forward and backward pass on a GPU, the second of two; no dropout."""
    chosen = list(rows[:16])
    seconds = 0.0
    for _ in range(2):
        synchronize_device()
        started = time.perf_counter()
        with torch.enable_grad():
            loss(chosen).backward()
        synchronize_device()
        seconds = time.perf_counter() - started
    loss.net.zero_grad()
    return sum(len(row.ids) for row in chosen) / seconds

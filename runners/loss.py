"""The training loss, on learnt tokens only: the output head never sees the other rows. Heavy: imports torch.

Four ways to the same number: *fast* (CPU: packed rows, shared beginnings, fused layers), *rows* (any device),
*compiled* (rows by torch.compile, on a GPU and in a long run), *plain* (the model's own logits). :func:`choose`
takes the fastest that gives the plain one's loss on a probe.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from runners.batch import Batch, collate, shared
from runners.chat import Encoded
from runners.compiling import ON_CPU, pays
from runners.fused import Layer, fast, layers

LOGITS = (64 * 2**20, 256 * 2**20)
"""Bytes of fp32 logits held at once, on a CPU and on a GPU: 341 rows of a vocabulary of 49,152, and 1,365. On 2 cores
with AMX, 300 rows took 135 ms of processor time in blocks of 133, 115 at once."""
AGREE = 0.02
"""Relative difference from the plain loss that bf16 rounding explains."""


class HeadLoss(torch.autograd.Function):
    """Sum of cross-entropies of ``hidden @ headᵀ``, with the gradient computed on the way forward.

    One product forward and one back per block; a trained head costs one more. Softmax is in fp32, and its
    division is applied to the small products instead of the rows of logits.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
        """Take hidden [n, d], head [vocabulary, d], targets [n]; return a scalar in fp32."""
        needs_hidden, needs_head = ctx.needs_input_grad[:2]
        total = hidden.new_zeros((), dtype=torch.float32)
        back = torch.empty_like(hidden) if needs_hidden else None
        weight = torch.zeros_like(head, dtype=torch.float32) if needs_head else None
        # Blocks of one size, because each reads the whole head.
        block = -(-len(hidden) // -(-len(hidden) // block_rows(len(head), hidden.device)))
        raw = hidden.new_empty(block, len(head))
        wide = raw if raw.dtype == torch.float32 else torch.empty_like(raw, dtype=torch.float32)
        for start in range(0, len(hidden), block):
            part, goal = hidden[start : start + block], targets[start : start + block, None]
            logits, slope = wide[: len(part)], raw[: len(part)]
            torch.mm(part, head.t(), out=slope)
            logits.copy_(slope).sub_(logits.amax(-1, keepdim=True))
            chosen = logits.gather(1, goal)
            mass = logits.exp_().sum(-1, keepdim=True)
            total += (mass.log() - chosen).sum()
            slope.copy_(logits.scatter_add_(1, goal, -mass))
            if back is not None:
                back[start : start + block] = (slope @ head).div_(mass)
            if weight is not None:
                weight += slope.t() @ (part / mass).to(part.dtype)
        ctx.save_for_backward(back, weight)
        ctx.head_dtype = head.dtype
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients that the forward pass left."""
        back, weight = ctx.saved_tensors
        by_head = None if weight is None else (weight * grad).to(ctx.head_dtype)
        return None if back is None else back * grad.to(back.dtype), by_head, None


def block_rows(vocabulary: int, device: torch.device) -> int:
    """Return how many rows of logits are held at once."""
    return max(16, LOGITS[device.type == "cuda"] // (4 * vocabulary))


@dataclass(frozen=True, slots=True)
class Loss:
    """How this run computes its loss."""

    net: nn.Module
    causal: PreTrainedModel
    path: str
    """fast, compiled, rows or plain."""
    reason: str = ""
    """Why not a faster one, "" for the fastest."""
    compiling: str = ""
    """Why torch.compile is on or off."""
    inner: Callable[..., Any] | None = None
    """The compiled layers below the head."""
    faster: list[Layer] = field(default_factory=list)
    """The layers that the fast way has forward passes of its own for; found at the first pass."""

    def __call__(self, rows: Sequence[Encoded]) -> Tensor:
        """Return the sum of the learnt tokens' cross-entropies over some rows, in fp32."""
        batch = collate(rows, self.path == "fast", self.causal.device)
        if self.path == "plain":
            return _plain(self.causal, batch)
        head = self.causal.get_output_embeddings()
        weight = head.weight if torch.is_grad_enabled() else head.weight.detach()
        total: Tensor = HeadLoss.apply(self.hidden(batch)[batch.keep], weight, batch.targets)
        return total

    def shared(self, rows: Sequence[Encoded]) -> int:
        """Return how many first tokens of the rows a pass over them computes once."""
        return shared(rows) if self.path == "fast" else 0

    def hidden(self, batch: Batch) -> Tensor:
        """Return the last hidden states, [T, d], in the order of the batch's tokens."""
        inner = self.inner or self.causal.base_model
        if self.path == "fast":
            if not self.faster:
                self.faster.extend(layers(self.net))
            with fast(self.faster, self.causal):
                out = inner(
                    input_ids=batch.ids,
                    position_ids=batch.positions,
                    use_cache=False,
                    segments=batch.segments,
                )
        else:
            out = inner(input_ids=batch.ids.view(batch.segments.rows, -1), use_cache=False)
        hidden: Tensor = out.last_hidden_state
        return hidden.flatten(0, 1)

    def choice(self) -> dict[str, str]:
        """Return what was chosen as JSON values; :func:`again` takes path and reason."""
        return {"path": self.path, "reason": self.reason, "compiling": self.compiling}


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Switch dropout and gradients off within the block.

    4-bit layers stay in training mode: in evaluation mode bitsandbytes repacks their weights for inference on
    a CPU, for good, and gradients through such a layer are silently wrong from then on.
    """
    net.eval()
    for module in net.modules():
        if type(module).__name__ == "Linear4bit":
            module.train()
    try:
        with torch.no_grad():
            yield
    finally:
        net.train()


def choose(net: nn.Module, rows: Sequence[Encoded], tokens: int = 0) -> Loss:
    """Return the fastest way that agrees with the plain loss on two rows, and why not a faster one.

    ``tokens`` is how many the run trains on in all: on a GPU it says whether compiling pays for itself.
    """
    causal = _causal(net)
    head = causal.get_output_embeddings()
    if not isinstance(head, nn.Linear) or head.bias is not None:
        return Loss(net, causal, "plain", "the output head is not a plain linear layer")
    probe = sorted(rows, key=lambda row: len(row.ids))[:2]
    reason = _not_fast(causal, max(len(row.ids) for row in rows))
    with evaluating(net):
        expected = float(Loss(net, causal, "plain")(probe))
        for path in ("rows",) if reason else ("fast", "rows"):
            chosen, said = _agrees(Loss(net, causal, path, reason), probe, expected)
            if chosen:
                return _compiled(chosen, rows, probe, expected, tokens)
            reason = said
    return Loss(net, causal, "plain", reason)


def again(net: nn.Module, path: str, reason: str) -> Loss:
    """Return the loss that an earlier run of the same settings chose, so that it goes on to the last bit."""
    causal = _causal(net)
    inner = torch.compile(causal.base_model, dynamic=True) if path == "compiled" else None
    why = ON_CPU if causal.device.type == "cpu" else "as the run began"
    return Loss(net, causal, path, reason, why, inner)


def _causal(net: nn.Module) -> PreTrainedModel:
    causal = net.get_base_model() if isinstance(net, PeftModel) else net
    assert isinstance(causal, PreTrainedModel)
    return causal


def _agrees(loss: Loss, probe: Sequence[Encoded], expected: float) -> tuple[Loss | None, str]:
    """Return the loss if it gives what the plain one does, else None and the reason."""
    try:
        found = float(loss(probe))
    except (RuntimeError, TypeError, ValueError) as error:
        return None, f"{loss.path} failed on this model: {error}"
    if abs(found - expected) <= AGREE * abs(expected):
        return loss, ""
    return None, f"{loss.path} gave {found:.4f} where the model's own logits give {expected:.4f}"


def _compiled(
    loss: Loss, rows: Sequence[Encoded], probe: Sequence[Encoded], expected: float, tokens: int
) -> Loss:
    """Compile where the run is long enough for it and the result agrees, else say why not."""
    device = loss.causal.device.type
    speed = _speed(loss, rows) if device == "cuda" and tokens else 1.0
    on, why = pays(device, tokens, speed)
    if on:
        causal = loss.causal
        inner = torch.compile(causal.base_model, dynamic=True)
        found, said = _agrees(replace(loss, path="compiled", compiling=why, inner=inner), probe, expected)
        if found:
            return found
        why = f"torch.compile is off: {said}"
    return replace(loss, compiling=why)


def _speed(loss: Loss, rows: Sequence[Encoded]) -> float:
    """Return tokens per second of a forward and backward pass on a GPU, the second of two; no dropout."""
    chosen = list(rows[:16])
    took = 0.0
    for _ in range(2):
        torch.cuda.synchronize()
        started = time.perf_counter()
        with torch.enable_grad():
            loss(chosen).backward()
        torch.cuda.synchronize()
        took = time.perf_counter() - started
    loss.net.zero_grad()
    return sum(len(row.ids) for row in chosen) / took


def _not_fast(causal: PreTrainedModel, longest: int) -> str:
    """Return what rules the fast way out without a trial, "" when nothing does."""
    config = causal.config
    if causal.device.type != "cpu":
        return "not on a CPU"
    if any(getattr(module, "gradient_checkpointing", False) for module in causal.modules()):
        return "activations are computed again in the backward pass, where the fast layers are gone"
    if getattr(config, "attention_dropout", 0):
        return "the model drops attention out"
    window = getattr(config, "sliding_window", None)
    return f"rows are longer than the model's window of {window}" if window and longest > window else ""


def _plain(causal: PreTrainedModel, batch: Batch) -> Tensor:
    logits = causal(input_ids=batch.ids.view(batch.segments.rows, -1), use_cache=False).logits.flatten(0, 1)
    return F.cross_entropy(logits[batch.keep].float(), batch.targets, reduction="sum")

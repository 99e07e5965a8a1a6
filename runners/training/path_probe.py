"""Whether a faster way to the loss gives the plain one's gradients on this model: a comparison that can fail.

The comparison runs in fp32 on the model's first layers, as many as show every kind of layer it has, with the training
set's longest and shortest rows and with adapters that are not zero. In bf16 it would prove little: for a 135M model of
30 layers the gradients of two correct computations differ by 5 % from rounding alone, in fp32 by 0.01 %. A small random
head replaces that of the vocabulary, whose own part is compared by :func:`head_difference`. Everything is restored to the
same bits afterwards: weights, dtypes, gradients, layers and random state. Imports torch and transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from runners.resources.model_shape import LOGIT_CAPS, LOGIT_SCALES
from runners.tokenization.chat_template import EncodedRow
from runners.training.packing import TokenBatch, collate, shared_prefix

GRADIENT_TOLERANCE = 1e-3
"""Largest relative difference of a trained tensor's gradient in fp32; rounding explains 4e-5 on models of many families
and 3e-4 on SmolLM2-135M, a missing ALiBi or a leaking row gives 4e-2 and more."""
LOSS_TOLERANCE_FP32 = 1e-4
"""Largest relative difference of a row's loss in fp32."""
NEGLIGIBLE = 1e-3
"""A gradient this small, relative to the largest of the model, is compared as if it were of this size: some are zero but
for rounding, such as that of a key's bias, which shifts all scores of a query alike."""
HEAD_TOLERANCE = 1e-3
"""Largest relative difference of logits that are the same product of the same numbers."""
HEAD_TOKENS = 32
"""Tokens whose logits are compared: with a vocabulary of 262,144 those of a row of 600 take 600 MiB in fp32."""
MAX_LOSS_TOKENS = 128
"""Longer rows are cut to this where the whole model's losses are compared, whose reference holds all their logits."""
MAX_PROBE_TOKENS = 1024
"""Longer rows are cut to this for the comparison: past every length at which the fast path computes differently."""
MAX_LAYERS = 12
"""Most layers of the comparison; a model that shows all its kinds of layers only later is compared on these."""
ADAPTER_SCALE = 0.02
"""Deviation of the numbers in place of an adapter's zeros: its part of a layer's output is about a tenth then."""
HEAD_WIDTH = 64
"""Classes of the random head used in place of that of the vocabulary."""
LOGIT_SETTINGS = (*LOGIT_SCALES, "dim_model_base")
"""Settings of configs that change logits outside the head, for the reason given."""

LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")
"""Rotary positions whose frequencies depend on the longest row of a batch, past the length the model was trained on."""

Hidden = Callable[[TokenBatch], Tensor]
"""Returns the last hidden states [T, d] of a batch, in the order of its tokens."""


def plain_hidden(causal: PreTrainedModel, batch: TokenBatch) -> Tensor:
    """Return the last hidden states [rows * width, d] of padded rows, computed by the model's own layers."""
    out = causal.base_model(input_ids=batch.ids.view(batch.segments.rows, -1), use_cache=False)
    hidden: Tensor = out.last_hidden_state
    return hidden.flatten(0, 1)


def probe_rows(rows: Sequence[EncodedRow]) -> list[list[EncodedRow]]:
    """Return the batches of the comparison: the longest row with the shortest and a middle one, and the two shortest.

    Rows of unequal length need padding tables, long ones another attention, short ones share their prefix.
    """
    ordered = sorted(rows, key=lambda row: len(row.ids))
    chosen = [0, len(ordered) // 2, len(ordered) - 1]
    unequal = [cut_row(ordered[at]) for at in sorted(set(chosen))]
    shortest = [cut_row(row) for row in ordered[:2]]
    return [unequal] if len(ordered) <= 2 else [unequal, shortest]


def cut_row(row: EncodedRow, limit: int = MAX_PROBE_TOKENS) -> EncodedRow:
    """Return a row of at most ``limit`` tokens; its last 16 tokens are the targets where none is left."""
    if len(row.ids) <= limit:
        return row
    learnt = tuple(at for at in row.learnt if at < limit)
    last = tuple(range(max(1, limit - 16), limit))
    return EncodedRow(row.ids[:limit], learnt or last, row.line)


def layers_difference(
    net: nn.Module,
    causal: PreTrainedModel,
    rows: Sequence[EncodedRow],
    candidate: Hidden,
    packed: bool,
) -> str:
    """Return how a way to the hidden states differs from the plain one, row by row, and "" where it does not.

    Losses and gradients of rows computed together are compared with those of each row computed alone by the model's
    own layers; then one row is changed at a time, which must not move the loss of another.

    Args:
        net: The model with its adapters, in evaluation mode (:func:`runners.training.loss.evaluation_mode`).
        causal: The causal language model within ``net``.
        rows: The training rows.
        candidate: The way that is compared.
        packed: Whether it takes packed rows, else padded ones.
    """
    with ExitStack() as stack:
        stack.enter_context(_first_layers_in_fp32(causal))
        stack.enter_context(adapters_not_zero(net))
        stack.enter_context(_own_gradients(net))
        stack.enter_context(torch.enable_grad())
        head = _random_head(causal)
        for batch_rows in probe_rows(rows):
            difference = _batch_difference(net, causal, batch_rows, candidate, packed, head)
            if difference:
                return difference
    return ""


def head_difference(causal: PreTrainedModel, row: EncodedRow) -> str:
    """Return what a model does with its logits besides the product with its head, "" where they are that product.

    A cap is known by the config, as it changes small logits by nothing that can be measured. For everything else the head's
    own input and output are compared with the last hidden states and with the logits, on a row's first tokens.
    """
    settings = _logit_settings(causal)
    named = f" ({', '.join(settings)})" if settings else ""
    changed = f"the model scales or caps its logits outside the head{named}"
    if any(text.startswith(LOGIT_CAPS) for text in settings):
        return changed
    head = causal.get_output_embeddings()
    if not isinstance(head, nn.Linear) or head.bias is not None or not head.weight.is_floating_point():
        return "the output head is not a plain linear layer"
    seen: list[tuple[Tensor, Tensor]] = []
    hook = head.register_forward_hook(lambda module, args, out: seen.append((args[0], out)))
    batch = collate([cut_row(row, HEAD_TOKENS)], False, causal.device)
    try:
        logits = causal(input_ids=batch.ids, use_cache=False).logits
    finally:
        hook.remove()
    if len(seen) != 1:
        return "the output head is not called once for each token"
    hidden = plain_hidden(causal, batch).view_as(seen[0][0])
    for ours, own in ((hidden, seen[0][0]), (seen[0][1], logits)):
        if relative_distance(ours, own) > HEAD_TOLERANCE:
            return changed
    return ""


def _logit_settings(causal: PreTrainedModel) -> list[str]:
    """Return the settings of a model's config that change logits, each as "name value"."""
    text = causal.config.get_text_config(decoder=True)
    return [f"{name} {value}" for name in LOGIT_SETTINGS if (value := getattr(text, name, None))]


def length_dependent(causal: PreTrainedModel, longest: int) -> str:
    """Return why a row's result depends on the longest row beside it, "" where it does not.

    transformers computes the frequencies of some rotary positions from the largest position of the whole batch.
    """
    longest_trained = getattr(causal.config, "max_position_embeddings", None)
    settings: dict[str, Any] = getattr(causal.config, "rope_parameters", None) or {}
    nested = [value for value in settings.values() if isinstance(value, dict)]
    for rope in nested or [settings]:
        limits = [n for n in (rope.get("original_max_position_embeddings"), longest_trained) if n]
        if rope.get("rope_type") in LENGTH_DEPENDENT_ROPE and longest > min(limits, default=0):
            return f"{rope['rope_type']} positions depend on the longest row of a batch"
    return ""


def relative_distance(computed: Tensor, reference: Tensor) -> float:
    """Return the length of the difference of two tensors over that of the reference, in fp32."""
    wide = reference.float()
    return float((computed.float() - wide).norm() / wide.norm().clamp_min(1e-30))


@contextmanager
def adapters_not_zero(net: nn.Module) -> Iterator[None]:
    """Put small random numbers in place of trained tensors that are all zero, as an adapter's B is at its start.

    With B zero, the gradient of A is zero whatever the computation, and the adapter is invisible in the loss. The
    numbers come from a generator of their own; afterwards the zeros are back.
    """
    generator = torch.Generator().manual_seed(0)
    changed: list[tuple[nn.Parameter, Tensor]] = []
    try:
        for name, parameter in net.named_parameters():
            if parameter.requires_grad and "lora_" in name and not parameter.detach().any():
                changed.append((parameter, parameter.data))
                drawn = ADAPTER_SCALE * torch.randn(parameter.shape, generator=generator)
                parameter.data = drawn.to(parameter.device, parameter.dtype)
        yield
    finally:
        for parameter, before in changed:
            parameter.data = before


@contextmanager
def _own_gradients(net: nn.Module) -> Iterator[None]:
    """Set the gradients that parameters have aside, and drop those of the block."""
    before = [(parameter, parameter.grad) for parameter in net.parameters() if parameter.requires_grad]
    try:
        for parameter, _ in before:
            parameter.grad = None
        yield
    finally:
        for parameter, gradient in before:
            parameter.grad = gradient


@contextmanager
def _first_layers_in_fp32(causal: PreTrainedModel) -> Iterator[None]:
    """Leave the model only its first layers, one of each kind at least, and compute them in fp32.

    The input embeddings keep their dtype, as they may be large; their output is fp32. 4-bit weights stay what they are
    and are dequantised to fp32. Where a model has no list of layers, all of it is computed in fp32.
    """
    inner = causal.base_model
    place = _layer_list(inner)
    embedding: Any = causal.get_input_embeddings()
    hook = embedding.register_forward_hook(lambda module, args, out: out.detach().float())
    restored: list[tuple[Any, str, Any]] = []
    try:
        if place:
            owner, name, layers = place
            restored.append((owner, name, layers))
            setattr(owner, name, nn.ModuleList(layers[: _layers_of_all_kinds(causal, layers)]))
        table = embedding.weight
        for module in inner.modules():
            if getattr(module, "compute_dtype", None) is not None:  # a 4-bit layer of bitsandbytes
                layer: Any = module
                state = layer.weight.quant_state
                restored += [(layer, "compute_dtype", layer.compute_dtype), (state, "dtype", state.dtype)]
                layer.compute_dtype = state.dtype = torch.float32
            for parameter in module.parameters(recurse=False):
                if parameter.is_floating_point() and parameter is not table:
                    restored.append((parameter, "data", parameter.data))
                    parameter.data = parameter.data.float()
            for key, buffer in module.named_buffers(recurse=False):
                if buffer.is_floating_point() and buffer.dtype != torch.float32:
                    restored.append((module, key, buffer))
                    setattr(module, key, buffer.float())
        yield
    finally:
        for target, attribute, value in reversed(restored):
            setattr(target, attribute, value)
        hook.remove()


def _layer_list(inner: nn.Module) -> tuple[nn.Module, str, nn.ModuleList] | None:
    """Return a model's list of layers with the module and attribute that hold it, None where it has none."""
    lists = [
        (owner, name, child)
        for owner in inner.modules()
        for name, child in owner.named_children()
        if isinstance(child, nn.ModuleList) and not isinstance(owner, nn.ModuleList)
    ]
    # The list of layers holds most of the parameters; lists of experts and heads are within it.
    return max(lists, key=lambda entry: sum(p.numel() for p in entry[2].parameters()), default=None)


def _layers_of_all_kinds(causal: PreTrainedModel, layers: nn.ModuleList) -> int:
    """Return how many first layers show every kind there is, at least 2; kinds differ in modules or ``layer_types``."""
    types = getattr(causal.config, "layer_types", None) or [""] * len(layers)
    kinds = [
        (kind, *(type(module).__name__ for module in layer.modules()))
        for kind, layer in zip(types, layers, strict=False)
    ] or [("",)] * len(layers)
    first = max(kinds.index(kind) for kind in set(kinds)) + 1
    return min(max(2, first), MAX_LAYERS, len(layers))


def _random_head(causal: PreTrainedModel) -> Tensor:
    """Return a random head [HEAD_WIDTH, d] for the model's hidden states."""
    vocabulary_head: Any = causal.get_output_embeddings()
    width = vocabulary_head.weight.shape[1]
    generator = torch.Generator().manual_seed(1)
    return (torch.randn(HEAD_WIDTH, width, generator=generator) / width**0.5).to(causal.device)


def _row_losses(hidden: Tensor, batch: TokenBatch, rows: Sequence[EncodedRow], head: Tensor) -> Tensor:
    """Return each row's sum of cross-entropies [rows] under the random head, the targets folded into its classes."""
    logits = hidden[batch.keep].float() @ head.t()
    each = F.cross_entropy(logits, batch.targets % HEAD_WIDTH, reduction="none")
    return torch.stack([part.sum() for part in each.split([len(row.learnt) for row in rows])])


def _batch_difference(
    net: nn.Module,
    causal: PreTrainedModel,
    rows: Sequence[EncodedRow],
    candidate: Hidden,
    packed: bool,
    head: Tensor,
) -> str:
    """Return how one batch of the candidate differs from its rows computed alone, "" where it does not."""
    alone = []
    for row in rows:
        batch = collate([row], False, causal.device)
        losses = _row_losses(plain_hidden(causal, batch), batch, [row], head)
        losses.sum().backward()
        alone.append(losses.detach())
    expected, reference = torch.cat(alone), _take_gradients(net)
    losses = _candidate_losses(causal, rows, candidate, packed, head)
    losses.sum().backward()
    before = losses.detach()
    off = float(((before - expected).abs() / expected.abs().clamp_min(1e-6)).max())
    if not off <= LOSS_TOLERANCE_FP32:
        return f"a row's loss is off by {off:.2%} in fp32"
    error, name = _worst_gradient(_take_gradients(net), reference)
    if not error <= GRADIENT_TOLERANCE:
        return f"the gradient of {name} is off by {error:.2%} in fp32"
    return _dependence(causal, rows, candidate, packed, head, before)


def _candidate_losses(
    causal: PreTrainedModel, rows: Sequence[EncodedRow], candidate: Hidden, packed: bool, head: Tensor
) -> Tensor:
    """Return each row's loss [rows], the rows computed together by the candidate."""
    batch = collate(rows, packed, causal.device)
    return _row_losses(candidate(batch), batch, rows, head)


def _dependence(
    causal: PreTrainedModel,
    rows: Sequence[EncodedRow],
    candidate: Hidden,
    packed: bool,
    head: Tensor,
    before: Tensor,
) -> str:
    """Return which row's loss moves when the tokens of the first or the last row are changed, "" where none does."""
    embedding: Any = causal.get_input_embeddings()
    vocabulary = embedding.weight.shape[0]
    for changed in sorted({0, len(rows) - 1} if len(rows) > 1 else ()):
        row = rows[changed]
        # Behind the prefix that all rows share, which is a prefix of the changed row as well.
        start = shared_prefix(rows) if packed else 0
        ids = row.ids[:start] + tuple((token + 1) % vocabulary for token in row.ids[start:])
        others = [*rows[:changed], EncodedRow(ids, row.learnt, row.line), *rows[changed + 1 :]]
        with torch.no_grad():
            after = _candidate_losses(causal, others, candidate, packed, head)
        moved = (after - before).abs() / before.abs().clamp_min(1e-6)
        moved[changed] = 0
        if not float(moved.max()) <= LOSS_TOLERANCE_FP32:
            return f"other tokens in one row move another row's loss by {float(moved.max()):.2%}"
    return ""


def _take_gradients(net: nn.Module) -> dict[str, Tensor]:
    """Return the gradients of the trained tensors by name, and clear them."""
    gradients = {}
    for name, parameter in net.named_parameters():
        if parameter.requires_grad and parameter.grad is not None:
            gradients[name] = parameter.grad
            parameter.grad = None
    return gradients


def _worst_gradient(computed: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> tuple[float, str]:
    """Return the largest relative difference of a tensor's gradient, and the tensor's name; 1 for a missing one."""
    size = max((float(gradient.norm()) for gradient in reference.values()), default=0.0)
    errors = [(0.0, "")]
    for name in reference.keys() | computed.keys():
        if name not in computed or name not in reference:
            present = computed.get(name, reference.get(name))
            assert present is not None
            # A tensor that one way does not reach has no gradient there, and one of zeros in the other.
            errors.append((1.0 if present.any() else 0.0, name))
            continue
        length = max(float(reference[name].norm()), NEGLIGIBLE * size)
        errors.append((float((computed[name] - reference[name]).norm()) / max(length, 1e-30), name))
    return max(errors)

"""The terms of a run's memory, in bytes on one device: one function each, with where it comes from.

What a framework keeps is counted from what autograd must keep, tensor by tensor: the saved inputs of norms,
linear layers, attention and MLP in PyTorch's derivatives.yaml and in the layers of transformers and PEFT.
Four numbers cannot be counted and were set on published peaks: :class:`Fitted`. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from runners.resources.model_shape import ALL_LINEAR, ModelShape

MemoryUse = Literal["full", "lora", "qlora", "inference"]
OptimizerKind = Literal[
    "adamw", "adamw_fp32", "adamw_8bit", "paged_adamw", "paged_adamw_8bit", "lion", "adafactor", "sgd"
]
LossKind = Literal["full", "chunked", "fused", "rows"]
WeightKind = Literal["bf16", "fp32", "nf4", "nf4-dq"]
MemoryCounter = Literal["allocated", "reserved", "device"]

CUDA_CONTEXT_BYTES = 0.85e9
"""Bytes of the CUDA context, outside every framework's counter (measured beside reserved memory, Soup)."""
CHUNKED_LOSS_ROWS = 128
"""Label rows whose logits are held at once by the loss of ``runners.training.loss``."""
QUANTISED_BYTES = {"nf4": 0.5 + 4 / 64, "nf4-dq": 0.5 + 1 / 64 + 4 / (64 * 256)}
"""Bytes per weight: 4 bits and one fp32 scale for 64 of them; double quantisation stores that scale in
8 bits, with one fp32 scale for 256 scales (Dettmers et al., QLoRA, arXiv 2305.14314, section 3)."""
MOMENTS_PER_WEIGHT: Mapping[str, float] = {"adamw": 2, "paged_adamw": 2, "lion": 1, "adafactor": 0, "sgd": 0}
"""Moments per trained weight, held in its own dtype (torch.optim; Adafactor's are a row and a column)."""
EIGHT_BIT_STATE_BYTES = 2 * (1 + 4 / 256)
"""Bytes of two 8-bit moments with an fp32 scale for 256 of them (Dettmers et al., arXiv 2110.02861)."""


@dataclass(frozen=True, slots=True)
class MemorySetup:
    """How the run is set up; the defaults are a careful run on a card of one's own."""

    batch: int = 1
    seq_len: int = 1024
    rank: int = 16
    checkpointing: bool = True
    optimizer: OptimizerKind = "adamw"
    loss: LossKind = "rows"
    devices: int = 1
    """Devices that weights, gradients and optimiser state are sharded over."""
    weights: WeightKind | None = None
    """How the base is held; None: nf4 with double quantisation for qlora, else bf16."""
    targets: tuple[str, ...] = ALL_LINEAR
    adapter_dtype: Literal["bf16", "fp32"] = "fp32"
    attention: Literal["flash", "eager"] = "flash"
    """flash: any kernel that never stores the scores (SDPA too); eager: stores them."""
    compiled: bool = False
    fused: bool = False
    """Whether adapters train through this project's own passes on a CPU (:mod:`runners.training.cpu_kernels`), which keep less."""
    offloading: bool = False
    """Whether checkpoints wait in host memory."""
    optimizer_in_backward: bool = False
    accumulation: bool = False
    """Whether gradients of earlier batches are held while the next one is computed."""
    prepared: bool = False
    """Whether norms, embedding, head and residual stream of a 4-bit base are fp32, as PEFT's
    ``prepare_model_for_kbit_training`` makes them."""
    percentile: bool = False
    """Whether the figure is that of a high percentile of the steps, not of the largest one: rows that are not
    packed then fill only a part of batch x ``seq_len``, the longest row's length."""
    counter: MemoryCounter = "device"
    """What is predicted: the framework's allocated or reserved bytes, or what the card must have free."""
    device_gib: float | None = None
    """The card's memory: a paged optimiser's state leaves it when the rest fills it."""


@dataclass(frozen=True, slots=True)
class FittedConstants:
    """The numbers that were set on published peaks (benchmarks/memory.py); none is a source's or a model's."""

    copies: float = 5.0
    """Bytes per token, layer and hidden unit that eager layers keep beyond the count: views that hold whole
    projections, the dropped-out input of q, k and v, casts. A compiled layer keeps none. The fit says 4.2, and
    nearly the same error from 4 to 6; rounded up, as an estimate that is too low costs more."""
    four_bit: float = 1.8
    """How often bitsandbytes' 4-bit product keeps its bf16 input (``ctx.tensors = (A, B)``: once; the rest
    are casts to the compute dtype). The fit says 1.5, on one source's runs of 2023; rounded up for the same
    reason, as that source's later runs (TinyLlama, phi-2: not fitted) took more."""
    reserved: float = 1.2
    """Reserved bytes for one allocated byte; seen at 1.08 to 1.41 elsewhere."""
    filled: float = 0.6
    """Share of batch x longest row that a high percentile of the steps fills when rows are not packed."""


FITTED = FittedConstants()


def bytes_per_value(use: MemoryUse, setup: MemorySetup) -> int:
    """Bytes of a weight or activation outside the quantised layers: 4 for an fp32 base, else 2."""
    return 4 if setup.weights == "fp32" and use != "qlora" else 2


def step_tokens(setup: MemorySetup, fitted: FittedConstants = FITTED) -> float:
    """Tokens of the step that sets the peak: batch x length, less where a percentile of the steps is meant."""
    part = fitted.filled if setup.percentile else 1.0
    return setup.batch * setup.seq_len * part


def weight_bytes(shape: ModelShape, use: MemoryUse, setup: MemorySetup) -> float:
    """Bytes of the base's weights: 2 (bf16) or 4 (fp32) a weight; nf4 for the matrices of a 4-bit base only.

    Embedding, head and norms of a 4-bit base stay in bf16, or in fp32 where they were ``prepared``.
    """
    if use != "qlora":
        return float(bytes_per_value(use, setup) * shape.params)
    packed = QUANTISED_BYTES["nf4" if setup.weights == "nf4" else "nf4-dq"]
    return packed * shape.blocks + (4 if setup.prepared else 2) * (shape.params - shape.blocks)


def trained_parameters(shape: ModelShape, use: MemoryUse, setup: MemorySetup) -> tuple[int, int]:
    """Return the number of trained parameters and the bytes of each: the base's, or the adapters'."""
    if use == "inference":
        return 0, 2
    if use == "full":
        return shape.params, bytes_per_value(use, setup)
    return shape.adapter(setup.rank, setup.targets), 4 if setup.adapter_dtype == "fp32" else 2


def adapter_bytes(shape: ModelShape, use: MemoryUse, setup: MemorySetup) -> float:
    """Bytes of the adapters themselves; nothing where the base is trained."""
    number, each = trained_parameters(shape, use, setup)
    return 0.0 if use == "full" else float(number * each)


def optimizer_bytes(shape: ModelShape, use: MemoryUse, setup: MemorySetup) -> float:
    """Bytes of what the optimiser keeps, for every trained parameter.

    Two moments in the weights' dtype (adamw), two of 8 bits and those of the embedding in fp32 (bitsandbytes'
    advice, which transformers' Trainer follows), an fp32 master and fp32 moments (adamw_fp32), one moment
    (lion), next to none (adafactor, sgd).
    """
    number, each = trained_parameters(shape, use, setup)
    if setup.optimizer == "adamw_fp32":
        return number * (8.0 + (4.0 if each == 2 else 0.0))
    if setup.optimizer in ("adamw_8bit", "paged_adamw_8bit"):
        table = min(number, shape.table) if use == "full" else 0
        return EIGHT_BIT_STATE_BYTES * (number - table) + 8.0 * table
    return MOMENTS_PER_WEIGHT[setup.optimizer] * number * each


def gradient_bytes(shape: ModelShape, use: MemoryUse, setup: MemorySetup) -> tuple[float, float]:
    """Bytes of the gradients held at once, when the loss is known and at the end of the backward pass.

    At first only the head's, in the end all of them; with the optimiser's step inside the backward pass never
    more than the largest tensor's (torchtune's optimizer_in_backward); while accumulating always all.
    """
    number, each = trained_parameters(shape, use, setup)
    whole = float(number * each)
    largest = float(each * min(number, shape.table)) if use == "full" else 0.0
    if setup.optimizer_in_backward and use == "full":
        return largest, largest
    return (whole, whole) if setup.accumulation else (largest, whole)


def linear_input_bytes(
    shape: ModelShape, use: MemoryUse, setup: MemorySetup, fitted: FittedConstants = FITTED
) -> float:
    """Bytes of the inputs that linear layers of one block keep for one token.

    Trained weights keep their input. An adapter in fp32 keeps its own cast (PEFT). One in the base's dtype keeps
    its dropped-out input and the mask, 2 + 1 bytes (PyTorch's native dropout), for every layer it is on; of q, k
    and v, often one fused layer, only the shared input is counted here, the rest is in ``copies``. A compiled
    layer shares one input. A 4-bit product keeps its input whatever is trained (bitsandbytes).
    """
    h, q, inner, wide = shape.hidden, shape.query, shape.intermediate, bytes_per_value(use, setup)
    if use not in ("lora", "qlora"):
        return float(wide * (2 * h + inner)) if use == "full" else 0.0
    targets, total = set(setup.targets), 0.0
    if setup.adapter_dtype == "fp32":
        total += 4 * sum(a for a, _ in shape.matrices(targets))
    else:
        apart = sum(a for a, _ in shape.matrices(targets & {"o", "mlp"}))
        shared = h + inner if "mlp" in targets else 0
        total += wide * shared if setup.compiled else (wide + 1) * apart
        if targets & {"q", "k", "v"} and (use == "lora" or setup.compiled):
            total += wide * h
    if use == "qlora" and not setup.compiled:
        total += 2 * fitted.four_bit * (2 * h + q + inner)
    return total


def block_bytes(
    shape: ModelShape, use: MemoryUse, setup: MemorySetup, fitted: FittedConstants = FITTED
) -> float:
    """Bytes that the backward pass needs of one token in one block.

    Norms: the fp32 input of RMSNorm (4h; LayerNorm 2h), and the normalised value where its weight is trained.
    Linear layers: :func:`inputs`, and what an adapter makes of them (its rank). Attention: query, output, and
    keys and values repeated to the query's width; eager attention also its scores (fp32 softmax and its copy, 6
    bytes per head and key). MLP: gate, its activation and up (6I), or the one pre-activation (2I).
    A compiled block keeps bf16 norm inputs and computes the activation again.
    """
    if setup.fused and use in ("lora", "qlora"):
        return _fused_block(shape, use, setup)
    h, q, inner, wide = shape.hidden, shape.query, shape.intermediate, bytes_per_value(use, setup)
    total = linear_input_bytes(shape, use, setup, fitted) + 4 * wide * q
    if setup.compiled:
        total += 2 * wide * h + wide * inner * (2 if shape.gated else 1)
    else:
        norms = (8 * h + (2 * wide * h if use == "full" else 0)) if shape.gated else 2 * wide * h
        total += norms + wide * inner * (3 if shape.gated else 1) + fitted.copies * h
    if setup.attention == "eager":
        total += 6 * shape.heads * setup.seq_len
    if use in ("lora", "qlora"):
        each = 4 if setup.adapter_dtype == "fp32" else 2
        total += each * setup.rank * len(shape.matrices(setup.targets))
    return float(total)


def _fused_block(shape: ModelShape, use: MemoryUse, setup: MemorySetup) -> float:
    """Bytes of one token in a block of :mod:`runners.training.cpu_kernels`, counted from what its passes save.

    Norms: the unit vector, its length (fp32) and the product that the layers of one input share. Attention, which is
    written out: query, key, value, output and the probabilities of every head. MLP: gate, its activation, up and their
    product. Every adapter: its rank, in the base's dtype.
    """
    h, q, kv, wide = shape.hidden, shape.query, shape.kv_heads * shape.head_dim, bytes_per_value(use, setup)
    norms = 2 * (2 * wide * h + 4)
    attention = wide * (2 * q + 2 * kv + shape.heads * setup.seq_len)
    low = wide * setup.rank * len(shape.matrices(setup.targets))
    return float(norms + attention + 4 * wide * shape.intermediate + low)


def activation_bytes(
    shape: ModelShape, use: MemoryUse, setup: MemorySetup, fitted: FittedConstants = FITTED
) -> tuple[float, float]:
    """Bytes of values kept for the backward pass, when the loss is known and at its end.

    Without checkpointing every block's are kept, in the end one block's. With it only each block's input,
    of which offloading leaves two on the card; one block's are made again at a time.
    """
    n = step_tokens(setup, fitted)
    if use == "inference":
        peak = n * (bytes_per_value(use, setup) * (shape.hidden + 4 * shape.query + 3 * shape.intermediate))
        return peak, 0.0
    one = n * block_bytes(shape, use, setup, fitted)
    if not setup.checkpointing:
        return shape.layers * one, one
    stream = 4 if setup.prepared and use == "qlora" else bytes_per_value(use, setup)
    held = min(2, shape.layers) if setup.offloading else shape.layers
    return min(n * stream * shape.hidden * held, shape.layers * one), one


def kv_cache_bytes(shape: ModelShape, use: MemoryUse, setup: MemorySetup) -> float:
    """Bytes of keys and values of every token so far, for inference: 2 · layers · kv width · tokens · bytes."""
    if use != "inference":
        return 0.0
    each = 2.0 * shape.layers * shape.kv_heads * shape.head_dim * bytes_per_value(use, setup)
    return each * setup.batch * setup.seq_len


def logits_bytes(
    shape: ModelShape, use: MemoryUse, setup: MemorySetup, fitted: FittedConstants = FITTED
) -> float:
    """Bytes of logits and their gradients, by path; per token and vocabulary entry:

    full: bf16 logits that the model's output holds (2), fp32 log-probabilities, their gradient and that of
    the logits (4 each), 14 in all (Soup's fit to checkpointed runs says the same); a prepared base's fp32 head
    makes it 16; compiled, the bf16 copy is freed: 12. chunked: fp32 log-probabilities and gradients of all
    pieces, 8, as the pieces are joined before the backward pass; compiled only bf16 logits, 2. rows and fused:
    128 rows at 10 bytes, and the gradient of the last hidden state. Inference: fp32 logits of one row per
    sequence.
    """
    n = step_tokens(setup, fitted)
    if use == "inference":
        return 6.0 * setup.batch * shape.vocab
    whole = n * shape.vocab
    eager = {"full": 16.0 if use == "qlora" and setup.prepared else 14.0, "chunked": 8.0}
    each = {"full": 12.0, "chunked": 2.0} if setup.compiled else eager
    if setup.loss in each:
        return each[setup.loss] * whole
    pieces = 10.0 * min(n, CHUNKED_LOSS_ROWS) * shape.vocab + 2.0 * n * shape.hidden
    return min(pieces, each["chunked"] * whole)


def buffer_bytes(shape: ModelShape, use: MemoryUse, setup: MemorySetup) -> float:
    """Bytes of weights made whole for a moment: a dequantised matrix, and two gathered blocks when sharded.

    bitsandbytes and torchao dequantise one matrix at a time; FSDP gathers a block and prefetches the next.
    """
    dequantised = 2.0 * shape.hidden * shape.intermediate if use == "qlora" else 0.0
    if setup.devices <= 1:
        return dequantised
    base = weight_bytes(shape, use, setup)
    return dequantised + min(2 * base / shape.layers, base * (1 - 1 / setup.devices))


def overhead_bytes(allocated: float, setup: MemorySetup, fitted: FittedConstants = FITTED) -> float:
    """Bytes of what the counter shows beyond the tensors: spare blocks (reserved), the context (device)."""
    if setup.counter == "reserved":
        return (fitted.reserved - 1) * allocated
    return CUDA_CONTEXT_BYTES if setup.counter == "device" else 0.0

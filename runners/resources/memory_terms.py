"""The terms of a run's memory, in bytes on one device: one function per term, with its source. Imports no torch.

Activations are counted tensor by tensor from what autograd must save: the saved inputs of norms, linear layers,
attention and MLP in PyTorch's derivatives.yaml and in the layers of transformers and PEFT. Four numbers cannot be
counted and were fitted to published peaks: :class:`FittedConstants`. Unless stated otherwise, functions return bytes;
in formulas h is the hidden width, q the width of all query heads, I the width of the MLP (``inner``), and b the bytes
of one value (``wide``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from runners.resources.loss_memory import other_loss_bytes, plain_loss_bytes, row_loss_bytes
from runners.resources.model_shape import ALL_LINEAR, ModelShape

MemoryUse = Literal["full", "lora", "qlora", "inference"]
OptimizerKind = Literal[
    "adamw", "adamw_fp32", "adamw_8bit", "paged_adamw", "paged_adamw_8bit", "lion", "adafactor", "sgd"
]
LossKind = Literal["full", "chunked", "fused", "rows"]
WeightKind = Literal["bf16", "fp32", "nf4", "nf4-dq"]
MemoryCounter = Literal["allocated", "reserved", "device", "process"]
TrainingProgram = Literal["tunewise", "other"]
ParallelKind = Literal["ddp", "fsdp", "fsdp_4bit", "tensor"]

CUDA_CONTEXT_BYTES = 0.85e9
"""Bytes of the CUDA context, which no framework's counter includes (measured beside reserved memory, Soup)."""
PROCESS_BYTES = 0.45 * 2**30
"""Resident bytes of Python with torch, transformers and peft before a model is loaded; measured on Linux."""
KERNEL_BYTES = 0.2 * 2**30
"""Bytes of oneDNN's compiled kernels, of which :mod:`runners.training` keeps a bounded number."""
HEAP_SHARE = 0.4
"""Resident bytes beyond the count for each byte of activations of the fused CPU kernels, whose steps all differ in size: the
resident set grows over the first dozens of steps. Both are fitted to our own runs (tests/runners/training/
test_recorded_memory.py)."""
CHUNKED_LOSS_ROWS = 128
"""Label rows whose logits a fused or row-wise loss of another program holds at once."""
MAX_HEAP_LEFT = 0.5 * 2**30
"""Most bytes of small 16-bit matrices that stay resident after a base was quantised on a CPU; our assumption above .2."""
MAX_STORED_SCORES = 512
"""Longest row, in tokens, whose attention probabilities the CPU kernels store; longer ones take torch's own kernel."""
EIGHT_BIT_FROM = 1_000_000_000
"""Parameters from which full tuning takes 8-bit AdamW where no other optimiser is asked for: 2 bytes of state for each
parameter instead of 8 (torchtune: 5 % of the speed)."""
QUANTISED_BYTES = {"nf4": 0.5 + 4 / 64, "nf4-dq": 0.5 + 1 / 64 + 4 / (64 * 256)}
"""Bytes per weight: 4 bits and one fp32 scale for each 64 weights; double quantisation stores that scale in
8 bits, with one fp32 scale for each 256 scales (Dettmers et al., QLoRA, arXiv 2305.14314, section 3)."""
MOMENTS_PER_WEIGHT: Mapping[str, float] = {"adamw": 2, "paged_adamw": 2, "lion": 1, "adafactor": 0, "sgd": 0}
"""Moments per trained weight, in the weight's dtype (torch.optim; Adafactor's are a row and a column)."""
EIGHT_BIT_STATE_BYTES = 2 * (1 + 4 / 256)
"""Bytes per trained weight of two 8-bit moments, with an fp32 scale for each 256 values (Dettmers et al., arXiv
2110.02861)."""


@dataclass(frozen=True, slots=True)
class MemorySetup:
    """The setup of a run; the defaults are a memory-saving run on one GPU."""

    batch: int = 1
    seq_len: int = 1024
    """Tokens of the longest row."""
    rank: int = 16
    checkpointing: bool = True
    optimizer: OptimizerKind | None = None
    """None: what this project takes where no other is asked for (:func:`chosen_optimizer`)."""
    program: TrainingProgram = "tunewise"
    """tunewise: the loop of :mod:`runners.training`, with fp32 masters of trained 16-bit weights, fp32 moments, and its
    own loss. other: plain 16-bit training as in torchtune, LitGPT and PEFT's scripts, of which published figures are."""
    target_tokens: int | None = None
    """Tokens of a step's forward pass that are learnt; None: all."""
    loss: LossKind = "rows"
    devices: int = 1
    """Devices that train or answer together."""
    parallel: ParallelKind = "fsdp_4bit"
    """How several devices share the model (:mod:`runners.resources.parallel_memory`); by default all weights are sharded,
    4-bit ones too. Inference always cuts it (tensor)."""
    replicas: int = 1
    """Groups of devices that hold all shards each (HSDP): nodes, where each can hold them
    (:func:`runners.resources.memory_estimate.node_replicas`); 1: the shards are spread over all devices."""
    weights: WeightKind | None = None
    """Storage of the base's weights; None: nf4 with double quantisation for qlora, else bf16."""
    fp32_compute: bool = False
    """Whether a 4-bit base computes in fp32, as on a processor without bf16: what is not in 4 bits is in fp32 then."""
    targets: tuple[str, ...] = ALL_LINEAR
    adapter_dtype: Literal["bf16", "fp32"] = "fp32"
    attention: Literal["flash", "eager"] = "flash"
    """flash: any kernel that never stores the attention scores (SDPA too); eager: stores them."""
    compiled: bool = False
    fused: bool = False
    """Whether adapters are trained with this project's CPU kernels (:mod:`runners.training.cpu_kernels`), which save
    fewer activations."""
    packed: bool = False
    """Whether rows are packed into one line on a CPU: up to ``MAX_STORED_SCORES`` tokens, the attention of a row stores
    its probabilities."""
    offloading: bool = False
    """Whether checkpointed activations are moved to host memory."""
    optimizer_in_backward: bool = False
    accumulation: bool = False
    """Whether gradients of earlier batches are held while the next one is computed (gradient accumulation)."""
    prepared: bool = False
    """Whether norms, embedding, head and residual stream of a 4-bit base are fp32, as after PEFT's
    ``prepare_model_for_kbit_training``."""
    unmerged: bool = False
    """Inference: whether an adapter of ``rank`` is held beside the base and not merged into it."""
    percentile: bool = False
    """Whether a high percentile over the steps is estimated, not the largest step: rows that are not packed then
    fill only a part of batch x ``seq_len``, the longest row's length."""
    counter: MemoryCounter = "device"
    """What is estimated: the framework's allocated or reserved bytes, the memory that the GPU must have free, or the
    resident memory of a whole process that computes on the CPU."""
    device_gib: float | None = None
    """Memory of the GPU in GiB: the state of a paged optimiser moves to host memory when the rest fills it."""


@dataclass(frozen=True, slots=True)
class FittedConstants:
    """Constants fitted to published peaks (benchmarks/memory.py); none is specific to a source or a model."""

    copies: float = 5.0
    """Bytes per token, layer and hidden unit that eager layers keep beyond the count: views that hold whole
    projections, the dropped-out input of q, k and v, casts. A compiled layer keeps none. The fit gives 4.2, with
    nearly the same error from 4 to 6; rounded up, as an estimate that is too low costs more."""
    four_bit: float = 1.8
    """Number of copies of its bf16 input that bitsandbytes' 4-bit product keeps (``ctx.tensors = (A, B)``: one; the
    rest are casts to the compute dtype). The fit gives 1.5, on one source's runs of 2023; rounded up for the same
    reason, as that source's later runs (TinyLlama, phi-2: not fitted) took more."""
    reserved: float = 1.2
    """Reserved bytes per allocated byte; 1.08 to 1.41 in other sources."""
    filled: float = 0.58
    """Share of batch x longest row that a high percentile of the steps fills when rows are not packed."""


FITTED = FittedConstants()


def bytes_per_value(use: MemoryUse, setup: MemorySetup) -> int:
    """Bytes of one weight or activation outside the quantised layers: 4 for an fp32 base, else 2."""
    wide = setup.fp32_compute if is_four_bit(use, setup) else setup.weights == "fp32"
    return 4 if wide else 2


def chosen_optimizer(shape: ModelShape, use: MemoryUse, setup: MemorySetup) -> OptimizerKind:
    """Return the setup's optimiser, or this project's choice: AdamW, for full tuning from 1e9 parameters on in 8 bits.

    Sharded, it is AdamW with fp32 moments: training refuses 8-bit states of sharded weights.
    """
    if setup.optimizer is not None:
        return setup.optimizer
    whole = setup.devices <= 1 or setup.parallel == "ddp"
    return "adamw_8bit" if use == "full" and shape.params >= EIGHT_BIT_FROM and whole else "adamw"


def holds_masters(use: MemoryUse, setup: MemorySetup) -> bool:
    """Whether fp32 copies of trained 16-bit weights are held (:class:`runners.training.optimizer.MasterOptimizer`)."""
    return setup.program == "tunewise" and use == "full" and bytes_per_value(use, setup) == 2


def step_tokens(setup: MemorySetup, fitted: FittedConstants = FITTED) -> float:
    """Tokens of the step that sets the peak: batch x length, fewer where a percentile over the steps is estimated."""
    part = fitted.filled if setup.percentile else 1.0
    return setup.batch * setup.seq_len * part


def is_four_bit(use: MemoryUse, setup: MemorySetup) -> bool:
    """Whether the base's linear layers are held in 4 bits: for qlora, and for inference where the setup says so."""
    return use == "qlora" or (use == "inference" and setup.weights in QUANTISED_BYTES)


def weight_bytes(shape: ModelShape, use: MemoryUse, setup: MemorySetup) -> float:
    """Bytes of the base's weights: 2 (bf16) or 4 (fp32) per weight; nf4 for the block matrices of a 4-bit base only.

    Embedding, head and norms of a 4-bit base stay in the dtype that it computes in, or in fp32 where the base is
    ``prepared``. So do the experts of a mixture of experts: transformers holds those of a block as one 3-D parameter (all 56
    families of version 5.24 that have experts), and bitsandbytes replaces linear layers only (``replace_with_bnb_linear``).
    """
    if not is_four_bit(use, setup):
        return float(bytes_per_value(use, setup) * shape.params)
    quantised = QUANTISED_BYTES["nf4" if setup.weights == "nf4" else "nf4-dq"]
    linear = shape.blocks - shape.expert_params
    ends = shape.params - shape.blocks
    value = bytes_per_value(use, setup)
    return quantised * linear + value * shape.expert_params + (4 if setup.prepared else value) * ends


def master_bytes(shape: ModelShape, use: MemoryUse, setup: MemorySetup) -> float:
    """Bytes of the fp32 copies of trained 16-bit weights, 4 each; 0 where none are held."""
    return 4.0 * shape.params if holds_masters(use, setup) else 0.0


def trained_parameters(shape: ModelShape, use: MemoryUse, setup: MemorySetup) -> tuple[int, int]:
    """Return the number of trained parameters, the base's or the adapters', and the bytes of each."""
    if use == "inference":
        return 0, 2
    if use == "full":
        return shape.params, bytes_per_value(use, setup)
    return shape.adapter(setup.rank, setup.targets), 4 if setup.adapter_dtype == "fp32" else 2


def adapter_bytes(shape: ModelShape, use: MemoryUse, setup: MemorySetup) -> float:
    """Bytes of the adapters' weights; 0 where the base is trained, or they are merged into it."""
    if use == "inference":
        return 4.0 * shape.adapter(setup.rank, setup.targets) if setup.unmerged else 0.0
    number, value_bytes = trained_parameters(shape, use, setup)
    return 0.0 if use == "full" else float(number * value_bytes)


def optimizer_bytes(shape: ModelShape, use: MemoryUse, setup: MemorySetup) -> float:
    """Bytes of the optimiser's state, for all trained parameters.

    adamw: two moments, in fp32 in this project's loop, in other programs in the weights' dtype. 8-bit: two moments of 8
    bits, and those of the embedding in fp32 (bitsandbytes' advice, which transformers' Trainer follows). adamw_fp32: fp32
    moments, and in other programs fp32 master weights (in this project's loop: :func:`master_bytes`). lion: one moment.
    adafactor, sgd: next to none.
    """
    number, value_bytes = trained_parameters(shape, use, setup)
    optimizer = chosen_optimizer(shape, use, setup)
    own = setup.program == "tunewise"
    if optimizer == "adamw_fp32":
        # Two fp32 moments (8 bytes), and an fp32 copy (4) of weights that are in 16 bits.
        return number * (8.0 + (4.0 if value_bytes == 2 and not holds_masters(use, setup) else 0.0))
    if optimizer in ("adamw_8bit", "paged_adamw_8bit"):
        embedding = min(number, shape.table) if use == "full" else 0
        return EIGHT_BIT_STATE_BYTES * (number - embedding) + 8.0 * embedding
    return MOMENTS_PER_WEIGHT[optimizer] * number * (4 if own else value_bytes)


def gradient_bytes(shape: ModelShape, use: MemoryUse, setup: MemorySetup) -> tuple[float, float]:
    """Bytes of the gradients held at once, when the loss is computed and at the end of the backward pass.

    First none but those of earlier batches: the head's is among the logits (:func:`logits_bytes`). In the end all of them;
    of a tied embedding also the head's, the input's and, as autograd does not add in place there, their sum. With the
    optimiser's step inside the backward pass never more than the largest tensor's (torchtune's optimizer_in_backward);
    with gradient accumulation always all, and the largest one of this batch before it is added.
    """
    number, value_bytes = trained_parameters(shape, use, setup)
    all_gradients = float(number * value_bytes)
    largest = float(value_bytes * min(number, shape.table)) if use == "full" else 0.0
    parts = 3 if shape.tied else 1
    if setup.optimizer_in_backward and use == "full":
        return 0.0, parts * largest
    if setup.accumulation:
        return all_gradients, all_gradients + parts * largest
    # The sum, or the only one, is among all.
    return 0.0, all_gradients + (parts - 1) * largest


def update_bytes(shape: ModelShape, use: MemoryUse, setup: MemorySetup) -> float:
    """Bytes of the gradients while the optimiser steps, where masters make them fp32; 0 where none are held."""
    if not holds_masters(use, setup):
        return 0.0
    # Each 16-bit gradient is freed when its fp32 copy is there; the largest one exists twice for a moment.
    at_once = shape.table if setup.optimizer_in_backward else shape.params
    return 4.0 * at_once + bytes_per_value(use, setup) * shape.table


def linear_input_bytes(
    shape: ModelShape, use: MemoryUse, setup: MemorySetup, fitted: FittedConstants = FITTED
) -> float:
    """Bytes of the inputs that the linear layers of one block save for one token.

    Trained weights save their input. An adapter in fp32 saves its own cast (PEFT). One in the base's dtype saves its
    dropped-out input and the mask, 2 + 1 bytes (PyTorch's native dropout), for every layer it is on; of q, k and v,
    often one fused layer, only the shared input is counted here, the rest is in ``copies``. A compiled layer shares
    one input. A 4-bit product saves its input whatever is trained (bitsandbytes).
    """
    h = shape.hidden
    q = shape.query
    inner = shape.intermediate
    wide = bytes_per_value(use, setup)
    if use not in ("lora", "qlora"):
        # b(2h + I): one input of width h for q, k, v, one for gate and up, and the down projection's of width I.
        return float(wide * (2 * h + inner)) if use == "full" else 0.0
    targets = set(setup.targets)
    # Experts are no linear layers: they get no adapter and stay in 16 bits.
    inner = shape.intermediate if shape.experts <= 1 else shape.shared
    total = 0.0
    if setup.adapter_dtype == "fp32":
        # 4 bytes per input value: every adapted layer saves an fp32 cast of its own.
        total += 4 * sum(input_width for input_width, _ in shape.adapted_matrices(targets))
    else:
        # (b + 1) per input value: the dropped-out input and the one-byte dropout mask of each adapted layer.
        separate = sum(input_width for input_width, _ in shape.adapted_matrices(targets & {"o", "mlp"}))
        # Compiled, gate and up share one input of width h; the down projection's has width I.
        shared = h + inner if "mlp" in targets else 0
        total += wide * shared if setup.compiled else (wide + 1) * separate
        if targets & {"q", "k", "v"} and (use == "lora" or setup.compiled):
            total += wide * h
    if use == "qlora" and not setup.compiled and setup.counter != "process":
        # On a CPU bitsandbytes 0.50 was seen to keep no input of its products (MatMul4Bit). As published on GPUs:
        # 2 bytes (bf16) x copies x the inputs of q/k/v and gate/up (h each), o (q) and down (I).
        total += 2 * fitted.four_bit * ((2 * h if inner else h) + q + inner)
    return total


def block_bytes(
    shape: ModelShape, use: MemoryUse, setup: MemorySetup, fitted: FittedConstants = FITTED
) -> float:
    """Bytes that the backward pass needs of one token in one block.

    Norms: the fp32 input of RMSNorm (4h; LayerNorm 2h), and the normalised value where its weight is trained. Linear
    layers: :func:`linear_input_bytes`, and the low-rank output of an adapter's A matrix (its rank). Attention: query,
    output, and keys and values repeated to the query's width; eager attention also its scores (fp32 softmax and its
    copy, 6 bytes per head and key). MLP: gate, its activation and up (6I), or the one pre-activation (2I). A compiled
    block saves norm inputs in bf16 and computes the activation again.
    """
    if setup.fused and use in ("lora", "qlora"):
        return _fused_block_bytes(shape, use, setup)
    h = shape.hidden
    q = shape.query
    inner = shape.intermediate
    wide = bytes_per_value(use, setup)
    # 4bq: query, key, value and output, each of the width of all query heads.
    total = linear_input_bytes(shape, use, setup, fitted) + 4 * wide * q
    if setup.compiled:
        # 2bh: inputs of the two norms. MLP: gate and up, or the one pre-activation; the activation is recomputed.
        total += 2 * wide * h + wide * inner * (2 if shape.gated else 1)
    else:
        # RMSNorm (gated models) saves 4 bytes each and, if trained, its normalised value; LayerNorm b.
        trained = wide if use == "full" else 0
        total += shape.norms * h * (4 + trained if shape.gated else wide)
        if shape.head_norms:
            total += (q + shape.kv_heads * shape.head_dim) * (4 + trained)
        if shape.norms > 2 or shape.head_norms:
            # The norms of these families scale their fp32 value, which a trained weight needs (Gemma3RMSNorm).
            total += (4 - wide) * shape.norms * h if use == "full" else 0
        # gelu_new in parts: x of the cube, tanh, 0.5 x and 1 + tanh, where one operation saves x alone.
        values = 3 if shape.gated else 4 if shape.composed_activation else 1
        total += wide * inner * values + fitted.copies * h
        if shape.experts > 1:
            # Every token is copied for each of its experts, and their outputs are summed.
            total += 2 * wide * shape.active * h
    if setup.attention == "eager" or shape.capped_scores:
        # One row of scores for each head: fp32 softmax (4), its bf16 copy (2) and a cap's tanh (2) for every key.
        total += (6 + (wide if shape.capped_scores else 0)) * shape.heads * setup.seq_len
    elif setup.packed and setup.seq_len <= MAX_STORED_SCORES:
        total += wide * shape.heads * setup.seq_len
    if use in ("lora", "qlora"):
        value_bytes = 4 if setup.adapter_dtype == "fp32" else 2
        total += value_bytes * setup.rank * len(shape.adapted_matrices(setup.targets))
    return float(total)


def _fused_block_bytes(shape: ModelShape, use: MemoryUse, setup: MemorySetup) -> float:
    """Bytes of one token in a block of :mod:`runners.training.cpu_kernels`, counted from what its passes save.

    Norms: the unit vector, its length (fp32) and the product that the layers of one input share. Attention, whose
    scores are stored: query, key, value, output and the probabilities of every head. MLP: gate, its activation, up
    and their product. Every adapter: its rank, in the base's dtype.
    """
    h = shape.hidden
    q = shape.query
    kv = shape.kv_heads * shape.head_dim
    wide = bytes_per_value(use, setup)
    norms = 2 * (2 * wide * h + 4)
    scores = shape.heads * setup.seq_len if setup.seq_len <= MAX_STORED_SCORES else 0
    attention = wide * (2 * q + 2 * kv + scores)
    low_rank = wide * setup.rank * len(shape.adapted_matrices(setup.targets))
    return float(norms + attention + 4 * wide * shape.intermediate + low_rank)


def expert_copy_bytes(shape: ModelShape, use: MemoryUse, setup: MemorySetup) -> tuple[float, float]:
    """Bytes of the experts' copies that PEFT adds adapters to (ADAPTED_EXPERT_FAMILIES), at the loss and at the end.

    Without checkpointing the copies of all blocks are held for the backward pass, which begins with one block's gradient
    of its copy and the adapters' product in fp32; at the end those of one block.
    """
    if use not in ("lora", "qlora") or not shape.adapted_experts or "mlp" not in setup.targets:
        return 0.0, 0.0
    wide = bytes_per_value(use, setup)
    copies = float(wide * shape.expert_params)
    one = copies / shape.layers * (2 + 4 / wide)
    return (one if setup.checkpointing else copies + one), one


def activation_bytes(
    shape: ModelShape, use: MemoryUse, setup: MemorySetup, fitted: FittedConstants = FITTED
) -> tuple[float, float]:
    """Bytes of the activations saved for the backward pass, when the loss is computed and at its end.

    Without checkpointing those of every block are held when the loss is computed, and those of one block at the end.
    With checkpointing only each block's input is held, of which offloading leaves two on the GPU; the activations of
    one block at a time are computed again.
    """
    tokens = step_tokens(setup, fitted)
    if use == "inference":
        # One block at a time, nothing saved: the residual stream (h), attention (4q) and MLP (3I).
        peak = tokens * (
            bytes_per_value(use, setup) * (shape.hidden + 4 * shape.query + 3 * shape.intermediate)
        )
        return peak, 0.0
    block = tokens * block_bytes(shape, use, setup, fitted)
    copies, last_copy = expert_copy_bytes(shape, use, setup)
    if not setup.checkpointing:
        return shape.layers * block + copies, block + last_copy
    # The residual stream of a prepared 4-bit base is fp32.
    stream_bytes = 4 if setup.prepared and use == "qlora" else bytes_per_value(use, setup)
    held = min(2, shape.layers) if setup.offloading else shape.layers
    # min: checkpointing never holds more than all activations.
    saved = min(tokens * stream_bytes * shape.hidden * held, shape.layers * block)
    return saved + copies, block + last_copy


def kv_cache_bytes(shape: ModelShape, use: MemoryUse, setup: MemorySetup) -> float:
    """Bytes of the KV cache, for inference only: 2 · layers · kv width · tokens · bytes per value.

    Of layers with a window at most its tokens, of recurrent layers their state (:attr:`ModelShape.cache`).
    """
    if use != "inference":
        return 0.0
    return float(bytes_per_value(use, setup) * setup.batch * shape.cached_values(setup.seq_len))


def logits_bytes(
    shape: ModelShape, use: MemoryUse, setup: MemorySetup, fitted: FittedConstants = FITTED
) -> float:
    """Bytes of the logits and their gradients, by kind of loss.

    Bytes per token and vocabulary entry:

    - full: bf16 logits that the model's output holds (2), fp32 log-probabilities, their gradient and that of the
      logits (4 each), 14 in all (Soup's fit to checkpointed runs gives the same); 16 with fp32 adapters or a prepared
      base, which mean mixed precision: accelerate's ``convert_outputs_to_fp32`` holds the output in 4, and with fp32
      weights; compiled, the 16-bit copy is freed: 12. 2 more where the model caps its logits. Of a prepared base's fp32
      head, the backward pass needs the 16-bit cast (2 a weight).
    - chunked: fp32 log-probabilities and gradients of all pieces, 8, as the pieces are joined before the backward
      pass; compiled only bf16 logits, 2.
    - of both, a trained head's gradient comes later (:func:`runners.resources.loss_memory.other_loss_bytes`).
    - rows and fused: 128 rows at 10 bytes, the gradient of the last hidden state, and that of a trained head.
    - of this project's loop: full, and for models that change logits outside their head, by :func:`plain_loss_bytes`,
      else by :func:`row_loss_bytes`.
    - inference: logits of one row per sequence, in bf16 (2) and fp32 (4).
    """
    tokens = step_tokens(setup, fitted)
    if use == "inference":
        return 6.0 * setup.batch * shape.vocab
    if setup.program == "tunewise":
        learnt = tokens if setup.target_tokens is None else min(tokens, setup.target_tokens)
        wide, full = bytes_per_value(use, setup), use == "full"
        if setup.loss == "full" or shape.whole_logits:
            return plain_loss_bytes(shape, wide, tokens, learnt, full)
        return row_loss_bytes(shape, wide, learnt, full, setup.counter != "process")
    logits = tokens * shape.vocab
    prepared = use == "qlora" and setup.prepared
    mixed = prepared or (use == "lora" and setup.adapter_dtype == "fp32")
    output = 4.0 if mixed or bytes_per_value(use, setup) == 4 else 2.0
    each = {"full": 12.0 + output, "chunked": 8.0}
    if setup.compiled:
        each, output = {"full": 12.0, "chunked": 2.0}, 0.0
    head = float(bytes_per_value(use, setup) * shape.table) if use == "full" else 0.0
    if setup.loss in each:
        cast = 2.0 * shape.table if prepared and not setup.compiled else 0.0
        return other_loss_bytes(shape, logits, each[setup.loss], output, head) + cast
    rows = 10.0 * min(tokens, CHUNKED_LOSS_ROWS) * shape.vocab + 2.0 * tokens * shape.hidden + head
    # min: a loss on few rows never needs more than the chunked one.
    return min(rows, other_loss_bytes(shape, logits, each["chunked"], output, head))


def buffer_bytes(shape: ModelShape, use: MemoryUse, setup: MemorySetup) -> float:
    """Bytes of temporary weights: one dequantised matrix (bitsandbytes and torchao: bf16, h x I)."""
    if not is_four_bit(use, setup):
        return 0.0
    dequantised = 2.0 * shape.hidden * shape.intermediate
    if setup.counter == "process":
        # The 16-bit matrices are read before they are quantised. Those below 32 MiB come from the allocator's heap, which
        # stays resident; larger ones are returned to the system.
        dequantised += min(2.0 * (shape.blocks - shape.expert_params), MAX_HEAP_LEFT)
    return dequantised


def overhead_bytes(
    allocated: float, setup: MemorySetup, fitted: FittedConstants = FITTED, activations: float = 0.0
) -> float:
    """Bytes that the counter shows beyond the tensors.

    reserved: unused reserved blocks. device: the CUDA context. process: the program without a model, and what the C
    library's allocator and oneDNN's compiled kernels hold beside the tensors, with ``fused`` kernels a share of the
    ``activations``.
    """
    if setup.counter == "reserved":
        return (fitted.reserved - 1) * allocated
    if setup.counter == "process":
        return PROCESS_BYTES + KERNEL_BYTES + (HEAP_SHARE * activations if setup.fused else 0.0)
    return CUDA_CONTEXT_BYTES if setup.counter == "device" else 0.0

"""Gradient checkpointing: whether activations are recomputed in the backward pass, which is only done to save memory.

It costs about a fifth of the speed (torchtune, an 8B model on one A100: 9,174 against 7,210 tokens/s) and on a CPU the
fast loss as well, so it is on only where a run would not fit without. The memory needed is estimated here for this
project's own loop. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from rag.errors import BadInput
from runners.models.fingerprint import read_json
from runners.plan.train_config import TrainConfig
from runners.resources.machine import GIB
from runners.resources.memory_estimate import MemoryEstimate, estimate_memory, fits
from runners.resources.memory_terms import PROCESS_BYTES, LossKind, MemorySetup
from runners.resources.model_shape import ALL_LINEAR, ModelShape, read_shape

_ESTIMATE_NAMES = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "o"}


@dataclass(frozen=True, slots=True)
class CheckpointingChoice:
    """Whether gradient checkpointing is on, and why."""

    on: bool
    reason: str


def choose_checkpointing(
    folder: Path,
    config: TrainConfig,
    longest: int,
    free_gib: float | None,
    half: bool,
    cuda: bool = False,
    shards: int = 1,
) -> CheckpointingChoice:
    """Return whether a run needs gradient checkpointing, by the high end of its memory estimate.

    Args:
        folder: Folder of the base model.
        config: Settings of the run; ``checkpointing`` on or off is obeyed.
        longest: Tokens of the longest row.
        free_gib: Free memory of the device, None when unknown.
        half: Whether the base is held in bf16, else in fp32.
        cuda: Whether the run is on a GPU, whose allocator and free memory differ from a CPU's.
        shards: Number of processes that weights and their state are sharded over.
    """
    if config.checkpointing != "auto":
        return CheckpointingChoice(
            config.checkpointing == "on", f"checkpointing {config.checkpointing}: asked for"
        )
    try:
        shape = read_shape(read_json(folder / "config.json"))
    except BadInput as unknown:
        return CheckpointingChoice(False, f"checkpointing off: {unknown.message}")
    if free_gib is None:
        return CheckpointingChoice(False, "checkpointing off: what memory is free is unknown")
    without, recomputed = (
        largest_pass_gib(shape, config, longest, half, on, cuda, shards) for on in (False, True)
    )
    has = f"{free_gib:.1f} GiB are free"
    if fits(without, without, free_gib) == "yes":
        return CheckpointingChoice(
            False, f"checkpointing off: the run takes at most {without:.1f} GiB, {has}"
        )
    return CheckpointingChoice(
        True,
        f"checkpointing on: the run takes up to {without:.1f} GiB without it, "
        f"{recomputed:.1f} with it, {has}",
    )


def largest_pass_gib(
    shape: ModelShape,
    config: TrainConfig,
    longest: int,
    half: bool,
    checkpointing: bool,
    cuda: bool = False,
    shards: int = 1,
) -> float:
    """Return the high end of the memory estimate of the largest forward pass, in GiB, without the bare process."""
    estimate = estimate_largest_pass(shape, config, longest, half, checkpointing, cuda, shards)
    return estimate.high - bare_process_gib(cuda)


def estimate_largest_pass(
    shape: ModelShape,
    config: TrainConfig,
    longest: int,
    half: bool,
    checkpointing: bool,
    cuda: bool = False,
    shards: int = 1,
) -> MemoryEstimate:
    """Estimate the memory of this project's own loop for its largest forward pass, of rows as long as the longest.

    On a CPU it is that of the whole process, on a GPU that of the tensors. Weights, gradients and optimiser state are
    divided by ``shards``.
    """
    # A step has about `batch_tokens` tokens, and is split into passes of at most `micro_tokens`.
    tokens = min(config.micro_tokens, config.batch_tokens)
    # Which layers are fused is known when the model is loaded; here its shape has to do.
    plain = cuda or checkpointing or config.kernels == "plain" or config.dropout > 0
    fused = not plain and config.targets == "all-linear" and shape.llama_like and not shape.whole_logits
    rows = -(-tokens // max(1, longest))
    setup = run_setup(config, rows, longest, half, checkpointing, cuda, fused)
    # 4-bit weights stay whole unless they are to be sharded too.
    four_bit_too = config.parallel == "fsdp_4bit"
    setup = replace(setup, devices=shards, parallel="fsdp_4bit" if four_bit_too else "fsdp")
    return estimate_memory(shape, config.method, setup)  # type: ignore[arg-type]


def likely_training_gib(
    shape: ModelShape,
    config: TrainConfig,
    longest: int,
    tokens: int,
    half: bool,
    checkpointing: bool,
    fused: bool,
    cuda: bool = False,
    target_tokens: int | None = None,
    packed: bool = False,
    whole_logits: bool = False,
) -> float:
    """Return the likely GiB that training adds to the process: weights, adapters, optimiser state, gradients, activations,
    and on a CPU what the allocator and compiled kernels hold beside them.

    Neither the memory that the process held before nor a GPU's context is included.

    Args:
        shape: Shape of the base model.
        config: Settings of the run.
        longest: Tokens of the longest row.
        tokens: Tokens of the forward pass, padding included.
        half: Whether the base is held in bf16, else in fp32.
        checkpointing: Whether activations are recomputed.
        fused: Whether the fused layers of :mod:`runners.training.cpu_kernels` are used.
        cuda: Whether the run is on a GPU.
        target_tokens: Tokens of the pass that are learnt; None: all.
        packed: Whether rows are packed into one line.
        whole_logits: Whether the loss holds the logits of all tokens, as on the paths plain and alone.
    """
    rows = max(1, tokens // longest)
    # The mean length, rounded up, so that rows times length covers all tokens.
    setup = run_setup(config, rows, -(-tokens // rows), half, checkpointing, cuda, fused)
    loss: LossKind = "full" if whole_logits else setup.loss
    setup = replace(setup, packed=packed, target_tokens=target_tokens, loss=loss)
    estimate = estimate_memory(shape, config.method, setup)  # type: ignore[arg-type]
    return estimate.likely - bare_process_gib(cuda)


def bare_process_gib(cuda: bool) -> float:
    """Return the GiB of a process without a model that an estimate for this device includes."""
    return 0.0 if cuda else PROCESS_BYTES / GIB


def run_setup(
    config: TrainConfig,
    batch: int,
    length: int,
    half: bool,
    checkpointing: bool,
    cuda: bool,
    fused: bool = False,
) -> MemorySetup:
    """Return the description of a run for its memory estimate: ``batch`` rows of ``length`` tokens in a pass.

    Args:
        config: Settings of the run.
        batch: Rows of a forward pass.
        length: Tokens of each row.
        half: Whether the base is held in bf16, else in fp32.
        checkpointing: Whether activations are recomputed.
        cuda: Whether the run is on a GPU.
        fused: Whether the fused layers of :mod:`runners.training.cpu_kernels` are used.
    """
    return MemorySetup(
        batch=batch,
        seq_len=max(1, length),
        rank=config.rank,
        checkpointing=checkpointing,
        weights=None if config.method == "qlora" else "bf16" if half else "fp32",
        fp32_compute=not half,
        targets=_estimate_targets(config),
        counter="allocated" if cuda else "process",
        fused=fused,
        accumulation=config.batch_tokens > config.micro_tokens,
        loss="full" if config.kernels == "plain" else "rows",
        optimizer=config.optimizer,  # type: ignore[arg-type]
    )


def _estimate_targets(config: TrainConfig) -> tuple[str, ...]:
    """Return the estimate's names of the layers that get adapters; unknown ones count as layers of the MLP."""
    if config.targets == "all-linear":
        return ALL_LINEAR
    return tuple(sorted({_ESTIMATE_NAMES.get(name.rsplit(".", 1)[-1], "mlp") for name in config.targets}))

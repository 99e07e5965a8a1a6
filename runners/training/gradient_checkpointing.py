"""Gradient checkpointing: whether activations are recomputed in the backward pass, which is only done to save memory.

It costs about a fifth of the speed (torchtune, an 8B model on one A100: 9,174 against 7,210 tokens/s) and on a CPU the
fast loss as well, so it is on only where a run would not fit without. The memory needed is estimated here for this
project's own loop. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rag.errors import BadInput
from runners.models.fingerprint import read_json
from runners.plan.train_config import TrainConfig
from runners.resources.machine import GIB
from runners.resources.memory_estimate import MemoryEstimate, estimate_memory, fits
from runners.resources.memory_terms import MemorySetup
from runners.resources.model_shape import ALL_LINEAR, ModelShape, read_shape

_ESTIMATE_NAMES = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "o"}


@dataclass(frozen=True, slots=True)
class CheckpointingChoice:
    """Whether gradient checkpointing is on, and why."""

    on: bool
    reason: str


def choose_checkpointing(
    folder: Path, config: TrainConfig, longest: int, free_gib: float | None, half: bool
) -> CheckpointingChoice:
    """Return whether a run needs gradient checkpointing, by the high end of its memory estimate.

    Args:
        folder: Folder of the base model.
        config: Settings of the run; ``checkpointing`` on or off is obeyed.
        longest: Tokens of the longest row.
        free_gib: Free memory of the device, None when unknown.
        half: Whether the base is held in bf16, else in fp32.
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
    without, recomputed = (largest_pass_gib(shape, config, longest, half, on) for on in (False, True))
    has = f"{free_gib:.1f} GiB are free"
    if fits(without, without, free_gib) == "yes":
        return CheckpointingChoice(
            False, f"checkpointing off: the run takes at most {without:.1f} GiB, {has}"
        )
    return CheckpointingChoice(
        True,
        f"checkpointing on: the run takes up to {without:.1f} GiB without it, {recomputed:.1f} with it, {has}",
    )


def largest_pass_gib(
    shape: ModelShape, config: TrainConfig, longest: int, half: bool, checkpointing: bool
) -> float:
    """Return the high end of the memory estimate of this project's own loop, in GiB, for the largest forward pass."""
    batch = max(1, config.micro_tokens // max(1, longest))
    estimate, own = _estimated(shape, config, batch, longest, half, checkpointing)
    return estimate.high + own


def likely_training_gib(
    shape: ModelShape,
    config: TrainConfig,
    longest: int,
    tokens: int,
    half: bool,
    checkpointing: bool,
    fused: bool,
) -> float:
    """Return the likely GiB of tensors in training: weights, adapters, optimiser state, gradients and activations.

    Neither the memory of the process nor a GPU's context is included.

    Args:
        shape: Shape of the base model.
        config: Settings of the run.
        longest: Tokens of the longest row.
        tokens: Tokens of the forward pass, padding included.
        half: Whether the base is held in bf16, else in fp32.
        checkpointing: Whether activations are recomputed.
        fused: Whether the fused layers of :mod:`runners.training.cpu_kernels` are used.
    """
    rows = max(1, tokens // longest)
    # The mean length, rounded up, so that rows times length covers all tokens.
    estimate, own = _estimated(shape, config, rows, -(-tokens // rows), half, checkpointing, fused)
    return estimate.likely + own


def _estimated(
    shape: ModelShape,
    config: TrainConfig,
    batch: int,
    length: int,
    half: bool,
    checkpointing: bool,
    fused: bool = False,
) -> tuple[MemoryEstimate, float]:
    """Return the memory estimate of a usual run, and the GiB that this project's loop needs in addition.

    The addition is the fp32 masters of :mod:`runners.training.optimizer` where a bf16 base is tuned in full; those of
    ``adamw`` are in the estimate already. ``length`` is the number of tokens of each of ``batch`` rows.
    """
    setup = MemorySetup(
        batch=batch,
        seq_len=max(1, length),
        rank=config.rank,
        checkpointing=checkpointing,
        weights=None if config.method == "qlora" else "bf16" if half else "fp32",
        targets=_estimate_targets(config),
        counter="allocated",
        accumulation=True,
        fused=fused,
        loss="full" if config.kernels == "plain" else "rows",
        optimizer="adamw_fp32" if config.optimizer == "adamw" else config.optimizer,  # type: ignore[arg-type]
    )
    masters = 4 * shape.params if config.method == "full" and half else 0
    own = 0 if config.optimizer == "adamw" else masters
    return estimate_memory(shape, config.method, setup), own / GIB  # type: ignore[arg-type]


def _estimate_targets(config: TrainConfig) -> tuple[str, ...]:
    """Return the estimate's names of the layers that get adapters; unknown ones count as layers of the MLP."""
    if config.targets == "all-linear":
        return ALL_LINEAR
    return tuple(sorted({_ESTIMATE_NAMES.get(name.rsplit(".", 1)[-1], "mlp") for name in config.targets}))

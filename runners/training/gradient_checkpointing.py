"""Whether activations are computed again in the backward pass: only when memory asks for it. Light.

Gradient checkpointing costs about a fifth of the speed (torchtune, an 8B model on one A100: 9,174 against 7,210
tokens/s) and on a CPU the fast loss as well, so it is on only where a run would not fit without.
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

_PARTS = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "o"}


@dataclass(frozen=True, slots=True)
class CheckpointingChoice:
    """Whether to, and why."""

    on: bool
    reason: str


def choose_checkpointing(
    folder: Path, config: TrainConfig, longest: int, free_gib: float | None, half: bool
) -> CheckpointingChoice:
    """Choose for a model folder and rows of at most ``longest`` tokens.

    ``free_gib`` is what the device has free now, None when unknown; ``half`` says whether the base is held in
    bf16 (else fp32).
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
    without, with_it = (largest_pass_gib(shape, config, longest, half, on) for on in (False, True))
    has = f"{free_gib:.1f} GiB are free"
    if fits(without, without, free_gib) == "yes":
        return CheckpointingChoice(
            False, f"checkpointing off: the run takes at most {without:.1f} GiB, {has}"
        )
    return CheckpointingChoice(
        True,
        f"checkpointing on: the run takes up to {without:.1f} GiB without it, {with_it:.1f} with it, {has}",
    )


def largest_pass_gib(
    shape: ModelShape, config: TrainConfig, longest: int, half: bool, checkpointing: bool
) -> float:
    """Return the high end of the memory estimate of this project's own loop, in GiB, for the largest forward pass."""
    batch = max(1, config.micro_tokens // max(1, longest))
    found, own = _estimated(shape, config, batch, longest, half, checkpointing)
    return found.high + own


def likely_training_gib(
    shape: ModelShape,
    config: TrainConfig,
    longest: int,
    tokens: int,
    half: bool,
    checkpointing: bool,
    fused: bool,
) -> float:
    """Return the GiB that training takes in tensors, most likely: weights, adapters, optimiser, gradients, activations.

    For a forward pass of so many ``tokens`` in rows of at most ``longest``; ``fused`` says whether the fast passes of
    :mod:`runners.training.cpu_kernels` are taken. Neither the process nor a GPU's context is in it.
    """
    rows = max(1, tokens // longest)
    found, own = _estimated(shape, config, rows, -(-tokens // rows), half, checkpointing, fused)
    return found.likely + own


def _estimated(
    shape: ModelShape,
    config: TrainConfig,
    batch: int,
    length: int,
    half: bool,
    checkpointing: bool,
    fused: bool = False,
) -> tuple[MemoryEstimate, float]:
    """Return the estimate of the published kind of run, and the GiB that this loop keeps beside it.

    That is, where a bf16 base is tuned in full: fp32 masters, and fp32 gradients while stepping
    (:mod:`runners.training.optimizer`).
    """
    setup = MemorySetup(
        batch=batch,
        seq_len=max(1, length),
        rank=config.rank,
        checkpointing=checkpointing,
        weights=None if config.method == "qlora" else "bf16" if half else "fp32",
        targets=_parts(config),
        counter="allocated",
        accumulation=True,
        fused=fused,
        loss="full" if config.kernels == "plain" else "rows",
        optimizer="adamw_fp32" if config.optimizer == "adamw" else config.optimizer,  # type: ignore[arg-type]
    )
    masters = 4 * shape.params if config.method == "full" and half else 0
    own = 0 if config.optimizer == "adamw" else masters
    return estimate_memory(shape, config.method, setup), own / GIB  # type: ignore[arg-type]


def _parts(config: TrainConfig) -> tuple[str, ...]:
    """Return the estimate's names of the layers that get adapters; unknown ones count as the MLP's."""
    if config.targets == "all-linear":
        return ALL_LINEAR
    return tuple(sorted({_PARTS.get(name.rsplit(".", 1)[-1], "mlp") for name in config.targets}))

"""What a run takes in memory: the terms of ``runners.resources.memory_terms`` put together, as a range with a verdict.

A training step has two heights: when the loss is known (activations and logits are there, gradients are not
yet) and at the end of the backward pass (gradients are there, activations are gone). The peak is the higher
one, on top of weights and optimiser state. Sizes are bytes inside, GiB at the border. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from runners.resources import memory_terms
from runners.resources.machine import GIB
from runners.resources.memory_terms import FITTED, FittedConstants, MemorySetup, MemoryUse
from runners.resources.model_shape import ModelShape

SMALLEST_SETUP = (1, True, "rows")
"""Batch, checkpointing and loss with every free saving on."""
SMALL_VOCAB = 32_000
"""Entries of a small vocabulary (Llama 2, Mistral): a guessed shape may have as few, and they are never 4-bit."""
FitVerdict = Literal["yes", "tight", "no"]


@dataclass(frozen=True, slots=True)
class EstimateAccuracy:
    """How the estimate did on published peaks, each scored with the constants fitted without its source.

    Excepted are ``reserved`` and ``filled``, which only one source informs and a user's card does not need.
    Made by ``python -m benchmarks.memory``; a test computes it again where the public data is.
    """

    error: float
    """The absolute error that nine of ten runs stay within, a share."""
    low: float
    """The 10th percentile of measured / estimated, at most 0.9: the low end of the range."""
    high: float
    """The 90th percentile of measured / estimated, at least 1.1: the high end of the range."""
    runs: int
    sources: int
    date: str = "2026-11-25"

    def text(self) -> str:
        """Return the line that is printed with each estimate."""
        if not self.runs:
            return "not compared with published runs"
        return (
            f"typically within ±{100 * self.error:.0f} % on {self.runs} published runs from "
            f"{self.sources} sources ({self.date})"
        )


ESTIMATE_ACCURACY: Mapping[MemoryUse, EstimateAccuracy] = {
    "full": EstimateAccuracy(0.055, 0.9, 1.1, 10, 2),
    "lora": EstimateAccuracy(0.077, 0.9, 1.1, 18, 3),
    "qlora": EstimateAccuracy(0.048, 0.9, 1.1, 10, 2),
    "inference": EstimateAccuracy(0.0, 0.9, 1.15, 0, 0),
}


def fits(low: float, high: float, free: float | None) -> FitVerdict | None:
    """Compare the range of an estimate with the memory that may be taken; the one place where fitting is decided.

    All in GiB; what may be taken (what is free now, a card's size, a share of it) is the caller's to say.
    Returns yes (even the high end fits), tight, or no (not even the low end does); None when ``free`` is unknown.
    """
    if free is None:
        return None
    return "yes" if high <= free else "tight" if low <= free else "no"


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """GiB on one device: a range, its terms and what was assumed."""

    low: float
    likely: float
    high: float
    terms: Mapping[str, float]
    """The likely figure's parts at the peak."""
    assumptions: tuple[str, ...]

    def fits(self, gib: float | None) -> FitVerdict | None:
        """Return the verdict of :func:`fits` for this range in ``gib``."""
        return fits(self.low, self.high, gib)

    def to_json(self, gib: float | None = None) -> dict[str, Any]:
        """Return the JSON object that recommendation and estimate print."""
        return {**asdict(self), "assumptions": list(self.assumptions), "fits": self.fits(gib)}


@lru_cache(maxsize=4096)
def estimate_memory(
    shape: ModelShape, use: MemoryUse, setup: MemorySetup = MemorySetup(), fitted: FittedConstants = FITTED
) -> MemoryEstimate:
    """Estimate the peak of one device, as the setup's counter would show it.

    It grows with everything that makes a run larger, but for a paged optimiser on a known card: its state
    leaves the card when the rest fills it. In 4 bits a shape guessed from a size has the low end of a small
    vocabulary, as embeddings stay in 16.
    """
    parts = _terms(shape, use, setup, fitted)
    room = setup.device_gib
    paged = setup.optimizer.startswith("paged") and room is not None and sum(parts.values()) > room * GIB
    if paged:
        parts = parts | {"optimizer": 0.0}
    likely = sum(parts.values()) / GIB
    # The context is a known number: only what lies above it has a spread.
    fixed = memory_terms.CUDA_CONTEXT_BYTES / GIB if setup.counter == "device" else 0.0
    history = ESTIMATE_ACCURACY[use]
    low = fixed + (likely - fixed) * history.low
    if use == "qlora" and shape.assumed and shape.vocab > SMALL_VOCAB:
        low = min(low, estimate_memory(replace(shape, vocab=SMALL_VOCAB), use, setup, fitted).low)
    return MemoryEstimate(
        round(low, 3),
        round(likely, 3),
        round(fixed + (likely - fixed) * history.high, 3),
        {name: round(size / GIB, 3) for name, size in parts.items() if size},
        _assumptions(shape, use, setup, paged),
    )


def smallest_memory(shape: ModelShape, use: MemoryUse, setup: MemorySetup = MemorySetup()) -> MemoryEstimate:
    """Estimate with every free saving on: one row at a time, checkpointing, logits of label rows only."""
    if (setup.batch, setup.checkpointing, setup.loss) != SMALLEST_SETUP:
        setup = replace(setup, batch=1, checkpointing=True, loss="rows")
    return estimate_memory(shape, use, setup)


def _terms(
    shape: ModelShape, use: MemoryUse, setup: MemorySetup, fitted: FittedConstants
) -> dict[str, float]:
    shard = max(1, setup.devices)
    early, late = memory_terms.gradient_bytes(shape, use, setup)
    kept, remade = memory_terms.activation_bytes(shape, use, setup, fitted)
    loss = memory_terms.logits_bytes(shape, use, setup, fitted)
    if early / shard + kept + loss >= late / shard + remade:
        moment = {"gradients": early / shard, "activations": kept, "logits": loss}
    else:
        moment = {"gradients": late / shard, "activations": remade}
    parts = {
        "weights": memory_terms.weight_bytes(shape, use, setup) / shard,
        "adapters": memory_terms.adapter_bytes(shape, use, setup) / shard,
        "optimizer": memory_terms.optimizer_bytes(shape, use, setup) / shard,
        **moment,
        "kv_cache": memory_terms.kv_cache_bytes(shape, use, setup),
        "buffers": memory_terms.buffer_bytes(shape, use, setup),
    }
    return {**parts, "overhead": memory_terms.overhead_bytes(sum(parts.values()), setup, fitted)}


_LOSSES = {
    "full": "loss on all logits at once",
    "chunked": "loss in chunks",
    "fused": "fused loss",
    "rows": "loss on label rows only",
}
_COUNTERS = {
    "allocated": "counts what tensors hold",
    "reserved": "counts what the allocator holds",
    "device": "counts what the device must have free",
}


def _assumptions(shape: ModelShape, use: MemoryUse, setup: MemorySetup, paged: bool) -> tuple[str, ...]:
    said = [f"{setup.batch} x {setup.seq_len} tokens at a time"]
    if use != "inference":
        said.append(f"gradient checkpointing {'on' if setup.checkpointing else 'off'}")
        said += [_LOSSES[setup.loss], f"optimiser {setup.optimizer.replace('_', ' ')}"]
        if use != "full":
            said.append(f"rank {setup.rank} on {', '.join(setup.targets)}, adapters in {setup.adapter_dtype}")
    if paged:
        said.append("the paged optimiser's state is in host memory")
    if setup.devices > 1:
        said.append(f"weights and optimiser sharded over {setup.devices} devices")
    if shape.assumed:
        small = f", at the low end with a vocabulary of {SMALL_VOCAB:,}" if use == "qlora" else ""
        said.append(f"shape guessed from the parameter count{small}")
    if shape.experts > 1:
        said.append(f"all {shape.experts} experts are held and adapted; no published run of one was compared")
    return (*said, _COUNTERS[setup.counter], ESTIMATE_ACCURACY[use].text())

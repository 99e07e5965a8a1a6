"""Estimate the peak memory of a run, as a range, and decide whether it fits. Imports no torch.

:func:`estimate_memory` adds up the terms of :mod:`runners.resources.memory_terms`. A training step has three
local maxima: when the loss is computed (activations and logits are held, gradients are not yet), at the end of the
backward pass (gradients are held, activations are freed), and when the optimiser steps (gradients in the dtype of its
weights). The peak is the highest one, on top of weights and optimiser state. Sizes are bytes inside this module and GiB in
its results.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from runners.resources import memory_terms, parallel_memory
from runners.resources.machine import GIB
from runners.resources.memory_terms import (
    FITTED,
    KERNEL_BYTES,
    PROCESS_BYTES,
    FittedConstants,
    MemoryCounter,
    MemorySetup,
    MemoryUse,
    ParallelKind,
    WeightKind,
)
from runners.resources.model_shape import ModelShape

SMALLEST_SETUP = (1, True, "rows")
"""Batch, checkpointing and loss with every saving that does not change the result."""
SMALL_VOCAB = 32_000
"""Entries of a small vocabulary (Llama 2, Mistral): a guessed shape may have as few, and embeddings are never
quantised."""
BATCH_ROWS, BATCH_TOKENS = 32, 12_000
"""Most rows and tokens of one batch, as :mod:`runners.inference.local` has them, which imports torch; a test compares."""
ADAPTER_RANK = 16
"""Rank of an adapter beside a 4-bit base: the default of training."""
FitVerdict = Literal["yes", "tight", "no"]


@dataclass(frozen=True, slots=True)
class EstimateAccuracy:
    """Accuracy of the estimate on published peaks, each scored with constants fitted without its source.

    The constants ``reserved`` and ``filled`` are an exception: only one source informs them, and an estimate for a
    user's GPU does not use them. Computed by ``python -m benchmarks.memory``; a test computes it again where the
    public data is available.
    """

    error: float
    """The 90th percentile of the absolute error, as a share."""
    low: float
    """The 10th percentile of measured / estimated, at most 0.9: the low end of the range."""
    high: float
    """The 90th percentile of measured / estimated, at least 1.1: the high end of the range."""
    runs: int
    sources: int
    date: str = "2026-11-25"

    def text(self) -> str:
        """Return the line that is printed with each estimate."""
        if not self.sources:
            own = f"typically within ±{100 * self.error:.0f} % on {self.runs} runs of our own on a CPU"
            return f"{own} ({self.date})" if self.runs else "not compared with published runs"
        return (
            f"typically within ±{100 * self.error:.0f} % on {self.runs} published runs from "
            f"{self.sources} sources ({self.date})"
        )


ESTIMATE_ACCURACY: Mapping[MemoryUse, EstimateAccuracy] = {
    "full": EstimateAccuracy(0.055, 0.9, 1.1, 10, 2),
    "lora": EstimateAccuracy(0.078, 0.9, 1.1, 18, 3),
    "qlora": EstimateAccuracy(0.048, 0.9, 1.1, 10, 2),
    "inference": EstimateAccuracy(0.0, 0.9, 1.15, 0, 0),
}


GROUP_ACCURACY_TEXT = (
    "on several GPUs off by 7 % on average and 20 % at most, on 11 published peaks from one source"
)
"""The line beside an estimate for several GPUs; a test computes it (benchmarks/scale.py). None of these peaks set a
constant."""
CPU_ACCURACY = EstimateAccuracy(0.17, 0.8, 1.35, 10, 0, "2026-11-26")
"""The range for a whole process on a CPU, from this project's own runs (``python -m benchmarks.memory_runs``): it is
wider, as the shapes of the steps decide what the allocator and the compiled kernels hold."""


def fits(low: float, high: float, free: float | None) -> FitVerdict | None:
    """Compare the range of an estimate with the memory that may be used; every decision about fitting is made here.

    Args:
        low: low end of the estimate in GiB.
        high: high end of the estimate in GiB.
        free: memory that may be used in GiB; the caller decides whether that is what is free now, the size of a GPU
            or a share of it. None is unknown.

    Returns:
        yes (even the high end fits), tight, or no (not even the low end fits); None when ``free`` is unknown.
    """
    if free is None:
        return None
    return "yes" if high <= free else "tight" if low <= free else "no"


def accuracy_of(use: MemoryUse, counter: MemoryCounter) -> EstimateAccuracy:
    """Return the accuracy of an estimate: on a CPU that of this project's own runs, else that of published peaks."""
    return CPU_ACCURACY if counter == "process" else ESTIMATE_ACCURACY[use]


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Peak memory of one device in GiB: a range, its terms and the assumptions."""

    low: float
    likely: float
    high: float
    terms: Mapping[str, float]
    """GiB of each part of ``likely`` at the peak."""
    assumptions: tuple[str, ...]

    def fits(self, gib: float | None) -> FitVerdict | None:
        """Return the verdict of :func:`fits` for this range and ``gib`` GiB."""
        return fits(self.low, self.high, gib)

    def to_json(self, gib: float | None = None) -> dict[str, Any]:
        """Return the JSON object that recommendation and estimate print."""
        return {**asdict(self), "assumptions": list(self.assumptions), "fits": self.fits(gib)}


@lru_cache(maxsize=4096)
def estimate_memory(
    shape: ModelShape, use: MemoryUse, setup: MemorySetup = MemorySetup(), fitted: FittedConstants = FITTED
) -> MemoryEstimate:
    """Estimate the peak memory of one device, as the counter named by the setup would show it.

    The estimate grows with everything that makes a run larger, except for a paged optimiser on a GPU of known size:
    its state moves to host memory when the rest fills the GPU. For a 4-bit base whose shape was guessed from a
    size, the low end assumes a small vocabulary, as embeddings stay in 16 bits.
    """
    parts = _terms(shape, use, setup, fitted)
    capacity = setup.device_gib
    paged = (
        memory_terms.chosen_optimizer(shape, use, setup).startswith("paged")
        and capacity is not None
        and sum(parts.values()) > capacity * GIB
    )
    if paged:
        parts = parts | {"optimizer": 0.0}
    likely = sum(parts.values()) / GIB
    # The CUDA context and the bare process are known constants: only the memory above them is multiplied by the range's
    # shares.
    known = {"device": memory_terms.CUDA_CONTEXT_BYTES, "process": memory_terms.PROCESS_BYTES}
    fixed = known.get(setup.counter, 0.0) / GIB
    accuracy = accuracy_of(use, setup.counter)
    low = fixed + (likely - fixed) * accuracy.low
    if use == "qlora" and shape.assumed and shape.vocab > SMALL_VOCAB:
        low = min(low, estimate_memory(replace(shape, vocab=SMALL_VOCAB), use, setup, fitted).low)
    return MemoryEstimate(
        round(low, 3),
        round(likely, 3),
        round(fixed + (likely - fixed) * accuracy.high, 3),
        {name: round(size / GIB, 3) for name, size in parts.items() if size},
        _assumptions(shape, use, setup, paged),
    )


def smallest_memory(shape: ModelShape, use: MemoryUse, setup: MemorySetup = MemorySetup()) -> MemoryEstimate:
    """Estimate with :data:`SMALLEST_SETUP`: one row at a time, checkpointing, logits of label rows only."""
    if (setup.batch, setup.checkpointing, setup.loss) != SMALLEST_SETUP:
        setup = replace(setup, batch=1, checkpointing=True, loss="rows")
    return estimate_memory(shape, use, setup)


def run_memory(shape: ModelShape, use: MemoryUse, setup: MemorySetup, gib: float | None) -> MemoryEstimate:
    """Estimate a training as this project's loop sets it: activations are computed again only where memory asks for it.

    Args:
        shape: the model.
        use: how it is trained.
        setup: the run; checkpointing, batch and loss are chosen here.
        gib: memory of the device; None is unknown, and then every saving is on.
    """
    without = estimate_memory(shape, use, replace(setup, batch=1, checkpointing=False, loss="rows"))
    return without if without.fits(gib) == "yes" else smallest_memory(shape, use, setup)


def memory_in_group(
    shape: ModelShape, use: MemoryUse, setup: MemorySetup, gib: float | None, nodes: int = 1
) -> tuple[ParallelKind, MemoryEstimate]:
    """Choose how the devices of a setup share a training, as ``parallel: auto`` does, and estimate each one's memory.

    ddp where a whole copy fits every device or would with nothing better to be had; else fsdp, which takes less.

    Args:
        shape: the model.
        use: how it is trained.
        setup: the run, with every saving that is wanted; its ``devices`` are those of the group.
        gib: memory of one device; None is unknown, and then ddp is assumed.
        nodes: machines that the devices are spread over evenly.

    Returns:
        ddp or fsdp, and the memory of one device. For one device that is the estimate of one device.
    """
    whole = estimate_memory(shape, use, replace(setup, parallel="ddp"))
    if setup.devices <= 1 or whole.fits(gib) in (None, "yes"):
        return "ddp", whole
    setup = replace(setup, parallel="fsdp")
    if estimate_memory(shape, use, setup).likely >= whole.likely:
        return "ddp", whole
    replicas = node_replicas(shape, use, setup, gib, nodes)
    return "fsdp", estimate_memory(shape, use, replace(setup, replicas=replicas))


def node_replicas(
    shape: ModelShape, use: MemoryUse, setup: MemorySetup, gib: float | None, nodes: int = 1
) -> int:
    """Return how many nodes hold all shards of a training each, as training chooses; 1: the shards are spread over all.

    Every node does where its devices have room for the high estimate of weights divided among them alone: then layers are
    gathered over the links within a node (:func:`runners.resources.parallel_memory.replica_traffic_bytes`).

    Args:
        shape: the model.
        use: how it is trained.
        setup: the run, with the devices of all nodes and ``parallel``.
        gib: memory of one device; None is unknown, and then the shards are spread over all.
        nodes: machines that the devices are spread over evenly.
    """
    several = nodes > 1 and setup.devices % nodes == 0 and setup.devices // nodes > 1
    if not several or not parallel_memory.is_sharded(setup):
        return 1
    within = estimate_memory(shape, use, replace(setup, replicas=nodes))
    return nodes if within.fits(gib) == "yes" else 1


def estimate_inference_memory(
    shape: ModelShape,
    prompt_tokens: int,
    new_tokens: int,
    rows: int = 1,
    weights: WeightKind | None = None,
    adapter_rank: int = 0,
    counter: MemoryCounter = "device",
    devices: int = 1,
) -> MemoryEstimate:
    """Estimate the memory of answering: weights, keys and values of all rows, and the forward pass over the prompts.

    Copies of the base's weights, which are held only where they fit, and keys and values of earlier prompts
    (:mod:`runners.inference.kv_cache`, at most 256 MiB) are not counted.

    Args:
        shape: the base model.
        prompt_tokens: tokens of the longest prompt.
        new_tokens: most tokens of an answer.
        rows: prompts that are answered at once.
        weights: how the base is held: bf16 (None), fp32, nf4 or nf4-dq.
        adapter_rank: rank of an adapter that is not merged into the base; 0 for none, or a merged one.
        counter: device for a GPU, process for a CPU.
        devices: devices that the weights are divided among.
    """
    setup = MemorySetup(
        batch=max(1, rows),
        seq_len=max(1, prompt_tokens + new_tokens),
        weights=weights,
        rank=adapter_rank,
        unmerged=adapter_rank > 0,
        counter=counter,
        devices=devices,
    )
    return estimate_memory(shape, "inference", setup)


def batch_memory(
    shape: ModelShape, prompt_tokens: int, new_tokens: int, weights: WeightKind | None, on_cpu: bool
) -> MemoryEstimate:
    """Estimate the memory of one batch of answers, an adapter beside a 4-bit base included.

    A 4-bit base is quantised from the 16-bit file, whose mapped pages count as resident memory of the process. They are
    clean and leave when memory is short, so they do not decide what fits and are left out here.

    Args:
        shape: the model.
        prompt_tokens: tokens of the longest prompt.
        new_tokens: most tokens of an answer.
        weights: how the base is held; None is bf16.
        on_cpu: whether it is the memory of a whole process, else that of a GPU.
    """
    four_bit = weights in ("nf4", "nf4-dq")
    memory = estimate_inference_memory(
        shape,
        prompt_tokens,
        new_tokens,
        rows_at_once(prompt_tokens + new_tokens),
        weights=weights,
        adapter_rank=ADAPTER_RANK if four_bit else 0,
        counter="allocated" if on_cpu and four_bit else "process" if on_cpu else "device",
    )
    if not (on_cpu and four_bit):
        return memory
    process = (PROCESS_BYTES + KERNEL_BYTES) / GIB
    return replace(
        memory,
        low=round(memory.low + process, 3),
        likely=round(memory.likely + process, 3),
        high=round(memory.high + process, 3),
        terms={**memory.terms, "overhead": round(process, 3)},
    )


def rows_at_once(tokens: int) -> int:
    """Return how many rows of this many tokens are answered in one batch (:mod:`runners.inference.local`)."""
    return max(1, min(BATCH_ROWS, BATCH_TOKENS // max(1, tokens)))


def _terms(
    shape: ModelShape, use: MemoryUse, setup: MemorySetup, fitted: FittedConstants
) -> dict[str, float]:
    """Return the bytes of each term on one device, at the highest of the step's three maxima."""
    # Activations and logits are those of the device's own rows, whatever is sharded.
    shard = parallel_memory.shard_count(setup)
    gradients_at_loss, gradients_at_end = memory_terms.gradient_bytes(shape, use, setup)
    activations_at_loss, activations_at_end = memory_terms.activation_bytes(shape, use, setup, fitted)
    whole = parallel_memory.unreduced_gradient_bytes(shape, use, setup)
    moments: list[dict[str, float]] = [
        {
            "gradients": gradients_at_loss / shard,
            "activations": activations_at_loss,
            "logits": memory_terms.logits_bytes(shape, use, setup, fitted),
        },
        {"gradients": gradients_at_end / shard + whole, "activations": activations_at_end},
        {"gradients": memory_terms.update_bytes(shape, use, setup) / shard},
    ]
    at_peak = max(moments, key=lambda parts: sum(parts.values()))
    parts = {
        "weights": parallel_memory.held_weight_bytes(shape, use, setup),
        "masters": memory_terms.master_bytes(shape, use, setup) / shard,
        "adapters": memory_terms.adapter_bytes(shape, use, setup) / shard,
        "optimizer": memory_terms.optimizer_bytes(shape, use, setup) / shard,
        **at_peak,
        "kv_cache": parallel_memory.divided_kv_cache_bytes(shape, use, setup),
        "buckets": parallel_memory.bucket_bytes(shape, use, setup),
        "gathered": parallel_memory.gathered_bytes(shape, use, setup),
        "buffers": memory_terms.buffer_bytes(shape, use, setup),
    }
    held = sum(parts.values())
    overhead = memory_terms.overhead_bytes(held, setup, fitted, at_peak.get("activations", 0.0))
    return {**parts, "overhead": overhead}


_LOSSES = {
    "full": "loss on all logits at once",
    "chunked": "loss in chunks",
    "fused": "fused loss",
    "rows": "loss on label rows only",
}
_COUNTERS = {
    "allocated": "counts the memory of tensors",
    "reserved": "counts the memory of the allocator",
    "device": "counts what the device must have free",
    "process": "counts the whole process on a CPU",
}


def _shared_text(shape: ModelShape, use: MemoryUse, setup: MemorySetup) -> str:
    """Return how several devices share the model, in words."""
    each = f"memory of each of {setup.devices} devices"
    if use == "inference":
        return f"{each}: every matrix and the KV cache divided among them (tensor parallel)"
    if setup.parallel == "ddp":
        return f"{each}: a whole copy, plus gradients in buckets (ddp)"
    whole = ", the 4-bit weights whole in each" if use == "qlora" and setup.parallel == "fsdp" else ""
    if setup.replicas > 1:
        node = f"the {parallel_memory.shard_count(setup)} of each of {setup.replicas} nodes"
        return f"{each}: weights, gradients and optimiser sharded over {node} (fsdp){whole}"
    return f"{each}: weights, gradients and optimiser sharded over {setup.devices} (fsdp){whole}"


def _assumptions(shape: ModelShape, use: MemoryUse, setup: MemorySetup, paged: bool) -> tuple[str, ...]:
    sentences = [f"{setup.batch} x {setup.seq_len} tokens at a time"]
    if use != "inference":
        sentences.append(f"gradient checkpointing {'on' if setup.checkpointing else 'off'}")
        optimizer = memory_terms.chosen_optimizer(shape, use, setup).replace("_", " ")
        masters = ", fp32 masters" if memory_terms.holds_masters(use, setup) else ""
        sentences += [_LOSSES[setup.loss], f"optimiser {optimizer}{masters}"]
        if use != "full":
            sentences.append(
                f"rank {setup.rank} on {', '.join(setup.targets)}, adapters in {setup.adapter_dtype}"
            )
    if paged:
        sentences.append("the paged optimiser's state is in host memory")
    if setup.devices > 1:
        sentences.append(_shared_text(shape, use, setup))
    if shape.assumed:
        small = f", at the low end with a vocabulary of {SMALL_VOCAB:,}" if use == "qlora" else ""
        sentences.append(f"shape guessed from the parameter count{small}")
    if shape.experts > 1:
        adapters = "with" if shape.adapted_experts and "mlp" in setup.targets else "without"
        sentences.append(
            f"all {shape.experts} experts are in memory, {adapters} adapters and never in 4 bits; no published run of one "
            "was compared"
        )
    several = (GROUP_ACCURACY_TEXT,) if setup.devices > 1 and use != "inference" else ()
    return (*sentences, _COUNTERS[setup.counter], *several, accuracy_of(use, setup.counter).text())

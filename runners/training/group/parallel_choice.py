"""How the processes of a group share a training: whole copies (DDP) where they fit, else shards (FSDP2).

DDP keeps the weights and their state whole in every process and only averages gradients, so nothing but the gradients of
what is trained travels. FSDP2 divides weights, gradients and optimiser state and gathers each layer when it computes.
What was not tested under FSDP2 is refused by name. Imports torch for the loading only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

from rag.errors import BadInput, CannotRun
from runners.distributed.environment import WHOLE_COPIES
from runners.distributed.sharded_weights import sharded_loading_refusal, weights_gib
from runners.distributed.wrapping import WrapperKind
from runners.models.fingerprint import read_json
from runners.models.resolve import Model
from runners.plan.train_config import TrainConfig
from runners.resources.memory_estimate import fits
from runners.resources.model_shape import read_shape
from runners.training.gradient_checkpointing import largest_pass_gib

LoadKind = Literal["device", "host", "shards"]
UNTESTED_OPTIMIZERS = ("adamw_8bit", "paged_adamw_8bit", "adafactor")
"""Optimisers whose state over sharded weights was not tested: bitsandbytes' kernels and Adafactor's row and column
means read whole tensors."""
UNTESTED_VARIANTS = {
    "pissa": "decomposes the base's whole weights",
    "dora": "normalises the base's whole weights",
}


@dataclass(frozen=True, slots=True)
class ParallelChoice:
    """How the processes share a training, and why."""

    kind: WrapperKind
    processes: int
    reason: str = ""
    load: LoadKind = "device"
    """device: whole, on the device; host: whole, in the host's memory, then sharded; shards: each its own part."""
    replicas: int = 1
    """Number of nodes that hold all shards each (HSDP); 1 where they are spread over all processes."""

    @property
    def shards(self) -> int:
        """Number of processes over which the weights are divided."""
        return self.processes // self.replicas if self.kind == "fsdp" else 1


ONE_PROCESS = ParallelChoice("single", 1)


@dataclass(frozen=True, slots=True)
class GroupMemory:
    """Memory of the processes of a group, the smallest over all of them, in GiB."""

    device_gib: float
    """What one process may use of its device: of a CPU's RAM, its share among the processes of the node."""
    host_gib: float
    """What one process may use of the host's RAM."""
    node_processes: int = 0
    """Processes of each node; 0 where nodes have different numbers of them."""


def choose_parallel(
    base: Model,
    config: TrainConfig,
    longest: int,
    dtype: torch.dtype,
    own_memory: bool,
    processes: int,
    memory: GroupMemory,
) -> ParallelChoice:
    """Return how the processes share a run: ``config.parallel``, or by memory where that is auto.

    Args:
        base: The base model.
        config: Settings of the run.
        longest: Tokens of the longest row.
        dtype: Dtype the base computes in.
        own_memory: Whether the devices have memory of their own.
        processes: Number of processes.
        memory: Memory of the processes.

    Raises CannotRun for settings that were not tested under FSDP2.
    """
    if processes == 1:
        return ONE_PROCESS
    need = partial(_needed_gib, base, config, longest, dtype.itemsize == 2, own_memory)
    kind, reason = config.parallel, "asked for"
    refusal = fsdp_refusal(config, dtype)
    if kind == "auto":
        kind, reason = _by_memory(need, processes, memory)
        if kind == "fsdp" and refusal:
            kind, reason = "ddp", f"{reason}; but {refusal}"
    if kind == "ddp":
        return ParallelChoice("ddp", processes, f"ddp: {reason}")
    if refusal:
        raise CannotRun(f"parallel {kind}: {refusal}", f"{WHOLE_COPIES}; or other settings")
    load, how = _load_kind(base, config, dtype, own_memory, memory)
    nodes, where = _replicas(need, processes, memory)
    return ParallelChoice("fsdp", processes, f"fsdp: {reason}; {how}{where}", load, nodes)


def fsdp_refusal(config: TrainConfig, dtype: torch.dtype) -> str:
    """Return which setting was not tested with sharded weights, "" when all were."""
    if config.optimizer in UNTESTED_OPTIMIZERS:
        return f"optimizer {config.optimizer} was not tested with sharded weights (FSDP2)"
    if config.variant in UNTESTED_VARIANTS:
        return f"variant {config.variant} {UNTESTED_VARIANTS[config.variant]}, which FSDP2 shards: not tested"
    if dtype == torch.float16:
        return "float16 with a loss scale was not tested with sharded weights (FSDP2)"
    return ""


def _needed_gib(
    base: Model, config: TrainConfig, longest: int, half: bool, own_memory: bool, shards: int
) -> float | None:
    """Return the most GiB that one process takes with so many shards, activations recomputed if they may be.

    None where the model's config does not give its shape.
    """
    try:
        shape = read_shape(read_json(base.folder / "config.json"))
    except BadInput:
        return None
    recompute = config.checkpointing != "off"
    return largest_pass_gib(shape, config, longest, half, recompute, own_memory, shards)


def _by_memory(
    need: Callable[[int], float | None], processes: int, memory: GroupMemory
) -> tuple[Literal["ddp", "fsdp"], str]:
    """Return ddp where the run fits one device whole, else fsdp; and why. For ``need`` see :func:`_needed_gib`."""
    whole, sharded = need(1), need(processes)
    if whole is None or sharded is None:
        return "ddp", "the model's config does not give its shape, so its memory is not known"
    has = f"each process may use {memory.device_gib:.1f} GiB"
    if fits(whole, whole, memory.device_gib) == "yes":
        return "ddp", f"a whole copy takes at most {whole:.1f} GiB, {has}"
    return "fsdp", f"a whole copy takes up to {whole:.1f} GiB, a shard {sharded:.1f}, {has}"


def _replicas(need: Callable[[int], float | None], processes: int, memory: GroupMemory) -> tuple[int, str]:
    """Return the nodes that hold all shards each where that fits, 1 where the shards are spread over all; and why.

    Gathering layers within a node spares the slower link between nodes, over which gradients alone then travel.
    """
    per_node = memory.node_processes
    if per_node < 2 or per_node == processes:
        return 1, ""
    within = need(per_node)
    if within is None:
        return 1, ""
    if fits(within, within, memory.device_gib) != "yes":
        return 1, f"; sharded over all nodes: within one a process takes up to {within:.1f} GiB"
    return processes // per_node, f"; sharded within each node ({within:.1f} GiB), replicated between nodes"


def _load_kind(
    base: Model, config: TrainConfig, dtype: torch.dtype, own_memory: bool, memory: GroupMemory
) -> tuple[LoadKind, str]:
    """Return how a base that will be sharded is loaded, and why.

    Whole, if every process of the node can hold a copy in the host's memory and there is no device memory that limits
    it: then the fast path can be compared with the plain one. Raises CannotRun where neither way is possible.
    """
    if config.method == "qlora":
        return "device", "4-bit weights stay whole" if config.parallel != "fsdp_4bit" else "4-bit weights too"
    size = weights_gib(base.folder, dtype)
    room = fits(size, size, memory.host_gib) == "yes"
    if room and not own_memory:
        return "host", f"each process loads {size:.1f} GiB, then shards them"
    refusal = sharded_loading_refusal(base.folder, dtype)
    if not refusal:
        return "shards", "each process reads its own shards"
    if room:
        return "host", f"each process loads {size:.1f} GiB in the host's memory, because {refusal}"
    raise CannotRun(
        f"{base.name} cannot be read shard by shard ({refusal}), and a copy of {size:.1f} GiB for each process is "
        f"more than the {memory.host_gib:.1f} GiB of the host's memory that it may use",
        "fewer processes on a node, or a smaller model",
    )

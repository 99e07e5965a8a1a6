"""How fast GPUs exchange weights and gradients, and how long a training step of several GPUs takes.

:func:`link_of` gives the assumed bandwidth of a card, with its source; :class:`DeviceGroup` describes GPUs that train
together; :func:`step_seconds` adds computing and communication. Bytes are those of
:mod:`runners.resources.parallel_memory`. Communication may overlap with computing (FSDP gathers the next layer while one
computes, DDP reduces gradients while earlier layers go back): the low end of a step is the longer of the two alone, the
high end their sum, and the likely time the longer one and half of the other (our assumption; Answer.AI found communication
hidden on NVLink, and not on PCIe: github.com/AnswerDotAI/fsdp_qlora, benchmarks_03_2024.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from advisor.catalog import gpus
from advisor.costs.tokens import Range
from runners.resources import parallel_memory
from runners.resources.memory_terms import MemorySetup, MemoryUse, ParallelKind
from runners.resources.model_shape import ModelShape


@dataclass(frozen=True, slots=True)
class Link:
    """A connection between GPUs: gigabytes a second that each GPU sends in one direction, from data sheets."""

    name: str
    gbs: float
    source: str


NVLINKS: tuple[tuple[tuple[str, ...], Link], ...] = (
    (("B200",), Link("NVLink 5", 900, "NVIDIA B200 data sheet: 1.8 TB/s both ways")),
    (("H100 80GB", "H200", "GH200"), Link("NVLink 4", 450, "NVIDIA H100 data sheet: 900 GB/s both ways")),
    (("A100",), Link("NVLink 3", 300, "NVIDIA A100 data sheet: 600 GB/s both ways")),
    (("V100",), Link("NVLink 2", 150, "NVIDIA V100 data sheet: 300 GB/s both ways")),
    (("H100 NVL",), Link("NVLink bridge", 300, "NVIDIA H100 NVL data sheet: 600 GB/s both ways, in pairs")),
    (("MI300X",), Link("Infinity Fabric", 448, "AMD MI300X data sheet: 896 GB/s both ways to seven others")),
    (
        ("MI210", "MI250X"),
        Link("Infinity Fabric", 150, "AMD MI250X data sheet: 3 links of 100 GB/s both ways"),
    ),
)
"""Fast links inside one machine, by beginnings of card names. Assumed: the usual form, SXM or OAM boards."""
PCIE_5 = Link("PCIe 5.0 x16", 64, "PCI-SIG: 32 GT/s, 16 lanes, one direction")
PCIE_4 = Link("PCIe 4.0 x16", 32, "PCI-SIG: 16 GT/s, 16 lanes, one direction")
PCIE_5_CARDS = ("H100 PCIe", "RTX 5090", "RTX 5080", "RTX 5070", "RTX PRO 6000")
NETWORKS: tuple[tuple[tuple[str, ...], Link], ...] = (
    (
        ("B200", "H100", "H200", "GH200", "MI300X"),
        Link("400 Gb/s a GPU", 50, "torchtitan's and DGX H100 machines"),
    ),
    (("A100", "MI2"), Link("200 Gb/s a GPU", 25, "NVIDIA DGX A100 data sheet: 8 x 200 Gb/s")),
)
"""Networks between machines, by beginnings of card names."""
SLOW_NETWORK = Link("25 Gb/s a GPU", 3.125, "our assumption: 100 Gb/s for a machine of four cards")
COLLECTIVE_SHARE = Range(0.5, 0.8, 0.95)
"""Share of a fast link that collectives reach: large all-gathers of NCCL reach about .8 of NVLink (NVIDIA nccl-tests,
doc/PERFORMANCE.md, bus bandwidth); the ends are our assumption."""
PCIE_SHARE = Range(0.15, 0.4, 0.85)
"""The same over PCIe: cards without peer-to-peer send through the host's memory, older boards have fewer lanes
(Answer.AI's two 3090: LoRA by FSDP took 1.4 times DDP's time). Our assumption."""
BALANCE = Range(0.8, 0.95, 1.0)
"""Mean work of a step's devices over that of the busiest one, whose rows are the longest. Our assumption."""
FULL_PASS_TOKENS = Range(1.0, 512.0, 1024.0)
"""Tokens of a pass below which its time hardly falls: a GPU is not filled. Low is the best case. Our assumption, from
Qwen's 1.8 B model, which took 3 to 9 times the estimate with passes of 256 and 512 tokens."""
PASS_TOKENS = 2048
"""Most tokens of one forward pass, as ``micro_tokens`` has it by default."""


@dataclass(frozen=True, slots=True)
class DeviceGroup:
    """GPUs that train together, one process for each."""

    devices: int
    parallel: ParallelKind
    link: Range
    """Bytes a second that each GPU sends, as collectives reach them."""
    step_tokens: float
    """Tokens of an optimiser step, over all devices."""
    link_name: str = ""
    pass_tokens: float = PASS_TOKENS
    """Most tokens of a forward pass on one device."""


def link_of(card: gpus.GpuFacts, nodes: int = 1) -> tuple[Link, Range]:
    """Return the slowest link that a group of this card uses, and the bytes a second that collectives reach over it.

    Args:
        card: the GPU.
        nodes: machines; with several the network between them is the slowest link, as rings pass through all devices.
    """
    fast = next((link for names, link in NVLINKS if card.name.startswith(names)), None)
    slow = PCIE_5 if card.name.startswith(PCIE_5_CARDS) else PCIE_4
    inside = fast or slow
    share = COLLECTIVE_SHARE if fast else PCIE_SHARE
    if nodes > 1:
        network = next((link for names, link in NETWORKS if card.name.startswith(names)), SLOW_NETWORK)
        if network.gbs < inside.gbs * share.likely:
            inside, share = network, COLLECTIVE_SHARE
    return inside, share.times(*(inside.gbs * 1e9,) * 3)


def communication_bytes(shape: ModelShape, use: MemoryUse, group: DeviceGroup) -> float:
    """Return the bytes that each GPU sends, under ddp in an optimiser step, else in one forward and backward pass.

    Adapters have rank 16 on all linear layers.
    """
    setup = MemorySetup(devices=group.devices, parallel=group.parallel)
    if group.parallel == "ddp":
        return parallel_memory.ddp_traffic_bytes(shape, use, setup)
    return parallel_memory.fsdp_traffic_bytes(shape, use, setup)


def communication_seconds(shape: ModelShape, use: MemoryUse, group: DeviceGroup, passes: int = 1) -> Range:
    """Return the seconds of communication of one optimiser step: bytes over the bandwidth, without latencies.

    ddp: the gradients once a step. fsdp: weights and gradients in every one of the ``passes`` of a step.
    """
    sent = communication_bytes(shape, use, group) * (1 if group.parallel == "ddp" else passes)
    return Range(sent / group.link.high, sent / group.link.likely, sent / group.link.low)


def step_seconds(
    shape: ModelShape, use: MemoryUse, group: DeviceGroup, row_tokens: float, rate: Range
) -> Range:
    """Return the seconds of one optimiser step of a group.

    Rows are dealt out whole, so the busiest device computes ceil(rows / N) of them: with fewer rows than devices some have
    nothing to do. Passes that do not fill a GPU take longer for each token (:data:`FULL_PASS_TOKENS`).

    Args:
        shape: the model.
        use: how it is trained.
        group: the GPUs.
        row_tokens: tokens of a row.
        rate: tokens a second of one GPU alone.
    """
    rows = max(1.0, group.step_tokens / max(1.0, row_tokens))
    tokens = math.ceil(rows / group.devices - 1e-9) * group.step_tokens / rows
    passes = max(1, math.ceil(tokens / max(group.pass_tokens, row_tokens) - 1e-9))
    filled = [
        passes * max(tokens / passes, least)
        for least in (FULL_PASS_TOKENS.low, FULL_PASS_TOKENS.likely, FULL_PASS_TOKENS.high)
    ]
    computing = Range(
        filled[0] / rate.high / BALANCE.high,
        filled[1] / rate.likely / BALANCE.likely,
        filled[2] / rate.low / BALANCE.low,
    )
    sending = communication_seconds(shape, use, group, passes)
    longer, shorter = max(computing.likely, sending.likely), min(computing.likely, sending.likely)
    return Range(max(computing.low, sending.low), longer + shorter / 2, computing.high + sending.high)

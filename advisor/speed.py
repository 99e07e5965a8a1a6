"""How fast a device trains: FLOPs per token by method, and the FLOP/s that a device gives.

The model: every pass over the weights costs two FLOPs per parameter and token. Training makes a forward pass, a
backward pass through the activations and, where weights are trained, one for their gradients; checkpointing
repeats the forward pass. So full tuning costs 6 per parameter (Kaplan et al., arXiv 2001.08361), LoRA about 4,
and checkpointing 2 more.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from advisor.facts import gpus
from advisor.range import Range
from runners.calibrate import Speed
from runners.memory import Shape

CONSUMER = Range(0.10, 0.45, 0.80)
"""Share of the dense bf16 peak that GeForce and workstation cards give (of the FLOPs with checkpointing).

torchtune README, Llama-3.1-8B: .44-.56 on an RTX 4090 and .75 on an A6000, counted without the repeated forward
pass. The low end is a plain loop with short, padded rows.
"""
DATACENTRE = Range(0.10, 0.40, 0.65)
"""The same for data centre cards.

torchtune README, Llama-3.2-3B on an A100: .37-.63 with its attention; llm-foundry benchmarking, MPT on H100:
.27-.46 MFU, .36-.59 HFU; fms on Mistral-7B: .33; PEFT MetaMathQA on an L40S without packing: .12 (full) to .26 (LoRA).
"""
CPU_CORE = Range(15e9, 60e9, 420e9)
"""FLOP/s per core: without AVX-512, usual, and with native bf16 and rows that share their beginning.

Measured for this project on 2 cores (benchmarks/LOG.md): 150 to 410e9 a core with AVX512-BF16.
"""
APPLE = Range(0.5e12, 4e12, 16e12)
"""FLOP/s of an Apple GPU: a quarter, two fifths and three fifths of 2.6 (M1), 10 and 27 (M2 Ultra) TFLOPS."""
MEASURED = {"cpu": Range(0.25, 0.60, 1.0), "cuda": Range(0.15, 0.50, 0.85)}
"""Share of the measured matrix speed that training gives.

CPU: SmolLM2-135M LoRA ran at .35 of it with PEFT's layers, .62 with ours and .92 with the rows' common beginning
computed once (benchmarks/LOG.md). GPU: the shares above, of a matrix speed of about .8 of the peak.
"""
SLOWER = {"qlora": Range(1.02, 1.3, 2.0)}
"""QLoRA's time over LoRA's: 1.02 (H2O 7B, A10G), 1.05 (fms), 1.28 (torchtune), 1.44 (H2O, A100), 2.05 (litgpt 13B)."""
JOINED = Range(0.5, 0.85, 1.0)
"""Speed of each of several data centre cards beside one alone: torchtune's 70B LoRA on 8 A100 loses nothing."""
ON_A_BUS = Range(0.35, 0.55, 0.95)
"""The same for GeForce and workstation cards, which share a model over PCIe; it can halve them. Our assumption."""
USUAL_CORES = 8


@dataclass(frozen=True, slots=True)
class Device:
    """What trains: its FLOP/s (low, likely, high), whether it checkpoints, and where the figure comes from."""

    flops: Range
    checkpointing: bool
    said: str


def flops_per_token(shape: Shape, method: str, sequence: float, checkpointing: bool) -> float:
    """Return the FLOPs that one token of training costs.

    Attention adds 2 x layers x width x sequence to a forward pass (scores and values, half of them masked) and
    twice that backwards: 3 % of a 7B model at 1,000 tokens, 25 % at 8,000.
    """
    attention = 2.0 * shape.layers * shape.heads * shape.head_dim * sequence
    passes = (3 if method == "full" else 2) + checkpointing
    return 2.0 * multiplied(shape) * passes + attention * (3 + checkpointing)


@lru_cache(maxsize=1024)
def multiplied(shape: Shape) -> int:
    """Return the parameters that one token is multiplied with: all of a guessed shape, else blocks and head.

    The input embedding is looked up, not multiplied, and of a mixture of experts a token passes through some.
    """
    if shape.assumed:
        return shape.params
    blocks = shape.layers * sum(rows * columns for rows, columns in shape.matrices())
    return min(shape.params, blocks + shape.vocab * shape.hidden)


def tokens_per_second(shape: Shape, method: str, sequence: float, device: Device) -> Range:
    """Return the tokens a second that training reads: the high end needs no checkpointing."""
    slow = SLOWER.get(method, Range(1.0, 1.0, 1.0))
    heavy = flops_per_token(shape, method, sequence, device.checkpointing)
    light = flops_per_token(shape, method, sequence, False)
    flops = device.flops
    return Range(
        flops.low / heavy / slow.high, flops.likely / heavy / slow.likely, flops.high / light / slow.low
    )


def of_cpu(cores: int | None) -> Device:
    """Return a CPU of so many cores, 8 where unknown; our own CPU training does not checkpoint."""
    said = f"{cores} CPU cores" if cores else f"{USUAL_CORES} CPU cores (assumed)"
    n = cores or USUAL_CORES
    return Device(CPU_CORE.times(n, n, n), False, f"{said} at {CPU_CORE.likely / 1e9:g} GFLOP/s each")


def of_apple() -> Device:
    """Return an Apple GPU; which one is not known without asking it."""
    return Device(APPLE, True, f"an Apple GPU at about {APPLE.likely / 1e12:g} TFLOP/s")


def of_card(card: gpus.Gpu, count: int = 1) -> Device:
    """Return ``count`` cards of one kind."""
    return of_cards((card,), count)


@lru_cache(maxsize=256)
def of_cards(cards: tuple[gpus.Gpu, ...], count: int = 1) -> Device:
    """Return ``count`` GPUs of which only the candidates are known: the slowest to the fastest of them."""
    by_speed = sorted(cards, key=lambda card: card.tflops)
    slow, usual, fast = by_speed[0], by_speed[len(by_speed) // 2], by_speed[-1]
    flops = Range(
        slow.tflops * share(slow).low * _joined(slow, count).low,
        usual.tflops * share(usual).likely * _joined(usual, count).likely,
        fast.tflops * share(fast).high * _joined(fast, count).high,
    ).times(*(1e12 * count,) * 3)
    name = usual.name if len(cards) == 1 else f"a card of {usual.memory_gib:g} GiB such as {usual.name}"
    of_peak = f"{share(usual).likely:.0%} of its {usual.tflops:g} TFLOP/s"
    return Device(flops, True, f"{count} x {name} at {of_peak}" if count > 1 else f"{name} at {of_peak}")


def share(card: gpus.Gpu) -> Range:
    """Return the share of its peak that a card gives, by its class."""
    return CONSUMER if _consumer(card) else DATACENTRE


def _consumer(card: gpus.Gpu) -> bool:
    return card.name.startswith(("RTX", "GTX", "GeForce", "A6000"))


def _joined(card: gpus.Gpu, count: int) -> Range:
    if count == 1:
        return Range(1.0, 1.0, 1.0)
    return ON_A_BUS if _consumer(card) else JOINED


def of_measured(speed: Speed, day: str, count: int = 1, part: float = 1.0) -> Device:
    """Return this machine's device at its measured matrix speed: ``count`` of them, ``part`` of its threads."""
    dtype, best = speed.best
    gives, joined = MEASURED[speed.device], JOINED if count > 1 else Range(1.0, 1.0, 1.0)
    flops = Range(gives.low * joined.low, gives.likely * joined.likely, gives.high * joined.high)
    shown = f"{best / 1e12:.1f} TFLOP/s" if best >= 1e13 else f"{best / 1e9:,.0f} GFLOP/s"
    what = f"{count} x {speed.name}" if count > 1 else speed.name
    said = (
        f"{what}, measured here on {day}: {shown} {dtype}, of which training gives about {gives.likely:.0%}"
    )
    return Device(flops.times(*(best * count * part,) * 3), speed.device != "cpu", said)

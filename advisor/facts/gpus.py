"""Common cards: memory, bandwidth, dense bf16 speed and what an hour costs to rent."""

from __future__ import annotations

from dataclasses import dataclass

SOURCE = "vendors' data sheets; rental: typical on-demand prices of marketplace clouds, not re-checked"
DATE = "2025-09"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One card; ``tflops`` is dense bf16 (fp16 on cards without bf16), ``usd_hour`` a rental price."""

    name: str
    memory_gib: float
    bandwidth_gbs: float
    tflops: float
    usd_hour: float


GPUS: tuple[Gpu, ...] = (
    Gpu("RTX 3060", 12, 360, 51, 0.10),
    Gpu("T4", 16, 320, 65, 0.20),
    Gpu("V100", 32, 900, 125, 0.40),
    Gpu("RTX 3090", 24, 936, 71, 0.25),
    Gpu("RTX 4090", 24, 1008, 165, 0.45),
    Gpu("L4", 24, 300, 121, 0.50),
    Gpu("A10G", 24, 600, 125, 0.75),
    Gpu("A100 40GB", 40, 1555, 312, 1.10),
    Gpu("L40S", 48, 864, 362, 0.95),
    Gpu("A6000", 48, 768, 155, 0.60),
    Gpu("A100 80GB", 80, 2039, 312, 1.50),
    Gpu("H100 80GB", 80, 3350, 989, 2.50),
    Gpu("H200", 141, 4800, 989, 3.20),
    Gpu("B200", 180, 8000, 2250, 5.50),
)


def of_memory(gib: float) -> tuple[Gpu, ...]:
    """Return the cards of this memory, else those of the next larger size, else the largest."""
    sizes = sorted({gpu.memory_gib for gpu in GPUS})
    size = next((s for s in sizes if s >= gib), sizes[-1])
    return tuple(gpu for gpu in GPUS if gpu.memory_gib == size)

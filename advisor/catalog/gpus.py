"""GPUs known by name: memory, bandwidth, dense matrix speed, and what renting one costs per hour.

:func:`known_gpus` returns the list with the user's corrections, :func:`find_gpu` looks one up by the name
that a driver reports, :func:`rentable_gpus` lists those with a rental price. Each row names its source and
day.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from datetime import date
from functools import lru_cache

from runners.catalog import user_catalog


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """Data sheet and rental price of one device.

    ``memory_gib`` is the size on its label. ``tflops`` is dense bf16 (fp16 where there is no bf16) with fp32
    accumulation, as training needs it: half of what GeForce sheets print for fp16 accumulation, a quarter of
    what they print with sparsity. ``usd_hour`` is one on-demand listing, read on ``day`` at ``source``; None
    means that no dated listing was found, not that there is none. Memory, bandwidth and speed are from the
    vendor's data sheet.
    """

    name: str
    memory_gib: float
    bandwidth_gbs: float
    tflops: float
    usd_hour: float | None
    source: str
    day: date
    kind: str = "cuda"

    def age_days(self, today: date) -> int:
        """Return the age of the rental price in days."""
        return (today - self.day).days


SHEET_SOURCE = ("data sheet; no dated rental listing", date(2026, 11, 25))
AKASH = ("data sheet; rent: akash.network/pricing/gpus, from", date(2026, 9, 20))
LAMBDA = ("data sheet; rent: lambda.ai/instances", date(2026, 9, 20))
RUNPOD = ("data sheet; rent: runpod.io/pricing, secure cloud", date(2026, 11, 9))
RUNPOD_AUTUMN = ("data sheet; rent: runpod.io/pricing, secure cloud", date(2026, 9, 25))
RUNPOD_SUMMER = ("data sheet; rent: runpod.io/pricing, secure cloud", date(2026, 8, 19))
RUNPOD_SPRING = ("data sheet; rent: runpod.io/pricing, community cloud", date(2026, 3, 10))
HYPERSTACK = ("data sheet; rent: hyperstack.cloud/gpu-pricing", date(2026, 8, 26))
VERDA = ("data sheet; rent: verda.com/pricing", date(2026, 10, 29))
VAST = ("data sheet; rent: vast.ai/pricing, market price", date(2026, 6, 14))
OCEAN = ("data sheet; rent: DigitalOcean's price API", date(2026, 10, 8))
APPLE = ("apple.com specifications; fp32 speed, memory shared with the CPU", date(2026, 11, 25))

GPUS: tuple[GpuFacts, ...] = (
    GpuFacts("RTX 3070", 8, 448, 40.6, None, *SHEET_SOURCE),
    GpuFacts("RTX 3080", 10, 760, 59.5, None, *SHEET_SOURCE),
    GpuFacts("RTX 3060", 12, 360, 25.5, 0.14, *AKASH),
    GpuFacts("RTX 4070", 12, 504, 58.3, None, *SHEET_SOURCE),
    GpuFacts("T4", 16, 320, 65, 0.15, *AKASH),
    GpuFacts("V100 16GB", 16, 900, 125, 0.36, *AKASH),
    GpuFacts("RTX 4060 Ti 16GB", 16, 288, 44.1, None, *SHEET_SOURCE),
    GpuFacts("RTX 4080", 16, 717, 97.5, 0.15, *AKASH),
    GpuFacts("RTX 5070 Ti", 16, 896, 87.9, 0.16, *VAST),
    GpuFacts("RTX 5080", 16, 960, 112.6, 0.25, *VAST),
    GpuFacts("RTX 3090", 24, 936, 71, 0.16, *AKASH),
    GpuFacts("RTX 4090", 24, 1008, 165.2, 0.39, *AKASH),
    GpuFacts("L4", 24, 300, 121, 0.44, *RUNPOD_SPRING),
    GpuFacts("A10", 24, 600, 125, 1.29, *LAMBDA),
    GpuFacts("A10G", 24, 600, 70, None, *SHEET_SOURCE),
    GpuFacts("V100 32GB", 32, 900, 125, 0.17, *AKASH),
    GpuFacts("RTX 5090", 32, 1792, 209.5, 0.67, *AKASH),
    GpuFacts("A100 40GB", 40, 1555, 312, 1.99, *LAMBDA),
    GpuFacts("A40", 48, 696, 149.7, 0.44, *RUNPOD_SUMMER),
    GpuFacts("A6000", 48, 768, 154.8, 0.81, *VERDA),
    GpuFacts("L40", 48, 864, 181, 1.00, *HYPERSTACK),
    GpuFacts("L40S", 48, 864, 362, 1.09, *RUNPOD_AUTUMN),
    GpuFacts("RTX 6000 Ada", 48, 960, 364.2, None, *SHEET_SOURCE),
    GpuFacts("A100 80GB", 80, 2039, 312, 1.79, *RUNPOD),
    GpuFacts("H100 PCIe", 80, 2000, 756, 2.89, *RUNPOD),
    GpuFacts("H100 80GB", 80, 3350, 989, 3.99, *RUNPOD),
    GpuFacts("H100 NVL", 94, 3938, 835, 3.19, *RUNPOD),
    GpuFacts("RTX PRO 6000 Blackwell", 96, 1792, 503.8, 1.45, *AKASH),
    GpuFacts("GH200", 96, 4000, 989, 2.29, *LAMBDA),
    GpuFacts("H200", 141, 4800, 989, 4.45, *AKASH),
    GpuFacts("B200", 180, 8000, 2250, 5.00, *AKASH),
    GpuFacts("MI210", 64, 1638, 181, None, *SHEET_SOURCE, kind="rocm"),
    GpuFacts(
        "MI250X die", 64, 1638, 191.5, None, *SHEET_SOURCE, kind="rocm"
    ),  # a board shows up as two devices
    GpuFacts("MI300X", 192, 5300, 1307, 2.59, *OCEAN, kind="rocm"),
    GpuFacts("M1 Max 64GB", 64, 400, 10.4, None, *APPLE, kind="mps"),
    GpuFacts("M2 Ultra 192GB", 192, 800, 27.2, None, *APPLE, kind="mps"),
)
COMMON_GPUS = (
    "RTX 3060",
    "RTX 4080",
    "RTX 3090",
    "RTX 4090",
    "RTX 5090",
    "L4",
    "L40S",
    "A100 80GB",
    "H100 80GB",
    "H200",
    "MI300X",
    "M2 Ultra 192GB",
)
"""The cards that the wizard lists; any other is described by its kind and memory."""
DATE = f"{min(gpu.day for gpu in GPUS if gpu.usd_hour is not None):%Y-%m}"
"""The month of the oldest rental price in the list."""

_OTHER_CARDS = {"ti", "super", "laptop", "mobile", "max", "mig"}
"""Words that make a name that of another card."""
_TABLE = user_catalog.CatalogTable(
    section="gpus",
    key="name",
    fields={
        "name": user_catalog.read_text_value,
        "memory_gib": user_catalog.read_number,
        "bandwidth_gbs": user_catalog.read_number,
        "tflops": user_catalog.read_number,
        "usd_hour": user_catalog.read_number_or_none,
        "day": user_catalog.read_day,
        "kind": user_catalog.one_of_words("cuda", "rocm", "mps", "xpu"),
    },
    defaults={"usd_hour": None, "kind": "cuda"},
    flat=asdict,
    build=lambda values: GpuFacts(**values),
)


def known_gpus() -> tuple[GpuFacts, ...]:
    """Return the known GPUs, corrected and extended by the user's own file."""
    file = user_catalog.catalog_file()
    return GPUS if file is None else _merged(file)


def find_gpu(name: str) -> GpuFacts | None:
    """Return the GPU of this name, as in the list or as a driver reports it ("NVIDIA A100-SXM4-80GB").

    The longest known name whose words all occur in ``name`` wins. None when there is none, or when ``name``
    holds a word such as "Ti" or "Laptop" that makes it another card.
    """
    words = set(_words(name))
    best = max(
        (gpu for gpu in known_gpus() if set(_words(gpu.name)) <= words),
        key=lambda g: len(_words(g.name)),
        default=None,
    )
    if best is None or (words - set(_words(best.name))) & _OTHER_CARDS:
        return None
    return best


def gpus_of_memory(gib: float, kind: str = "cuda") -> tuple[GpuFacts, ...]:
    """Return the GPUs of this memory, else those of the next larger size, else the largest.

    Only GPUs of ``kind`` count, unless none of that kind is known.
    """
    cards = [gpu for gpu in known_gpus() if gpu.kind == kind] or list(known_gpus())
    sizes = sorted({gpu.memory_gib for gpu in cards})
    memory_gib = next((size_gib for size_gib in sizes if size_gib >= gib), sizes[-1])
    return tuple(gpu for gpu in cards if gpu.memory_gib == memory_gib)


def rentable_gpus(gib: float, kind: str = "cuda") -> tuple[GpuFacts, ...]:
    """Return the GPUs of ``kind`` with at least this memory and a rental price, cheapest first."""
    large = [gpu for gpu in known_gpus() if gpu.kind == kind and gpu.memory_gib >= gib]
    priced = [(gpu.usd_hour, gpu.name, gpu) for gpu in large if gpu.usd_hour is not None]
    return tuple(gpu for _, _, gpu in sorted(priced, key=lambda row: row[:2]))


@lru_cache(maxsize=2)
def _merged(file: user_catalog.CatalogFile) -> tuple[GpuFacts, ...]:
    return user_catalog.merge_catalog(_TABLE, GPUS, file)


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", name.casefold())

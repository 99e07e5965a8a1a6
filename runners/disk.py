"""Whether checkpoints and result fit on the disk. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from rag.errors import BadInput
from runners import machine
from runners.complaints import Check
from runners.fingerprint import read_json, tensor_sizes
from runners.machine import GIB, Found
from runners.models import Model
from runners.shape import read_shape
from runners.tuning import TrainConfig

KEPT = 4
"""Checkpoints on the disk at once: last good, best, newest, and the one being written."""
SPARE_GIB = 0.5
"""Left free on a disk: a full one harms more than this run."""


def check(base: Model, config: TrainConfig, out: Path, free: Found | None = None) -> Check:
    """Return the check of the disk that ``out`` is on, for checkpoints (fp32 weights and moments) and result."""
    need = need_gib(base, config)
    free = free or machine.disk(out)
    if free.value is None:
        return Check("PF024", "ok", f"about {need:.1f} GiB for checkpoints and result; {free.how}")
    told = f"about {need:.1f} GiB for checkpoints and result, {free.value:.1f} GiB free"
    if need + SPARE_GIB > free.value:
        return Check("PF024", "stop", told, next="free some space, or name another disk with --out")
    return Check("PF024", "ok", told)


def need_gib(base: Model, config: TrainConfig) -> float:
    """Return the most that checkpoints and result take on disk: 12 bytes per trained weight in each checkpoint."""
    params = sum(tensor_sizes(base.folder))
    try:
        shape = read_shape(read_json(base.folder / "config.json"))
        adapters = shape.adapter(config.rank)
    except BadInput:
        adapters = params // 20
    trained = params if config.method == "full" else adapters
    return (KEPT * 12 * trained + (2 if config.method == "full" else 4) * trained) / GIB

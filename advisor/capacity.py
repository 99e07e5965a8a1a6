"""The numbers at which a way of tuning begins or ceases to fit in memory, solved."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from advisor.facts import models
from advisor.profile import Profile
from advisor.row import ROW_KEYS, rows
from advisor.size import size_passes
from advisor.solver import least
from advisor.tokens import (
    training_setup,
)  # fmt: skip
from runners.machine import least_gib
from runners.memory import Memory, Setup, Shape, Use, shape_of, smallest

USES: tuple[Use, ...] = ("lora", "qlora", "full")


def capacity(p: Profile, key: str) -> Iterator[float]:
    """Yield where the memory verdict of a way of tuning changes: low end (no) and high end (tight)."""
    if key == "model_params_b":
        yield from _params(p)
        return
    shape = p.model_shape
    if shape is None or key not in ("gpu_memory_gib", "ram_gib", "gpu_count", *ROW_KEYS):
        return
    devices = max(1, p.gpu_count or 1)
    for use in USES:
        if key in ROW_KEYS:
            yield from rows(p, shape, use, key)
            continue
        if key == "gpu_count":
            if room := p.change("gpu_count", 1).device_gib:
                yield from _cards(p, shape, use, room)
            continue
        need = smallest(shape, use, training_setup(p, devices if key == "gpu_memory_gib" else 1))
        for end in (need.low, need.high):
            yield least_gib(end) if key == "gpu_memory_gib" else end / 0.9


def _cards(p: Profile, shape: Shape, use: Use, room: float) -> Iterator[float]:
    """Yield how many cards are the fewest on which a way of tuning fits, and fits with ease."""

    def low(n: float) -> bool:
        return smallest(shape, use, training_setup(p, int(n))).fits(room) != "no"

    def high(n: float) -> bool:
        return smallest(shape, use, training_setup(p, int(n))).fits(room) == "yes"

    yield least(low, 1, 4096, whole=True)
    yield least(high, 1, 4096, whole=True)


def _params(p: Profile) -> Iterator[float]:
    """Yield the sizes at which a model of typical shape stops fitting, and the reach of a known one's size."""
    known = models.find(p.model) if p.model else None
    if known:
        yield known.params_b - 0.05
        yield known.params_b + 0.05
    room = p.device_gib
    if room is None:
        return
    for use in USES:
        yield from sizes(use, training_setup(p), room)


@lru_cache(maxsize=256)
def sizes(use: Use, setup: Setup, room: float) -> tuple[float, float]:
    """Return the sizes from which a model of typical shape cannot be trained in ``room``, and may not fit."""

    def need(size: float) -> Memory:
        return smallest(shape_of(size), use, setup)

    return size_passes(lambda size: need(size).low, room), size_passes(lambda size: need(size).high, room)

"""The numbers at which a way of tuning begins or ceases to fit in memory, solved."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from advisor.facts import models
from advisor.profile import Profile
from advisor.size import size_passes
from advisor.solver import least, passes
from advisor.tokens import (
    ANSWER_TOKENS,
    MOST_TOKENS,
    PROMPT_TOKENS,
    RAW_SEQUENCE,
    row_tokens,
    setup_of,
    training_setup,
)  # fmt: skip
from runners.machine import least_gib
from runners.memory import Memory, Shape, Use, shape_of, smallest

USES: tuple[Use, ...] = ("lora", "qlora", "full")
ROW_KEYS = ("prompt_tokens", "answer_tokens")
"""Answers that make training rows longer."""


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
            yield from _rows(p, shape, use, key)
            continue
        if key == "gpu_count":
            if room := p.change("gpu_count", 1).device_gib:
                yield from _cards(p, shape, use, room)
            continue
        need = smallest(shape, use, training_setup(p, devices if key == "gpu_memory_gib" else 1))
        for end in (need.low, need.high):
            yield least_gib(end) if key == "gpu_memory_gib" else end / 0.9


def _rows(p: Profile, shape: Shape, use: Use, key: str) -> Iterator[float]:
    """Yield from how many tokens of a prompt or an answer on training rows no longer fit, or fit with ease."""
    if p.device_gib is None:
        return
    for longest in _longest(shape, use, p.devices, p.device_gib):
        yield longest - beside(p, key)


def beside(p: Profile, key: str) -> float:
    """Return the tokens of a row that are not those of ``key``: of the answer beside a prompt, or of the prompt."""
    usual = PROMPT_TOKENS if key == "prompt_tokens" else ANSWER_TOKENS
    return row_tokens(p) - (getattr(p, key) or usual)


@lru_cache(maxsize=1024)
def _longest(shape: Shape, use: Use, devices: int, room: float) -> tuple[float, float]:
    """Return the tokens of a row from which training cannot fit, and from which it may not."""

    def need(tokens: float) -> Memory:
        return smallest(shape, use, setup_of(devices, int(tokens)))

    return (
        passes(lambda n: need(n).low, room, RAW_SEQUENCE, MOST_TOKENS, whole=True),
        passes(lambda n: need(n).high, room, RAW_SEQUENCE, MOST_TOKENS, whole=True),
    )


def _cards(p: Profile, shape: Shape, use: Use, room: float) -> Iterator[float]:
    """Yield how many cards are the fewest on which a way of tuning fits, and fits with ease."""

    def low(n: float) -> bool:
        return smallest(shape, use, training_setup(p, int(n))).low <= room

    def high(n: float) -> bool:
        return smallest(shape, use, training_setup(p, int(n))).high <= room

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
    setup = training_setup(p)
    for use in USES:

        def need(size: float, use: Use = use) -> Memory:
            return smallest(shape_of(size), use, setup)

        yield size_passes(lambda size, need=need: need(size).low, room)  # type: ignore[misc]
        yield size_passes(lambda size, need=need: need(size).high, room)  # type: ignore[misc]

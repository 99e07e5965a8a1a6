"""Where memory, time and money set in: the numbers at which a way of tuning stops fitting, solved."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache

from advisor.cost import training_hours
from advisor.facts import models
from advisor.methods.blocks import MOST_CPU_HOURS
from advisor.profile import Profile
from advisor.questions import BY_ID
from advisor.rental import holds, least_usd
from advisor.solver import least, passes
from advisor.tokens import (
    ANSWER_TOKENS,
    PROMPT_TOKENS,
    RAW_SEQUENCE,
    row_tokens,
    setup_of,
    training_setup,
)
from runners.machine import least_gib
from runners.memory import Memory, Shape, Use, shape_of, smallest

_USES: tuple[Use, ...] = ("lora", "qlora", "full")
_ROW_KEYS = ("prompt_tokens", "answer_tokens")
"""Answers that make training rows longer."""
MOST_TOKENS = 10**13
"""Tokens of a row beyond which no training is asked about."""
_TIME_KEYS = (
    "labelled_examples", "unlabelled_tokens", "prompt_tokens", "answer_tokens", "model_params_b", "cpu_cores",
)  # fmt: skip


def limits(p: Profile, key: str) -> Iterator[float]:
    """Yield the values of a numeric answer at which BL002, BL003 or BL005 may begin or cease to block."""
    yield from _memory(p, key)
    if key in _TIME_KEYS and p.has_gpu is False:
        yield from _limit(p, key, _hours, MOST_CPU_HOURS)
    if key in _TIME_KEYS and p.budget_usd is not None:
        yield from _limit(p, key, _usd, p.budget_usd)
    if key == "budget_usd":
        yield from _budget(p)


def _memory(p: Profile, key: str) -> Iterator[float]:
    """Yield where the memory verdict of a way of tuning changes: low end (no) and high end (tight)."""
    if key == "model_params_b":
        yield from _params(p)
        return
    shape = p.model_shape
    if shape is None or key not in ("gpu_memory_gib", "ram_gib", "gpu_count", *_ROW_KEYS):
        return
    devices = max(1, p.gpu_count or 1)
    for use in _USES:
        if key in _ROW_KEYS:
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
    usual = PROMPT_TOKENS if key == "prompt_tokens" else ANSWER_TOKENS
    other = row_tokens(p) - (getattr(p, key) or usual)
    for longest in _longest(shape, use, p.devices, p.device_gib):
        yield longest - other


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
    for use in _USES:

        def need(size: float, use: Use = use) -> Memory:
            return smallest(shape_of(size), use, setup)

        yield passes(lambda size, need=need: need(size).low, room, 0.001, 1e5)  # type: ignore[misc]
        yield passes(lambda size, need=need: need(size).high, room, 0.001, 1e5)  # type: ignore[misc]


def _limit(p: Profile, key: str, figure: Callable[[Profile, str], float], limit: float) -> Iterator[float]:
    """Yield where a figure that grows steadily with one answer passes a limit, for each way of tuning."""
    whole = BY_ID[key].kind == "count"
    if key == "model_params_b" and not p.remote:
        p = p.change("model", None)  # a known model's shape is a span of its own: see _params
    for method in _USES:

        def at(value: float, method: str = method) -> float:
            return figure(_with(p, key, value), method)

        if key == "cpu_cores":  # the one answer with which it falls
            yield least(lambda n, at=at: at(n) <= limit, 1, 1e5, whole)  # type: ignore[misc]
        else:
            low, top = (1e-3, 1e5) if key == "model_params_b" else (1, 1e13)
            yield passes(at, limit, low, top, whole)


def _with(p: Profile, key: str, value: float) -> Profile:
    return p.change(key, int(value) if BY_ID[key].kind == "count" else value)


def _hours(p: Profile, method: str) -> float:
    """The hours that BL003 looks at; none where there is a GPU, or nothing is known."""
    hours = training_hours(p, method) if p.has_gpu is False else None
    return hours.likely if hours else 0.0


def _usd(p: Profile, method: str) -> float:
    """The money that BL005 looks at; without end where no card is known that holds the method."""
    if p.remote or p.model_shape is None:
        return 0.0
    usd = least_usd(p, method)
    if usd is None:
        return 0.0 if holds(p, method) is None else math.inf
    return usd


def _budget(p: Profile) -> Iterator[float]:
    """Yield what each way of tuning costs at least."""
    for method in _USES:
        usd = least_usd(p, method)
        if usd is not None:
            yield usd

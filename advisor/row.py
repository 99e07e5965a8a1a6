"""How long a training row may be: where it no longer fits in memory, as a prompt or an answer grows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from advisor.profile import Profile
from advisor.solver import passes
from advisor.tokens import ANSWER_TOKENS, MOST_TOKENS, PROMPT_TOKENS, RAW_SEQUENCE, row_tokens, setup_of
from runners.memory import Memory, Shape, Use, smallest

ROW_KEYS = ("prompt_tokens", "answer_tokens")
"""Answers that make training rows longer."""


def rows(p: Profile, shape: Shape, use: Use, key: str) -> Iterator[float]:
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

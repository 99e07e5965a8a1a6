"""The least that renting costs, and the size from which nothing can be rented: for who asks hundreds of times."""

from __future__ import annotations

from functools import lru_cache

from advisor.facts import own
from advisor.market import COUNTS, offers_of
from advisor.range import NOTHING, Range
from advisor.size import size_passes
from advisor.tokens import setup_of
from runners.memory import Setup, Shape, Use, shape_of, smallest


def cheapest_usd(shape: Shape, use: Use, setup: Setup, work: Range, file: own.File | None) -> float | None:
    """Return the low end of what this work costs on the machine where that is least; None when none holds it.

    The same as the least of :func:`advisor.market.holding`, but memory is only estimated for machines that
    would be cheaper than the first one that holds the use.
    """
    prices = [(work.low * each + ready, count, gib) for each, ready, count, gib in _lines(file)]
    needs: dict[int, float] = {}
    for usd, count, gib in sorted(prices):
        if count not in needs:
            needs[count] = smallest(shape, use, setup_of(count, setup.seq_len)).high
        if gib >= needs[count]:
            return usd
    return None


@lru_cache(maxsize=64)
def largest(use: Use, row: int, file: own.File | None) -> float:
    """Return from what size on, in billions, no machine for rent holds a model's training on rows of ``row`` tokens.

    More cards never need more memory each, so only as many as can be had are looked at.
    """
    setup = setup_of(max(COUNTS), row)
    room = max((one.card.memory_gib for one in offers_of(max(COUNTS), file)), default=0.0)
    return size_passes(lambda size: smallest(shape_of(size), use, setup).high, room)


@lru_cache(maxsize=4)
def _lines(file: own.File | None) -> tuple[tuple[float, float, int, float], ...]:
    """Return for every offer the low USD of work and of setting up, its cards, and the GiB of each."""
    return tuple(
        (one.usd_pflop_hour.low, one.usd(NOTHING)[0], one.count, one.card.memory_gib)
        for count in COUNTS
        for one in offers_of(count, file)
    )

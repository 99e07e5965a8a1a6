"""Where a figure passes a limit, or a condition begins to hold: exact to the last digit."""

from __future__ import annotations

import math
from collections.abc import Callable

HALVE_EVERY = 3
"""Every so many steps the span is halved, however well the guesses do, so that none goes on for long."""
LEAST_SHARE = 1e-9
"""The least share of the span by which a guess leaves its lower end."""
NEAR = 1e-6
"""Share of the value below which only halving goes on: so near, rounded figures are steps, not lines."""


def passes(
    figure: Callable[[float], float], limit: float, low: float, high: float, whole: bool = False
) -> float:
    """Return the smallest value from ``low`` to ``high`` whose figure is above ``limit``; inf when none is.

    ``figure`` never falls as its value grows; it may jump, stand still and be infinite. A guess is where the
    straight line between the ends would pass (regula falsi, with the Illinois rule: an end that stays counts
    for half). The result is exact: the next smaller whole number, or float, is not above the limit.
    """
    at_low, at_high = figure(low) - limit, figure(high) - limit
    if at_high <= 0:
        return math.inf
    if at_low > 0:
        return low
    step = stayed = 0
    while True:
        middle = float((low + high) // 2) if whole else (low + high) / 2
        if middle in (low, high):
            return high
        step += 1
        guess = middle
        if step % HALVE_EVERY and math.isfinite(at_high) and high - low > NEAR * high:
            below = min(at_low, -LEAST_SHARE * at_high)
            guess = low - below * ((high - low) / (at_high - below))
        at = _inside(guess, low, high, whole)
        found = figure(at) - limit
        if found > 0:
            high, at_high = at, found
            stayed = max(stayed, 0) + 1
            at_low = at_low / 2 if stayed > 1 else at_low
        else:
            low, at_low = at, found
            stayed = min(stayed, 0) - 1
            at_high = at_high / 2 if stayed < -1 else at_high


def least(holds: Callable[[float], bool], low: float, high: float, whole: bool = False) -> float:
    """Return the smallest value between ``low`` and ``high`` at which a monotone condition holds; else inf.

    By halving: to the next whole number, or to the next number that a float can hold.
    """
    if not holds(high):
        return math.inf
    if holds(low):
        return low
    while True:
        middle = float((low + high) // 2) if whole else (low + high) / 2
        if middle in (low, high):
            return high
        if holds(middle):
            high = middle
        else:
            low = middle


def _inside(guess: float, low: float, high: float, whole: bool) -> float:
    """Return the guess, or the nearest value that lies strictly between the ends."""
    if whole:
        return min(max(float(math.floor(guess)), low + 1), high - 1)
    return min(max(guess, math.nextafter(low, math.inf)), math.nextafter(high, -math.inf))

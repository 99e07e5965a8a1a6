"""Where a figure passes a limit, or a condition begins to hold: exact to the last digit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

HALVE_EVERY = 3
"""Every so many steps the span is halved, however well the guesses do, so that none goes on for long."""
CLOSE = 0.01
"""How far above a first guess that was too low is looked next, as a share of it: it is often nearly right."""
LEAST_SHARE = 1e-9
"""The least share of the span by which a guess leaves its lower end."""
FAR = 4.0
"""How many times the lower end the upper one is when they lie far apart: then powers of ten are halved."""
NEAR = 1e-6
"""Share of the value below which only halving goes on: so near, rounded figures are steps, not lines."""


def passes(
    figure: Callable[[float], float], limit: float, low: float, high: float, whole: bool = False,
    hints: Iterable[float] = (),
) -> float:  # fmt: skip
    """Return the smallest value from ``low`` to ``high`` whose figure is above ``limit``; inf when none is.

    ``figure`` never falls as its value grows; it may jump, stand still and be infinite. A guess is where the line
    between the ends would pass (regula falsi, with the Illinois rule: an end that stays counts for half). The
    result is exact: the next smaller whole number, or float, is not above the limit. ``hints`` are numbers at
    which the figure may jump over it: each and the one before are looked at first; a wrong one costs two looks.
    """
    at_low, at_high = figure(low) - limit, figure(high) - limit
    if at_high <= 0:
        return math.inf
    if at_low > 0:
        return low
    first = [each for hint in hints for each in (hint - 1, hint)]
    step = stayed = 0
    while True:
        middle = _middle(low, high, whole)
        if middle in (low, high):
            return high
        at = middle
        first = [each for each in first if low < each < high]
        if first:
            at = first.pop()
        else:
            step += 1
            straight = at_low < 0 and math.isfinite(at_high)  # at the limit a rounded figure stands still
            if step == 2 and stayed < 0:
                at = min(low * (1 + CLOSE), middle)
            elif step % HALVE_EVERY and straight and high - low > NEAR * high:
                below = min(at_low, -LEAST_SHARE * at_high)
                at = low - below * ((high - low) / (at_high - below))
        at = _inside(at, low, high, whole)
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
        middle = _middle(low, high, whole)
        if middle in (low, high):
            return high
        if holds(middle):
            high = middle
        else:
            low = middle


def _middle(low: float, high: float, whole: bool) -> float:
    """Return where to look between the ends: half-way in powers of ten while these lie far apart."""
    if 0 < low < high / FAR:
        middle = math.sqrt(low * high)
        return float(math.floor(middle)) if whole else middle
    return float((low + high) // 2) if whole else (low + high) / 2


def _inside(guess: float, low: float, high: float, whole: bool) -> float:
    """Return the guess, or the nearest value that lies strictly between the ends."""
    if whole:
        return min(max(float(math.floor(guess)), low + 1), high - 1)
    return min(max(guess, math.nextafter(low, math.inf)), math.nextafter(high, -math.inf))

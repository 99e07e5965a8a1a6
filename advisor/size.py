"""Where a figure passes a limit as a model of typical shape grows: solved in whole parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from advisor.solver import passes


def size_passes(figure: Callable[[float], float], limit: float, hints: Iterable[float] = ()) -> float:
    """Return the smallest model, in billions of parameters, whose figure is above ``limit``; inf when none is.

    ``figure`` is that of a typical shape, which knows whole parameters only: these are solved for, from a
    million to 1e14, and the result is the smallest float that means as many. ``hints`` are sizes at which the
    figure may jump over the limit, as for :func:`advisor.solver.passes`.
    """
    params = passes(lambda n: figure(_size(n)), limit, 1e6, 1e14, True, [hint * 1e9 + 0.5 for hint in hints])
    return _size(params) if math.isfinite(params) else math.inf


def _size(params: float) -> float:
    """Return the smallest number of billions that :func:`runners.shape.shape_of` takes for so many parameters."""
    size = params / 1e9
    while int(size * 1e9) < params:
        size = math.nextafter(size, math.inf)
    while int((before := math.nextafter(size, 0.0)) * 1e9) >= params:
        size = before
    return size

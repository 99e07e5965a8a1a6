"""Several tests at once: Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence


def holm(chances: Sequence[float]) -> list[float]:
    """Adjust p-values so that all together mislead at most as often as one would (Holm 1979), in the given order.

    The smallest is multiplied by their number, the next by one less and so on; none falls below one before it.
    """
    adjusted = [0.0] * len(chances)
    reached = 0.0
    for rank, place in enumerate(sorted(range(len(chances)), key=lambda n: chances[n])):
        reached = max(reached, min(1.0, chances[place] * (len(chances) - rank)))
        adjusted[place] = reached
    return adjusted

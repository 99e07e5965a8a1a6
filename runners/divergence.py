"""When a loss has gone astray: judged from the losses so far alone, so that a resumed run judges the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import takewhile
from statistics import median

TIMES = 4.0
"""So many times the running median is astray; a hard batch of good data stays below it."""
SUSTAINED = 5
"""So many steps in a row stop the run: single spikes are ordinary and pass."""
WINDOW = 50
"""Steps of the running median."""
SETTLED = 8
"""Steps before a run has a median to speak of."""

LEAST = 20
"""Steps under which a tenth of them is one step, whose own rows say more than how far the run is."""


def astray(losses: Sequence[float]) -> int:
    """Return how many of the last steps, at most SUSTAINED, lie above both the bound and where the run began."""
    if len(losses) <= SETTLED:
        return 0
    before = losses[max(0, len(losses) - SUSTAINED - WINDOW) : -SUSTAINED]
    bound = max(TIMES * median(before), *losses[:SETTLED])
    last = reversed(losses[max(SETTLED, len(losses) - SUSTAINED) :])
    return sum(1 for _ in takewhile(lambda loss: loss > bound, last))


def reason(losses: Sequence[float], norm: float) -> str:
    """Say why the run has to stop after its last step, "" when it has not to; ``norm`` is the gradient's."""
    if not math.isfinite(losses[-1]):
        return f"the loss is {losses[-1]}"
    if not math.isfinite(norm):
        return f"the gradient's norm is {norm}"
    if astray(losses) >= SUSTAINED:
        return (
            f"the loss is {losses[-1]:.3g}, for {SUSTAINED} steps above {TIMES:g} times its median and above "
            "where it began"
        )
    return ""


def rose(first: float, last: float, steps: int) -> str:
    """Say that the loss ended above where it began, by the means of its first and last tenth, else ""."""
    if steps < LEAST or last <= first:
        return ""
    return f"the loss rose from {first:.3g} to {last:.3g}: lower the learning rate"

"""Which rows make up which optimiser step, and at what rate: planned once, the same on every resume.

The seed alone decides: pass ``n`` draws its order from a generator of its own, seeded "SEED/n", that nothing else
draws from. So a run that is gone on with needs to know how many steps it has done, and no more.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

LENGTH_JITTER = 0.1
"""Share by which lengths are blurred before grouping, so that passes do not see the same batches again."""


def plan_steps(lengths: Sequence[int], batch_tokens: int, epochs: float, seed: int) -> list[list[list[int]]]:
    """Return the passes of a run; a pass is its optimiser steps; a step is the rows it trains on.

    Rows of nearly equal length share a step, because then hardly anything is padding; steps come in random
    order and hold about equally many real tokens. A fractional last pass takes the first part of its steps.
    """
    passes = []
    for epoch in range(math.ceil(epochs)):
        order = random.Random(f"{seed}/{epoch}")
        steps = _epoch(lengths, batch_tokens, order)
        order.shuffle(steps)
        passes.append(steps[: max(1, round(min(1.0, epochs - epoch) * len(steps)))])
    return passes


def micro_batches(rows: Sequence[int], lengths: Sequence[int], most: int) -> list[list[int]]:
    """Split a step's rows, shortest first, into forward passes of at most ``most`` padded tokens."""
    found: list[list[int]] = []
    for row in sorted(rows, key=lambda i: (lengths[i], i)):
        if found and (len(found[-1]) + 1) * lengths[row] <= most:
            found[-1].append(row)
        else:
            found.append([row])
    return found


def learning_rate_factor(step: int, steps: int, schedule: str, warmup: float) -> float:
    """Return the factor on the learning rate at a step (from 0): warm-up, then the schedule."""
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    if schedule == "constant":
        return 1.0
    done = (step - rising) / max(1, steps - rising)
    return 0.5 * (1 + math.cos(math.pi * done)) if schedule == "cosine" else 1 - done


def _epoch(lengths: Sequence[int], batch_tokens: int, order: random.Random) -> list[list[int]]:
    blurred = [
        (length * (1 + order.uniform(-LENGTH_JITTER, LENGTH_JITTER)), i) for i, length in enumerate(lengths)
    ]
    total = sum(lengths)
    share = total / max(1, math.ceil(total / batch_tokens))
    steps: list[list[int]] = [[]]
    full = 0.0
    for _, row in sorted(blurred):
        if steps[-1] and full + lengths[row] / 2 > share * len(steps):
            steps.append([])
        steps[-1].append(row)
        full += lengths[row]
    return steps

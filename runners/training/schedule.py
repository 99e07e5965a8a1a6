"""The plan of a run: which rows each optimiser step trains on, and its learning rate.

The plan depends on the seed alone: pass ``n`` draws its order from a generator of its own, seeded "SEED/n", that
nothing else draws from. So a resumed run needs to know how many steps are done, and no more.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

LENGTH_JITTER = 0.1
"""Largest relative noise on lengths before rows are grouped, so that no two passes have the same batches."""


def plan_steps(lengths: Sequence[int], batch_tokens: int, epochs: float, seed: int) -> list[list[list[int]]]:
    """Return the passes of a run, each a list of optimiser steps, each a list of row indexes.

    Rows of nearly equal length share a step, because then hardly anything is padding; steps come in random order and
    hold about equally many tokens without padding. A fractional last pass takes the first part of its steps.

    Args:
        lengths: Number of tokens of each row.
        batch_tokens: Most tokens of a step, on average.
        epochs: Number of passes, fractions allowed.
        seed: Seed of the plan.
    """
    passes = []
    for epoch in range(math.ceil(epochs)):
        order = random.Random(f"{seed}/{epoch}")
        steps = _epoch(lengths, batch_tokens, order)
        order.shuffle(steps)
        passes.append(steps[: max(1, round(min(1.0, epochs - epoch) * len(steps)))])
    return passes


def micro_batches(rows: Sequence[int], lengths: Sequence[int], most: int) -> list[list[int]]:
    """Split a step's rows, shortest first, into forward passes of at most ``most`` padded tokens.

    A row longer than that has a forward pass of its own.
    """
    batches: list[list[int]] = []
    for row in sorted(rows, key=lambda i: (lengths[i], i)):
        # The row that is added is the longest so far, to which the others would be padded.
        if batches and (len(batches[-1]) + 1) * lengths[row] <= most:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def learning_rate_factor(step: int, steps: int, schedule: str, warmup: float) -> float:
    """Return the factor on the learning rate at a step: linear warm-up, then the schedule.

    Args:
        step: The step, from 0.
        steps: Number of steps of the run.
        schedule: constant, cosine or linear.
        warmup: Share of the steps in which the rate rises.
    """
    rising = round(warmup * steps)
    if step < rising:
        # Neither 0 at the first step, which would be wasted, nor 1 before the warm-up has ended.
        return (step + 1) / (rising + 1)
    if schedule == "constant":
        return 1.0
    done = (step - rising) / max(1, steps - rising)
    return 0.5 * (1 + math.cos(math.pi * done)) if schedule == "cosine" else 1 - done


def _epoch(lengths: Sequence[int], batch_tokens: int, order: random.Random) -> list[list[int]]:
    """Return the steps of one pass: rows sorted by length with noise, cut into steps of about equal tokens."""
    blurred = [
        (length * (1 + order.uniform(-LENGTH_JITTER, LENGTH_JITTER)), i) for i, length in enumerate(lengths)
    ]
    total = sum(lengths)
    share = total / max(1, math.ceil(total / batch_tokens))
    steps: list[list[int]] = [[]]
    placed = 0.0  # tokens of the rows so far
    for _, row in sorted(blurred):
        # A row belongs to the step in whose share of all tokens its middle is.
        if steps[-1] and placed + lengths[row] / 2 > share * len(steps):
            steps.append([])
        steps[-1].append(row)
        placed += lengths[row]
    return steps

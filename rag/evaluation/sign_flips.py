"""One-sided tests of many sums at once by changing the signs of whole units: :func:`sign_flip_family`."""

from __future__ import annotations

import numpy as np

from rag.evaluation.clusters import MIN_SPREAD

MOST_ENUMERATED = 12
"""Units with differences up to which all sign changes are tried: 4,096 of them."""
DRAWS = 9_999
"""Random sign changes of more units."""


def sign_flip_family(table: np.ndarray, seed: int = 0) -> list[float]:
    """Return the adjusted one-sided p-values of sums below 0: step-down min-p over sign changes of whole units.

    Exact under the hypothesis that each unit's column of differences is as likely with the opposite sign. All sign changes
    are tried for at most :data:`MOST_ENUMERATED` units that differ; else :data:`DRAWS` random ones, and the observed one
    counts with them, so that p is never 0 (Phipson and Smyth 2010).

    Args:
        table: differences summed over each unit, float [tests, units].
        seed: of the random sign changes.
    """
    moving = table[:, np.abs(table).max(axis=0, initial=0.0) > MIN_SPREAD]
    tests, units = moving.shape
    if not units:
        return [1.0] * tests
    if units <= MOST_ENUMERATED:
        bits = (np.arange(2**units)[:, None] >> np.arange(units)) & 1
        signs = 1.0 - 2.0 * bits  # the first row is the observed one
    else:
        rng = np.random.default_rng(seed)
        signs = np.vstack([np.ones(units), rng.choice(np.array([-1.0, 1.0]), (DRAWS, units))])
    sums = np.round(moving @ signs.T, 9)  # [tests, sign changes]; equal sums must not differ by rounding
    ordered = np.sort(sums, axis=1)
    chances = np.stack([np.searchsorted(ordered[n], sums[n], side="right") for n in range(tests)]) / len(
        signs
    )
    order = np.argsort(chances[:, 0], kind="stable")
    adjusted = [1.0] * tests
    largest = 0.0
    for rank, test in enumerate(order):
        smallest = chances[order[rank:]].min(axis=0)
        largest = max(largest, float((smallest <= chances[test, 0] + 1e-12).mean()))
        adjusted[test] = largest
    return adjusted

"""Agreement of two orders of arms, against values counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.made_questions import ArmValues, kendall_tau, pooled_agreement


def values(real: list[float], made: list[float]) -> ArmValues:
    """Arms with the given means, each on four questions of equal score."""
    sides = [np.repeat(np.array(side)[:, None], 4, axis=1) for side in (real, made)]
    return ArmValues(tuple("abcd"[: len(real)]), sides[0], sides[1], frozenset({(0, 2)}))


def test_pairs_are_counted_by_their_order() -> None:
    # real a < b < c = d: five pairs have an order; made a < b, a = c, a < d, b > c, b < d
    arms = values([0.1, 0.2, 0.5, 0.5], [0.1, 0.2, 0.1, 0.3])
    assert arms.pair_counts().tolist() == [3, 1, 1]
    assert arms.pair_counts(only_sure=True).tolist() == [0, 0, 1]
    assert kendall_tau([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)
    assert kendall_tau([1, 2], [1, 1]) == 0


def test_sets_are_pooled_by_their_pairs() -> None:
    pooled = pooled_agreement([values([0.1, 0.2, 0.3], [0.1, 0.2, 0.3]), values([0.1, 0.2], [0.2, 0.1])])
    assert pooled["pairs"] == [3, 1, 0]
    assert pooled["pairs_share"] == [0.75, [0.0, 1.0]]
    assert pooled["sure_pairs_share"][0] == 1.0
    assert pooled["mean_tau"][0] == 0.0

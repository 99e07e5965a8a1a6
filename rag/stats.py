"""Paired statistics over questions: intervals and tests on the same items. Heavy: imports scipy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

RESAMPLES = 10_000
NO_SPREAD = 1e-9
"""Values closer than this differ by rounding only; the bootstrap's acceleration is undefined there."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Paired:
    """How much `a` is above arm `b` on the same questions, and how surely."""

    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float


def interval(values: Sequence[float], seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Mean and BCa bootstrap 95 % interval (Efron 1987); no spread or a single value gives low = high = mean."""
    data = np.asarray(values, dtype=float)
    if data.size == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    mean = float(data.mean())
    if np.ptp(data) < NO_SPREAD:
        return Interval(mean, mean, mean)
    found = stats.bootstrap(
        (data,),
        np.mean,
        n_resamples=resamples,
        method="BCa",
        vectorized=True,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high))


def paired(a: str, b: str, of_a: Sequence[float], of_b: Sequence[float], seed: int = 0) -> Paired:
    """Paired bootstrap interval and sign-flip permutation test of the mean difference a - b.

    The two sequences hold the same questions in the same order; ValueError when their lengths differ.
    """
    if len(of_a) != len(of_b):
        raise ValueError(f"{a} has {len(of_a)} questions, {b} has {len(of_b)}")
    differences = np.asarray(of_a, dtype=float) - np.asarray(of_b, dtype=float)
    found = interval(differences.tolist(), seed)
    if differences.size < 2 or np.all(np.abs(differences) < NO_SPREAD):
        p = 1.0
    else:
        p = float(
            stats.permutation_test(
                (differences,),
                np.mean,
                permutation_type="samples",
                vectorized=True,
                n_resamples=RESAMPLES,
                rng=np.random.default_rng(seed),
            ).pvalue
        )
    return Paired(a, b, found.mean, found.low, found.high, p)

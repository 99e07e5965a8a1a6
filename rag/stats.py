"""Paired statistics over questions: intervals and tests on the same items. Heavy: imports scipy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def against(
    b: str,
    of_b: Sequence[float],
    others: Mapping[str, Sequence[float]],
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[Paired, ...]:
    """Compare many candidates with one on the same questions, as ``paired`` does for one, corrected for their number.

    All candidates are resampled together and every difference is taken in units of its own spread; the largest
    of them sets the width (max-T: Westfall and Young 1993). So with 95 % all intervals hold at once, and ``p``
    is the chance that any candidate would come out this far above ``b`` if none were better. Candidates that
    are much alike cost little. Ask for both, ``low`` above 0 and a small ``p``: where no candidate was better, of
    300 simulated sets of 15 to 150 questions and 5 to 100 candidates, up to 8 % had a ``low`` above 0 (with 15
    questions), up to 5 % a ``p`` of .05.
    """
    if any(len(values) != len(of_b) for values in others.values()):
        raise ValueError(f"a candidate does not have the {len(of_b)} questions of {b}")
    if not others or not len(of_b):
        return ()
    table = np.asarray(list(others.values()), dtype=float) - np.asarray(of_b, dtype=float)
    rng = np.random.default_rng(seed)
    means = table.mean(axis=1)
    width = _spread_of_largest(table, means, rng, resamples)
    chances = _chances(table, rng, resamples)
    return tuple(
        Paired(a, b, float(mean), float(mean - half), float(mean + half), float(p))
        for a, mean, half, p in zip(others, means, width, chances, strict=True)
    )


def _spread_of_largest(
    table: np.ndarray, means: np.ndarray, rng: np.random.Generator, resamples: int
) -> np.ndarray:
    """Return each candidate's half width, so that all intervals hold together; ``table`` is [candidates, questions]."""
    questions = table.shape[1]
    weights = rng.multinomial(questions, np.full(questions, 1 / questions), resamples) / questions
    off = np.abs(table @ weights.T - means[:, None])
    spread = np.sqrt((off**2).mean(axis=1))
    moving = spread > NO_SPREAD
    if not moving.any():
        return np.zeros(len(means))
    return np.asarray(np.quantile((off[moving] / spread[moving, None]).max(axis=0), 0.95) * spread)


def _chances(table: np.ndarray, rng: np.random.Generator, resamples: int) -> np.ndarray:
    """Return the chance of a candidate as far above 0 when the sign of every question's differences is a coin's."""
    scale = np.sqrt((table**2).sum(axis=1))
    moving = scale > NO_SPREAD
    if not moving.any():
        return np.ones(len(table))
    signs = rng.choice(np.array([-1.0, 1.0]), (resamples, table.shape[1]))
    unit = table[moving] / scale[moving, None]
    largest = (unit @ signs.T).max(axis=0)
    chances = np.ones(len(table))
    reached = (largest[None, :] >= unit.sum(axis=1)[:, None] - NO_SPREAD).sum(axis=1)
    chances[moving] = (1 + reached) / (1 + resamples)
    return chances

"""How the questions of a log differ from those of a file: a two-sample test, and the clusters that the file does
not ask about.

The test is that of the energy distance between the two sets of vectors (Szekely and Rizzo 2013), with its p-value
by permutation. Different questions count once each on both sides, so it says whether they ask about other things;
how often each is asked is in the clusters' shares.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runners.logs.groups import QuestionGroups

COMPARED = 500
"""Most questions of each side in the test."""
MIN_COMPARED = 5
PERMUTATIONS = 999
LEVEL = 0.01
INSIDE = 0.05
"""Share of a cluster's own questions that may be farther from its centre than a question that is said to be in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogDifference:
    """How a log's questions differ from a file's."""

    log: int
    """Questions of the log in the test."""
    file: int
    distance: float | None
    """Energy distance, 0 where both have one distribution; None with too few questions on one side."""
    p: float | None
    missed: tuple[int, ...]
    """Clusters of the log that no question of the file lies in, the one that is asked most first."""
    missed_share: float
    """Share of all that was asked that is in these."""
    outside: int
    """Questions of the file that lie in no cluster of the log."""

    @property
    def differs(self) -> bool:
        """Whether they surely differ."""
        return self.p is not None and self.p <= LEVEL


def compare_with_log(
    log: np.ndarray, groups: QuestionGroups, file: np.ndarray, seed: int = 0
) -> LogDifference:
    """Compare the questions of a file with those of a log.

    Args:
        log: unit vectors of the log's different questions, float32 [questions, dimension].
        groups: their clusters.
        file: unit vectors of the file's questions.
        seed: of the samples and permutations.
    """
    covered, inside = _covered(log, groups, file)
    missed = tuple(n for n in range(groups.count) if n not in covered)
    rng = np.random.default_rng(seed)
    first, second = (
        part[np.sort(rng.permutation(len(part))[:COMPARED])] if len(part) else part for part in (log, file)
    )
    distance = p = None
    if min(len(first), len(second)) >= MIN_COMPARED:
        distance, p = energy_test(first, second, rng)
    return LogDifference(
        log=len(first),
        file=len(second),
        distance=distance,
        p=p,
        missed=missed,
        missed_share=sum(groups.shares[n] for n in missed),
        outside=len(file) - inside,
    )


def _covered(log: np.ndarray, groups: QuestionGroups, file: np.ndarray) -> tuple[set[int], int]:
    """Return the clusters that questions of a file lie in, and how many of these questions lie in one.

    A question lies in the cluster of the nearest centre, if it is no farther from it than nearly all of the
    cluster's own.
    """
    if not len(file):
        return set(), 0
    own = np.einsum("nd,nd->n", log, groups.centres[groups.of])
    least = np.array([np.quantile(own[groups.of == n], INSIDE) for n in range(groups.count)])
    near = file @ groups.centres.T
    nearest = near.argmax(axis=1)
    lies = near[np.arange(len(file)), nearest] >= least[nearest] - 1e-6
    return set(map(int, nearest[lies])), int(lies.sum())


def energy_test(first: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Return the energy distance of two samples and its p-value by permutation (Phipson and Smyth 2010: never 0)."""
    pooled = np.concatenate([first, second]).astype(np.float64)
    distances = np.sqrt(np.maximum(0.0, 2 - 2 * pooled @ pooled.T))  # of unit vectors
    np.fill_diagonal(distances, 0.0)
    n, m = len(first), len(second)
    labels = np.zeros((PERMUTATIONS + 1, n + m))
    labels[0, :n] = 1
    for row in range(1, PERMUTATIONS + 1):
        labels[row, rng.permutation(n + m)[:n]] = 1
    to_first = labels @ distances
    within_first = (to_first * labels).sum(axis=1) / n**2
    between = (to_first * (1 - labels)).sum(axis=1) / (n * m)
    within_second = (((1 - labels) @ distances) * (1 - labels)).sum(axis=1) / m**2
    energy = 2 * between - within_first - within_second
    return float(energy[0]), float((energy >= energy[0] - 1e-12).sum() / (PERMUTATIONS + 1))

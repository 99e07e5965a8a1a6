"""Questions of a log grouped by meaning, and a sample of them that keeps how often each is asked.

:func:`group_questions` clusters vectors by k-means (scikit-learn); :func:`sample_by_frequency` draws with chances
in proportion to frequency, and gives each drawn one the weight that makes weighted means those of the whole log
(Horvitz and Thompson 1952).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from runners.logs.distinct import DistinctQuestion

if TYPE_CHECKING:
    from collections.abc import Mapping

FULL_KMEANS = 10_000
"""Questions up to which k-means looks at all of them in each step; of more it takes mini-batches (Sculley 2010)."""
BATCH = 4_096
STARTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionGroups:
    """The clusters of questions, the one that is asked most first."""

    of: np.ndarray
    """The cluster of each question, int [questions]."""
    centres: np.ndarray
    """Unit vectors, float32 [clusters, dimension]."""
    shares: tuple[float, ...]
    """Share of all that was asked, by cluster."""

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.shares)


def group_count(questions: int, wanted: int) -> int:
    """Return how many clusters are made: the square root of half the questions (Mardia, Kent and Bibby 1979).

    They are at most half of the rows that are wanted, so that a cluster can have two.

    Args:
        questions: different questions of the log.
        wanted: rows of the file.
    """
    return max(1, min(round(math.sqrt(questions / 2)), max(1, wanted // 2), questions))


def group_questions(vectors: np.ndarray, asked: Sequence[float], count: int, seed: int = 0) -> QuestionGroups:
    """Cluster questions by meaning.

    Args:
        vectors: unit vectors, float32 [questions, dimension].
        asked: how often each question was asked: the shares of the clusters. A question weighs the same in the clustering
            however often it was asked, so that a frequent one does not get several clusters.
        count: clusters wanted; equal vectors may give fewer.
        seed: of the first centres.
    """
    from sklearn.cluster import KMeans, MiniBatchKMeans

    count = min(count, len(np.unique(vectors, axis=0)))
    if len(vectors) <= FULL_KMEANS:
        model = KMeans(count, n_init=STARTS, random_state=seed)
    else:
        model = MiniBatchKMeans(count, n_init=STARTS, batch_size=BATCH, random_state=seed)
    labels = np.asarray(model.fit_predict(vectors))
    mass = np.bincount(labels, np.asarray(asked, dtype=float), minlength=count)
    order = [int(n) for n in np.argsort(-mass, kind="stable") if (labels == n).any()]
    centres = model.cluster_centers_[order]
    lengths = np.linalg.norm(centres, axis=1, keepdims=True)
    number = np.zeros(count, dtype=int)
    number[order] = np.arange(len(order))
    return QuestionGroups(
        of=number[labels],
        centres=(centres / np.maximum(lengths, 1e-12)).astype(np.float32),
        shares=tuple(float(mass[n] / mass.sum()) for n in order),
    )


def rows_by_group(groups: QuestionGroups, wanted: int) -> list[int]:
    """Return how many rows each cluster gets: one, and the rest by its share of what was asked (as seats by votes).

    A cluster gets no more rows than it has questions.
    """
    sizes = np.bincount(groups.of, minlength=groups.count)
    rows = [1] * groups.count
    for _ in range(min(wanted, int(sizes.sum())) - groups.count):
        # the next row goes where a row stands for most of what was asked (divisors of Webster and Sainte-Lague)
        not_full = (n for n in range(groups.count) if rows[n] < sizes[n])
        rows[max(not_full, key=lambda n: groups.shares[n] / (rows[n] + 0.5))] += 1
    return rows


def sample_by_frequency(asked: Sequence[float], wanted: int, seed: int = 0) -> Mapping[int, float]:
    """Draw positions with chances in proportion to how often each was asked; return the weight of each one drawn.

    Systematic sampling with probability proportional to size: what is asked more often than a row stands for is
    drawn for sure and keeps its own frequency; each other one drawn stands for an equal part of the rest. The
    weights add up to all that was asked.
    """
    sizes = np.asarray(asked, dtype=float)
    if wanted >= len(sizes):
        return {n: float(size) for n, size in enumerate(sizes)}
    order = [int(n) for n in np.argsort(-sizes, kind="stable")]
    rest, left = float(sizes.sum()), wanted
    weights: dict[int, float] = {}
    while sizes[order[len(weights)]] >= rest / left:
        surely = order[len(weights)]
        weights[surely] = float(sizes[surely])
        rest, left = rest - sizes[surely], left - 1
    rng = np.random.default_rng(seed)
    others = rng.permutation(np.array(order[len(weights) :]))
    step = rest / left
    ends = np.cumsum(sizes[others])
    marks = (rng.random() + np.arange(left)) * step
    drawn = others[np.minimum(np.searchsorted(ends, marks, side="right"), len(others) - 1)]
    return weights | {int(n): step for n in drawn}


def select_questions(
    questions: Sequence[DistinctQuestion], groups: QuestionGroups, wanted: int, seed: int = 0
) -> list[tuple[int, float]]:
    """Return position and weight of the questions to take: every cluster has one, and the weights are those of the
    log.
    """
    rows = rows_by_group(groups, wanted)
    chosen: list[tuple[int, float]] = []
    for group, count in enumerate(rows):
        members = [int(n) for n in np.flatnonzero(groups.of == group)]
        drawn = sample_by_frequency([questions[n].asked for n in members], count, seed + group)
        chosen += [(members[n], weight) for n, weight in drawn.items()]
    return sorted(chosen, key=lambda pair: (-pair[1], pair[0]))

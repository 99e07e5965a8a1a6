"""Paired statistics over questions: confidence intervals, tests and shares of counted cases.

:func:`bootstrap_interval` gives a mean with its BCa bootstrap interval (Efron 1987), :func:`paired_test` compares two
arms on the same questions with a sign-flip permutation test, :func:`compare_with_many` compares one baseline with many
candidates at once (max-T: Westfall and Young 1993) and :func:`holm_correction` adjusts several p-values (Holm 1979).
Questions about one document are not independent: the bootstrap draws and the test flips whole documents, and few
documents have the interval of Student's t (:mod:`rag.evaluation.clusters`). :class:`WilsonShare` is a share of counted
cases with its Wilson score interval (Wilson 1927), :func:`clustered_share` one of answers that share documents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rag.evaluation.clusters import (
    LEVEL,
    MIN_CLUSTERS,
    MIN_SPREAD,
    Clusters,
    cluster_by_document,
    clustered_error,
    document_groups,
    linearised,
    student_p,
    student_quantile,
)
from rag.text.words import count_noun

RESAMPLES = 10_000
MAX_DRAWN_VALUES = 5_000_000
"""Values drawn at a time, so that thousands of questions do not need gigabytes."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference:
    """By how much arm ``a`` scores above arm ``b`` on the same questions, with interval and p-value."""

    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float
    error: float = float("nan")
    """Standard error of the difference; nan if it was not computed."""
    questions: int = 0
    units: int = 0
    """How many units were drawn and flipped: documents, or questions where each is its own unit."""
    p_holm: float = float("nan")
    """``p`` corrected for the comparisons that were made together with it; nan without a correction."""
    labels: int | None = None
    """People's labels that it rests on beside a judge's grades; None where it is of computed scores."""


@dataclass(frozen=True, slots=True)
class WilsonShare:
    """How many of n cases hold, with the 95 % Wilson score interval (Wilson 1927), which is valid for small n."""

    hits: int
    n: int
    low: float
    high: float

    @classmethod
    def of(cls, hits: int, n: int) -> WilsonShare:
        """Return the share ``hits`` of ``n``; with n = 0 the interval is 0 to 1.

        Raises:
            ValueError: unless 0 <= hits <= n.
        """
        if not 0 <= hits <= n:
            raise ValueError(f"{hits} of {n} is no share")
        if n == 0:
            return cls(0, 0, 0.0, 1.0)
        from scipy.stats import binomtest

        interval = binomtest(hits, n).proportion_ci(0.95, method="wilson")
        return cls(hits, n, float(interval.low), float(interval.high))

    @property
    def rate(self) -> float | None:
        """The share itself; None if nothing was counted."""
        return self.hits / self.n if self.n else None

    def above(self, threshold: float) -> bool:
        """Return whether the whole interval is above a threshold."""
        return self.n > 0 and self.low > threshold

    def below(self, threshold: float) -> bool:
        """Return whether the whole interval is below a threshold."""
        return self.n > 0 and self.high < threshold

    def text(self) -> str:
        """Return the count with its interval, in words; never a percentage alone."""
        if not self.n:
            return "none asked"
        return f"{self.hits} of {self.n} (95 % interval {self.low:.0%} to {self.high:.0%})"

    def short(self) -> str:
        """Return the count with its interval, as a table shows it."""
        return f"{self.hits} of {self.n}  {self.low:.0%}–{self.high:.0%}" if self.n else "–"

    def to_json(self) -> dict[str, Any]:
        """Return count and interval as JSON values."""
        rate = None if self.rate is None else round(self.rate, 4)
        return {
            "hits": self.hits,
            "n": self.n,
            "rate": rate,
            "low": round(self.low, 4),
            "high": round(self.high, 4),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskPoint:
    """One threshold on a risk-coverage curve (El-Yaniv and Wiener 2010)."""

    coverage: float
    """Share of all questions that are answered."""
    risk: WilsonShare
    """How many of the answered ones have no answer."""


def risk_coverage(
    refused: Sequence[tuple[float, float]], answerable: int, unanswerable: int
) -> list[RiskPoint]:
    """Return the points of some thresholds by ascending coverage; one that answers nothing has none.

    Args:
        refused: shares of the unanswerable and of the answerable questions that each threshold refuses.
        answerable: number of questions with an answer.
        unanswerable: number of those without one.
    """
    points = []
    for right, wrong in sorted(set(refused), reverse=True):
        bad = round((1 - right) * unanswerable)
        answered = bad + round((1 - wrong) * answerable)
        if answered:
            coverage = answered / (answerable + unanswerable)
            points.append(RiskPoint(coverage=coverage, risk=WilsonShare.of(bad, answered)))
    return sorted(points, key=lambda point: point.coverage)


def bootstrap_interval(
    values: Sequence[float],
    seed: int = 0,
    resamples: int = RESAMPLES,
    documents: Sequence[str | None] | None = None,
    weights: Sequence[float] = (),
) -> Interval:
    """Return the mean with its BCa bootstrap 95 % interval (Efron 1987).

    With the ``documents`` of the values, those of one document are drawn together, and the acceleration comes from
    leaving out whole documents. A bootstrap of documents is too narrow (it divides by their number and takes their
    spread as known), so the level is raised to what Student's t requires (Hesterberg 2015). Of effectively fewer than
    :data:`rag.evaluation.clusters.FEW_CLUSTERS` it is the interval of Student's t over documents, with the effective
    number less one as degrees of freedom, cut to what scores (0 to 1) or their differences (-1 to 1) can be.

    Args:
        values: one score for each question.
        seed: of the random draws; equal values and seed give equal intervals.
        resamples: how many bootstrap samples are drawn.
        documents: the document of each value, None to treat all values as independent.
        weights: the weight of each value, of which ``values`` are linearised
            (:func:`rag.evaluation.clusters.linearised`); () when all are equal. With them there is no bootstrap, as draws
            of a few large weights are too much alike: the interval is :func:`clustered_share`'s for values between 0 and 1,
            and that of Student's t at the effective number (Kish 1965) for others.

    Returns:
        The interval; low = high = mean for a single value or values without spread, all nan without values.

    Raises:
        ValueError: if there are not as many documents as values.
    """
    data = np.asarray(values, dtype=float)
    if data.size == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    mean = float(data.mean())
    if np.ptp(data) < MIN_SPREAD:
        return Interval(mean, mean, mean)
    groups = document_groups(data, documents, weights)
    if groups is None:
        bounds = _bca((data,), np.mean, seed, resamples, LEVEL)
    elif groups.weights is not None and is_share(data, groups.weights):
        return clustered_share(data.tolist(), documents, LEVEL, weights)
    elif groups.few or groups.weights is not None:
        bounds = _student(data, groups)
    else:
        # the mean over questions is a ratio of two sums over documents: scores, and numbers of questions
        sums, sizes = _per_group(data, groups)
        bounds = _bca((sums, sizes), _ratio, seed, resamples, _widened(groups.units))
    return Interval(mean, *bounds)


def clustered_share(
    values: Sequence[float],
    documents: Sequence[str | None] | None = None,
    level: float = LEVEL,
    weights: Sequence[float] = (),
) -> Interval:
    """Return the mean of values between 0 and 1 with the Wilson score interval at their effective number.

    The effective number is that of independent values with the same standard error: share * (1 - share) / error², with
    the error clustered by document (Korn and Graubard 1998), at most the number of values. Unlike a bootstrap, the
    interval has a width where all values are 0 or 1; there the effective number is that of the documents. With few
    documents the normal quantile gives way to that of Student's t, as in :func:`bootstrap_interval`.

    Args:
        values: one for each question, between 0 and 1; those between come from several seeds.
        documents: the document of each value, None to treat all values as independent.
        level: confidence level of the interval, two-sided.
        weights: as in :func:`bootstrap_interval`; with them the quantile is always that of Student's t.

    Returns:
        The interval; all nan without values.

    Raises:
        ValueError: if there are not as many documents as values.
    """
    from scipy import stats

    data = np.asarray(values, dtype=float)
    if data.size == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    mean = float(data.mean())
    groups = document_groups(data, documents, weights)
    error = clustered_error(data, groups)
    weighted = groups is not None and groups.weights is not None
    effective = float(data.size if documents is None else cluster_by_document(documents).units)
    effective = min(effective, groups.effective) if groups is not None and weighted else effective
    z = float(stats.norm.ppf(0.5 + level / 2))
    if error > MIN_SPREAD:
        effective = min(float(data.size), max(1.0, mean * (1 - mean) / error**2))
    if groups is not None and (weighted or (error > MIN_SPREAD and groups.few)):
        z = student_quantile(groups, level)
    centre = (mean + z**2 / (2 * effective)) / (1 + z**2 / effective)
    half = z / (1 + z**2 / effective) * np.sqrt(mean * (1 - mean) / effective + z**2 / (4 * effective**2))
    # at shares of 0 and 1 the bound is exact; computed, it would be off by rounding
    low = 0.0 if mean <= MIN_SPREAD else float(centre - half)
    return Interval(mean, low, 1.0 if mean >= 1 - MIN_SPREAD else float(centre + half))


def paired_test(
    a: str,
    b: str,
    of_a: Sequence[float],
    of_b: Sequence[float],
    seed: int = 0,
    documents: Sequence[str | None] | None = None,
    above: float = 0.0,
    resamples: int = RESAMPLES,
    weights: Sequence[float] = (),
) -> PairedDifference:
    """Compare two arms on the same questions: bootstrap interval and sign-flip test of the mean difference a - b.

    Differences of one document are drawn, and flipped, together. Of fewer than :data:`MIN_CLUSTERS` documents
    ``p`` is that of Student's t over documents, of two or fewer it is 1: whatever was seen, nothing is sure.

    Args:
        a: name of the first arm.
        b: name of the second arm.
        of_a: scores of ``a``, one for each question.
        of_b: scores of ``b`` on the same questions in the same order.
        seed: of the random draws.
        documents: the document of each question, None to treat all questions as independent.
        above: the difference under the null hypothesis; ``p`` is two-sided.
        resamples: how many bootstrap samples and sign flips are drawn.
        weights: the weight of each question in the mean difference; () when all are equal.

    Raises:
        ValueError: if the lengths differ.
    """
    if len(of_a) != len(of_b):
        raise ValueError(f"{a} has {count_noun(len(of_a), 'question')}, {b} has {len(of_b)}")
    differences = np.asarray(of_a, dtype=float) - np.asarray(of_b, dtype=float)
    flipped = differences - above
    if len(weights):
        flipped = flipped * np.asarray(weights, dtype=float) / np.mean(weights)
        differences = np.array(linearised(differences.tolist(), weights))
    interval = bootstrap_interval(differences.tolist(), seed, resamples, documents, weights)
    groups = document_groups(differences, documents, weights)
    error = clustered_error(differences, groups)
    clusters = None if documents is None else cluster_by_document(documents, weights)
    p, units = _paired_p(flipped, error, groups, clusters, seed, resamples)
    return PairedDifference(
        a=a,
        b=b,
        difference=interval.mean,
        low=interval.low,
        high=interval.high,
        p=p,
        error=error,
        questions=differences.size,
        units=units,
    )


def _paired_p(
    differences: np.ndarray,
    error: float,
    groups: Clusters | None,
    clusters: Clusters | None,
    seed: int,
    resamples: int,
) -> tuple[float, int]:
    """Return the two-sided p of a mean difference of 0, and the number of units that it rests on."""
    if clusters is not None and not clusters.by_document:
        return 1.0, max(1, int(clusters.effective))
    if groups is None:
        return _sign_flip_p(differences, seed, resamples), differences.size
    if groups.units < MIN_CLUSTERS:
        lower = student_p(-np.abs(differences.mean(keepdims=True)), np.array([error]), groups.effective)
        return float(min(1.0, 2 * lower[0])), groups.units
    # one sign for each document: the sum of its differences changes sign as a whole
    return _sign_flip_p(np.bincount(groups.index, differences), seed, resamples), groups.units


def _sign_flip_p(differences: np.ndarray, seed: int, resamples: int) -> float:
    """Return the two-sided p-value of a sign-flip test of the mean; 1 where nothing differs."""
    if differences.size < 2 or np.all(np.abs(differences) < MIN_SPREAD):
        return 1.0
    from scipy import stats

    tested = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",  # with one sample scipy flips signs
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, MAX_DRAWN_VALUES // differences.size),
        rng=np.random.default_rng(seed),
    )
    return float(tested.pvalue)


def compare_with_many(
    b: str,
    of_b: Sequence[float],
    others: Mapping[str, Sequence[float]],
    seed: int = 0,
    resamples: int = RESAMPLES,
    documents: Sequence[str | None] | None = None,
) -> tuple[PairedDifference, ...]:
    """Compare many candidates with one on the same questions, corrected for the number of candidates.

    All candidates are resampled together and every difference is divided by its own spread; the largest of them sets
    the width (max-T: Westfall and Young 1993). So all intervals hold at once with 95 %, and ``p`` is the chance that
    any candidate would come out this far above ``b`` if none were better. Candidates that are much alike cost little.
    Require both ``low`` above 0 and a small ``p``: where no candidate was better, of 300 simulated sets of 15 to 150
    questions and 5 to 100 candidates, up to 8 % had a ``low`` above 0 (with 15 questions), up to 5 % a ``p`` of .05.
    With ``documents`` the test flips whole documents; the intervals stay those of single questions.

    Args:
        b: name of the one that the candidates are compared with.
        of_b: its scores, one for each question.
        others: scores of each candidate by its name, on the same questions in the same order.
        seed: of the random draws.
        resamples: how many bootstrap samples and sign flips are drawn.
        documents: the document of each question, None to treat all questions as independent; of two documents or fewer
            every p is 1.

    Raises:
        ValueError: if a candidate has another number of questions.
    """
    if any(len(values) != len(of_b) for values in others.values()):
        raise ValueError(f"a candidate does not have the {count_noun(len(of_b), 'question')} of {b}")
    if not others or not len(of_b):
        return ()
    table = np.asarray(list(others.values()), dtype=float) - np.asarray(of_b, dtype=float)
    rng = np.random.default_rng(seed)
    means = table.mean(axis=1)
    width = _spread_of_largest(table, means, rng, resamples)
    units = cluster_by_document(documents if documents is not None else [None] * len(of_b))
    flipped = table if units.single else np.stack([np.bincount(units.index, row) for row in table])
    chances = _chances(flipped, rng, resamples) if units.by_document else np.ones(len(table))
    return tuple(
        PairedDifference(
            a=a, b=b, difference=float(mean), low=float(mean - half), high=float(mean + half), p=float(p)
        )
        for a, mean, half, p in zip(others, means, width, chances, strict=True)
    )


def holm_correction(chances: Sequence[float]) -> list[float]:
    """Return p-values adjusted so that all tests together err at most as often as one would (Holm 1979), in input order.

    The smallest is multiplied by the number of tests, the next by one less and so on; none falls below the one before.
    """
    adjusted = [0.0] * len(chances)
    largest = 0.0
    for rank, position in enumerate(sorted(range(len(chances)), key=lambda n: chances[n])):
        # the running maximum keeps the adjusted values in the order of the raw ones; a probability is at most 1
        largest = max(largest, min(1.0, chances[position] * (len(chances) - rank)))
        adjusted[position] = largest
    return adjusted


def _per_group(data: np.ndarray, groups: Clusters) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum of the values and the number of values of each group, both float [groups]."""
    return np.bincount(groups.index, data), groups.sizes


def _ratio(sums: np.ndarray, sizes: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the mean over all values of the drawn groups: sum of sums over sum of sizes."""
    return np.asarray(sums.sum(axis=axis) / sizes.sum(axis=axis))


def _widened(units: int) -> float:
    """Return the confidence level that widens a bootstrap over ``units`` groups to Student's t (Hesterberg 2015).

    The bootstrap's spread is too small by sqrt((n - 1) / n) and its quantiles are the normal ones. The level returned
    is the one whose normal quantile equals t(n - 1) * sqrt(n / (n - 1)).
    """
    from scipy import stats

    student = stats.t.ppf(0.5 + LEVEL / 2, units - 1) * np.sqrt(units / (units - 1))
    return float(2 * stats.norm.cdf(student) - 1)


def is_share(data: np.ndarray, weights: np.ndarray) -> bool:
    """Return whether the values of which these are linearised, by weights of mean 1, are between 0 and 1."""
    values = data.mean() + (data - data.mean()) / weights
    return bool(values.min() >= -MIN_SPREAD and values.max() <= 1 + MIN_SPREAD)


def _student(data: np.ndarray, groups: Clusters) -> tuple[float, float]:
    """Return the bounds of Student's t over documents, within what such values can be."""
    mean, half = float(data.mean()), student_quantile(groups) * clustered_error(data, groups)
    largest = 1.0 if np.abs(data).max() <= 1.0 else np.inf
    smallest = 0.0 if largest == 1.0 and data.min() >= 0 else -largest
    return max(smallest, mean - half), min(largest, mean + half)


def _bca(
    data: tuple[np.ndarray, ...], statistic: Callable[..., Any], seed: int, resamples: int, level: float
) -> tuple[float, float]:
    """Return the bounds of scipy's BCa bootstrap interval; several arrays are resampled by the same indices."""
    from scipy import stats

    interval = stats.bootstrap(
        data,
        statistic,
        n_resamples=resamples,
        batch=max(1, MAX_DRAWN_VALUES // data[0].size),
        method="BCa",
        vectorized=True,
        paired=len(data) > 1,
        confidence_level=level,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def _spread_of_largest(
    table: np.ndarray, means: np.ndarray, rng: np.random.Generator, resamples: int
) -> np.ndarray:
    """Return each candidate's half width, so that all intervals hold together; ``table`` is [candidates, questions]."""
    questions = table.shape[1]
    # a bootstrap sample as weights: how often each question was drawn, [resamples, questions]; one draw for all candidates
    weights = rng.multinomial(questions, np.full(questions, 1 / questions), resamples) / questions
    deviations = np.abs(table @ weights.T - means[:, None])  # [candidates, resamples]
    spread = np.sqrt((deviations**2).mean(axis=1))
    # a candidate that never differs from the baseline has no spread to divide by, and an interval without width
    moving = spread > MIN_SPREAD
    if not moving.any():
        return np.zeros(len(means))
    # 95 % of the resamples have every candidate within this many of its own spreads
    return np.asarray(np.quantile((deviations[moving] / spread[moving, None]).max(axis=0), 0.95) * spread)


def _chances(table: np.ndarray, rng: np.random.Generator, resamples: int) -> np.ndarray:
    """Return each candidate's one-sided max-T p-value [candidates] under random signs of each unit's differences."""
    scale = np.sqrt((table**2).sum(axis=1))  # the spread of a sum of differences with random signs
    moving = scale > MIN_SPREAD
    if not moving.any():
        return np.ones(len(table))
    # one sign for all candidates' differences on a question keeps their correlation
    signs = rng.choice(np.array([-1.0, 1.0]), (resamples, table.shape[1]))
    unit = table[moving] / scale[moving, None]
    largest = (unit @ signs.T).max(axis=0)
    chances = np.ones(len(table))
    # rounding must not make an equal sum count as smaller
    reached = (largest[None, :] >= unit.sum(axis=1)[:, None] - MIN_SPREAD).sum(axis=1)
    # the observed signs count as one of the resamples, so p is never 0 (Phipson and Smyth 2010)
    chances[moving] = (1 + reached) / (1 + resamples)
    return chances

"""Values that are not independent: questions that share documents, and wordings of one question.

Questions about one document succeed and fail together, so a mean over them varies with the documents.
:func:`cluster_by_document` says which values are drawn and flipped together, :func:`clustered_error` gives the
standard error over documents, :func:`student_quantile` and :func:`student_p` the interval and the test of few documents.
How often two equal arms come out as surely different with few documents: ``python -m benchmarks.simulated_verdicts``.
:func:`mean_by_question` makes the values of a question's wordings one value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from rag.text.words import count_noun

MIN_CLUSTERS = 6
"""Fewest documents whose differences are tested by changing their signs, else by Student's t: with n documents the
smallest two-sided p of a sign-flip test is 2 / 2**n, so five could never reach p = .05."""
FEW_CLUSTERS = 10
"""Effective documents below which an interval is Student's t over documents, and no bootstrap."""
ENOUGH_ABOVE = 2.0
"""Effective documents that say nothing about others: the test of their differences gives p = 1, so that nothing is sure."""
MIN_FREEDOM = 0.5
"""Fewest degrees of freedom of Student's t, where one question has nearly all of the weight."""
LEVEL = 0.95
MIN_SPREAD = 1e-9
"""Values closer than this differ by rounding only; the bootstrap's acceleration is undefined there."""


@dataclass(frozen=True, slots=True)
class Clusters:
    """The units that are drawn and flipped together: whole documents, or single questions if these are two or fewer."""

    index: np.ndarray
    """The unit of each question, int [questions], counted from 0."""
    documents: int
    """How many documents the questions come from; a question without one counts as its own."""
    units: int
    single: bool
    """Whether every question is its own unit."""
    effective: float
    """Effective number of documents: their number if all have as many questions, 1 if one has all (Kish 1965)."""
    weights: np.ndarray | None = None
    """The weight of each question, 1 on average; None where all are equal."""

    @property
    def few(self) -> bool:
        """Whether the units are documents, or weighted questions, and fewer than a bootstrap needs."""
        return not (self.single and self.weights is None) and self.effective < FEW_CLUSTERS

    @property
    def sizes(self) -> np.ndarray:
        """The questions of each unit, by their weights, float [units]."""
        return np.bincount(self.index, self.weights).astype(float)

    @property
    def by_document(self) -> bool:
        """Whether the units are documents; if not, a result says nothing about other documents than these."""
        return self.units == self.documents


def cluster_by_document(documents: Sequence[str | None], weights: Sequence[float] = ()) -> Clusters:
    """Group questions by their documents; a question without a document is its own group.

    What decides is the effective number of groups, n² over the sum of squared group sizes (Kish 1965): forty questions
    about one document and ten about others are hardly eleven groups. Up to :data:`ENOUGH_ABOVE` every question is its
    own unit: an interval then holds for these documents and no others.

    Args:
        documents: the document of each question; None or "" for a question without one.
        weights: the weight of each question, which count in the place of questions; () when all are equal.
    """
    scaled = np.asarray(weights, dtype=float) / np.mean(weights) if len(weights) else None
    units: dict[str, int] = {}
    # "=name" and "#row" are kept apart, so that a document named "#1" is not taken for the question in row 1
    index = np.array(
        [units.setdefault(f"={d}" if d else f"#{n}", len(units)) for n, d in enumerate(documents)],
        dtype=int,
    )
    sizes = np.bincount(index, scaled) if index.size else np.zeros(0)
    count = len(units)
    if count == index.size and scaled is None:
        return Clusters(index, count, count, True, float(count))
    effective = index.size**2 / float((sizes**2).sum()) if index.size else 0.0
    if count == index.size:
        return Clusters(index, count, count, True, effective, scaled)
    if effective <= ENOUGH_ABOVE:
        return Clusters(np.arange(index.size), count, int(index.size), True, effective, scaled)
    return Clusters(index, count, count, False, effective, scaled)


def document_groups(
    data: np.ndarray, documents: Sequence[str | None] | None, weights: Sequence[float] = ()
) -> Clusters | None:
    """Return the documents' groups; None if every value is its own unit, or if all of many groups have one mean.

    With weights there always are groups, which may be of one question each.
    """
    if documents is None and not len(weights):
        return None
    documents = [None] * data.size if documents is None else documents
    if len(documents) != data.size:
        raise ValueError(f"{data.size} values of {count_noun(len(documents), 'document')}")
    clusters = cluster_by_document(documents, weights)
    if clusters.few:
        return clusters
    # groups with one common mean have no spread between them: drawn whole, they would look like certainty
    if clusters.single or np.all(np.abs(np.bincount(clusters.index, data - data.mean())) < MIN_SPREAD):
        return None if clusters.weights is None else cluster_by_document([None] * data.size, weights)
    return clusters


def clustered_error(data: np.ndarray, groups: Clusters | None) -> float:
    """Return the mean's standard error, clustered if there are groups (Liang and Zeger 1986); nan for one unit.

    With residuals r summed in each of G units and n values: sqrt(G / (G - 1) * sum(r²)) / n. Where every value is its
    own unit, G = n and this is the usual standard deviation / sqrt(n). With few groups or with weights it is that of the
    jackknife, and at least that of single values: by luck the means of three documents come close together.
    """
    residuals = data - data.mean() if data.size else data
    alone = _error_of_sums(residuals, data.size)
    if groups is None:
        return alone
    sums = np.bincount(groups.index, residuals)
    if groups.weights is not None:
        # the values' own spread, in which a large weight counts once, over their effective number
        spread = (residuals**2 / groups.weights).mean()
        alone = max(alone, float(np.sqrt(spread * (groups.weights**2).mean() / data.size)))
    return (
        max(_error_of_sums(sums * pull(groups), data.size), alone)
        if groups.few or groups.weights is not None
        else _error_of_sums(sums, data.size)
    )


def pull(groups: Clusters) -> np.ndarray:
    """Return by how much each group's residual is enlarged, float [units]: a large document pulls the mean to itself.

    Leaving a group of share h out moves the mean by its residual over 1 - h (jackknife: Bell and McCaffrey 2002); with
    groups of one size every factor is 1.
    """
    shares = groups.sizes / groups.index.size
    return np.asarray((1 - 1 / groups.units) / np.maximum(1 - shares, MIN_SPREAD))


def _error_of_sums(residuals: np.ndarray, count: int) -> float:
    if residuals.size < 2:
        return float("nan")
    return float(np.sqrt(residuals.size / (residuals.size - 1) * (residuals**2).sum()) / count)


def student_quantile(groups: Clusters, level: float = LEVEL) -> float:
    """Return the standard errors to each side of an interval of this confidence level over few documents."""
    from scipy.special import stdtrit

    return float(stdtrit(max(groups.effective - 1, MIN_FREEDOM), 0.5 + level / 2))


def student_p(means: np.ndarray, errors: np.ndarray, effective: float) -> np.ndarray:
    """Return the chance of a mean as low as each, or lower, by Student's t over documents if the true one is 0.

    Args:
        means: float [tests].
        errors: their standard errors, clustered by document; 0 where nothing differs between questions.
        effective: the effective number of documents, above 1.
    """
    from scipy.special import stdtr  # scipy.stats takes a second to import

    steps = np.divide(means, errors, out=np.copysign(np.inf, means), where=errors > MIN_SPREAD)
    return np.asarray(stdtr(effective - 1, np.where(np.abs(means) < MIN_SPREAD, 0.0, steps)))


def linearised(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Return values whose plain mean is the weighted mean, and whose spread is that of the weighted mean.

    ``m + w (x - m)`` with the weighted mean m and weights of mean 1: Taylor linearisation of a ratio of two sums. The
    products ``w x`` alone would vary with the weights even where all values are equal.

    Args:
        values: the values.
        weights: the weight of each; () when all are 1.
    """
    if not weights:
        return list(values)
    mean = sum(w * x for w, x in zip(weights, values, strict=True)) / sum(weights)
    scale = len(values) / sum(weights)
    return [mean + scale * w * (x - mean) for w, x in zip(weights, values, strict=True)]


def mean_by_question(
    values: Sequence[float], originals: Sequence[str], weights: Sequence[float] = ()
) -> list[float]:
    """Return one value for each question: the mean over its wordings.

    Where questions have unequal weights or numbers of wordings the values are linearised (:func:`linearised`), so that their
    plain mean is always the mean of all values. Wordings of one question are not independent: statistics take the questions.

    Args:
        values: the values.
        originals: the id of the question itself for each value.
        weights: the weight of each value; () when all are equal.
    """
    means, sizes = weighted_questions(values, originals, weights)
    return linearised(means, sizes if len(set(sizes)) > 1 else ())


def weighted_questions(
    values: Sequence[float], originals: Sequence[str], weights: Sequence[float] = ()
) -> tuple[list[float], list[float]]:
    """Return the mean over its wordings, and the sum of their weights, of each question; parameters as before."""
    groups: dict[str, list[float]] = {}
    sums: dict[str, list[float]] = {}
    for question, value, weight in zip(originals, values, weights or [1] * len(values), strict=True):
        groups.setdefault(question, []).append(value)
        sums.setdefault(question, []).append(weight)
    return list(map(fmean, groups.values())), list(map(sum, sums.values()))

"""The difference of two arms by people's labels of some rows and a judge's grades of all: prediction-powered inference.

:func:`prediction_powered` estimates the mean difference of two arms over all rows asked. The judge's difference stands
in for people's where there is no label, and is corrected by how far the two are apart where there is one (Angelopoulos
et al. 2023, arXiv 2301.09633), power-tuned (arXiv 2311.01453), for labels drawn with known unequal chances
(arXiv 2403.03208). It is the augmented inverse-probability estimate with the line ``intercept + tuning * predicted``:
right whatever the judge does, and narrower the better the line predicts people's labels.

:func:`priority_order` is the order in which rows are labelled, :func:`label_chances` the chance of each row to be among
the labelled first ones (sequential Poisson sampling: Ohlsson 1998; priority sampling: Duffield, Lund and Thorup 2007).
Simulated: ``python -m benchmarks.simulated_judges``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from rag.evaluation.clusters import (
    LEVEL,
    MIN_FREEDOM,
    MIN_SPREAD,
    Clusters,
    cluster_by_document,
    clustered_error,
    document_groups,
    linearised,
    pull,
    weighted_questions,
)
from rag.evaluation.statistics import PairedDifference
from rag.text.words import count_noun

MIN_LABELS = 3
"""Fewest labels with an interval: two are used up by the line."""
RIGHT_FROM = 0.75
"""Grades from here on are right: "partly" (.5) is not, and of two people who disagree by one grade the mean is."""
GRADE_STEP = 0.5
"""The difference of neighbouring grades; by so much the one further label that widens the error is off the line."""
LOOKS = 6
"""By how much the level is divided where one may look after any number of labels from 30 on and stop: of equal arms then
about one in twenty are called apart (``benchmarks.simulated_judges --part looks``)."""
STATED_POWER = 0.8
"""Probability that the further labels of :func:`labels_needed` decide, if the true difference is the one seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledDifferences:
    """What is known of two arms' answers, one entry for each row asked; rows that people skipped are left out."""

    labels: Sequence[float | None]
    """People's grade of a's answer less that of b's; None where there is no label, 0 where the answers are equal."""
    predicted: Sequence[float]
    """The judge's difference."""
    chances: Sequence[float]
    """The chance of having been labelled, in (0, 1]; 1 where both answers are equal."""
    questions: Sequence[str]
    """The original question of each row, which wordings share."""
    sources: Sequence[str | None]
    """Its document."""
    weights: Sequence[float]
    same: Sequence[bool] = ()
    """Whether both answers are equal, so that no label was needed; () where none are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionPowered:
    """By how much arm a is above b, of people's labels and a judge's grades."""

    difference: float
    low: float
    high: float
    p: float
    """Two-sided, of a difference of ``above``."""
    error: float
    questions: int
    units: int
    labels: int
    """Rows that people labelled and on which the answers differ."""
    tuning: float
    """How much the judge counts: the slope of people's differences on the judge's, 0 (not at all) to 1."""
    alone: float
    """Width of the interval by the labels alone."""

    @property
    def width(self) -> float:
        """Width of the interval."""
        return self.high - self.low

    def paired(self, a: str, b: str) -> PairedDifference:
        """Return it as the paired difference of two arms."""
        return PairedDifference(
            a=a,
            b=b,
            difference=self.difference,
            low=self.low,
            high=self.high,
            p=self.p,
            error=self.error,
            questions=self.questions,
            units=self.units,
            labels=self.labels,
        )


@dataclass(frozen=True, slots=True)
class _Table:
    """The rows as arrays, each float or bool [rows]."""

    labels: np.ndarray
    """0 where there is none."""
    known: np.ndarray
    counted: np.ndarray
    """Labelled by people, on answers that differ."""
    predicted: np.ndarray
    chances: np.ndarray
    weights: np.ndarray
    """1 on average."""


@dataclass(frozen=True, slots=True)
class _Estimate:
    difference: float
    error: float
    freedom: float
    tuning: float
    fresh: float
    """The part of the error that one further label makes."""
    residuals: np.ndarray
    """People's difference less that of the line fitted without it, 0 without a label, float [rows]."""
    units: int
    certain: bool
    """Whether it says something about other documents than these."""


def prediction_powered(
    rows: LabelledDifferences, above: float = 0.0, level: float = LEVEL, any_time: bool = False
) -> PredictionPowered:
    """Estimate the difference of two arms over all rows.

    With the line ``g = intercept + tuning * predicted`` each row has the value ``g + [labelled] (label - g) / chance``; the
    difference is their weighted mean. Wordings of a question are one value, and documents are clusters where they repeat
    (:mod:`rag.evaluation.clusters`). The line is fitted to the labels by least squares, each weighted by its part in the
    variance, and the tuning is cut to 0 to 1. The error takes each label's residual from a line without it (Long and Ervin
    2000, HC3), and one further label that is off by a grade: where few labels differ from the line, their number varies
    much. The interval is that of Student's t with the labelled units, by their weights, as degrees of freedom.

    Args:
        rows: what is known of the two arms.
        above: the difference under the null hypothesis of ``p``.
        level: confidence level of the interval.
        any_time: whether people may look at any time and stop labelling, as :func:`any_time_level` has it: interval, error
            and ``p`` allow for it until all rows are labelled.

    Returns:
        The estimate; with fewer than :data:`MIN_LABELS` labels and rows without one its interval is -1 to 1 and p is 1.

    Raises:
        ValueError: if there are not as many entries of each kind, none at all, chances outside of (0, 1], or a chance of 1
            without a label.
    """
    table = _table_of(rows)
    count = int(table.counted.sum())
    if count < MIN_LABELS and not table.known.all():
        difference = float((table.weights * table.predicted).mean())
        return PredictionPowered(
            difference=difference,
            low=-1.0,
            high=1.0,
            p=1.0,
            error=float("nan"),
            questions=len(set(rows.questions)),
            units=0,
            labels=count,
            tuning=0.0,
            alone=2.0,
        )
    tuned, alone = _estimate(rows, table, tune=True), _estimate(rows, table, tune=False)
    looks = LOOKS if any_time and not table.known.all() else 1
    wider = any_time_level(level) if looks > 1 else level
    (low, high), (low_alone, high_alone) = (_bounds(one, wider) for one in (tuned, alone))
    normal = NormalDist()
    return PredictionPowered(
        difference=tuned.difference,
        low=low,
        high=high,
        p=min(1.0, looks * _two_sided(tuned, above)),
        error=tuned.error * normal.inv_cdf(0.5 + wider / 2) / normal.inv_cdf(0.5 + level / 2),
        questions=len(set(rows.questions)),
        units=tuned.units,
        labels=count,
        tuning=tuned.tuning,
        alone=high_alone - low_alone,
    )


def any_time_level(level: float = LEVEL) -> float:
    """Return the confidence level that an interval needs to hold whenever one looks at it and stops labelling.

    The error rate is divided by :data:`LOOKS`.
    """
    return 1 - (1 - level) / LOOKS


def labels_needed(rows: LabelledDifferences, above: float = 0.0, level: float = LEVEL) -> int | None:
    """Return how many more labels decide with a chance of :data:`STATED_POWER` at the difference seen.

    They are all that are left where no smaller number would, and all of them decide at least as likely as not. Further
    labels make every chance larger by one factor; what they bring is computed from the residuals of those there are.

    Returns:
        0 where the difference is decided, None where all labels would rather not, or where there are too few to say.
    """
    table = _table_of(rows)
    if table.counted.sum() < MIN_LABELS:
        return None
    if _decided(rows, table, above, level):
        return 0
    if table.known.all():
        return None
    now = _estimate(rows, table, tune=True)
    normal = NormalDist()
    steps = normal.inv_cdf(0.5 + level / 2) + normal.inv_cdf(STATED_POWER)
    allowed = ((now.difference - above) / steps) ** 2
    of_rows = max(0.0, now.error**2 - now.fresh**2 - _drawing_variance(table, now.residuals, 1.0))
    drawn = table.chances[table.chances < 1]
    for factor in np.geomspace(1, 1 / drawn.min(), 400).tolist():
        of_drawing = _drawing_variance(table, now.residuals, factor) + (now.fresh / factor) ** 2
        if of_rows + of_drawing <= allowed:
            more = math.ceil(float(np.minimum(1, factor * drawn).sum() - drawn.sum()))
            return min(max(1, more), int((~table.known).sum()))
    # once all are labelled nothing is left to stop for, so the usual level holds
    away, least = abs(now.difference - above), normal.inv_cdf(0.5 + LEVEL / 2) * math.sqrt(of_rows)
    return int((~table.known).sum()) if away > MIN_SPREAD and away >= least else None


def youden_j(labels: Sequence[float], predicted: Sequence[float]) -> float:
    """Return Youden's J of a judge's grades: sensitivity + specificity - 1, of answers that are right by people or not.

    Args:
        labels: people's grade of each answer, 0 to 1; right from :data:`RIGHT_FROM` on.
        predicted: the judge's grade of the same answers.

    Returns:
        -1 to 1, 0 for a judge that knows nothing; nan where people found all answers right, or none.
    """
    if len(labels) != len(predicted):
        raise ValueError(f"{count_noun(len(labels), 'label')} for {count_noun(len(predicted), 'grade')}")
    right, graded = (np.asarray(values, dtype=float) >= RIGHT_FROM for values in (labels, predicted))
    if not right.any() or right.all():
        return float("nan")
    return float(graded[right].mean() - graded[~right].mean())


def priority_order(priorities: Sequence[float], numbers: Sequence[float]) -> list[int]:
    """Return the rows in the order in which they are labelled: by ``number / priority``.

    Args:
        priorities: of each row, above 0: a row with twice the priority is about twice as likely among the first.
        numbers: drawn uniformly from 0 to 1, one for each row.
    """
    ranks = np.asarray(numbers, dtype=float) / np.asarray(priorities, dtype=float)
    return [int(row) for row in np.argsort(ranks, kind="stable")]


def label_chances(
    priorities: Sequence[float], numbers: Sequence[float], labelled: Sequence[bool]
) -> tuple[list[float], list[bool]]:
    """Return the chance of each row to be labelled, and which labels count: those before the first row without one.

    Given the rank ``number / priority`` of that first row, every other row is before it by chance
    ``min(1, priority * rank)``. Rows that need no label (equal answers) or are skipped are not among these.

    Args:
        priorities: of each row.
        numbers: the drawn number of each row.
        labelled: whether both answers of each row have a label.
    """
    order = priority_order(priorities, numbers)
    first = next((place for place, row in enumerate(order) if not labelled[row]), len(order))
    counts = [False] * len(order)
    for row in order[:first]:
        counts[row] = True
    if first == len(order):
        return [1.0] * len(order), counts
    rank = numbers[order[first]] / priorities[order[first]]
    return [min(1.0, priority * rank) for priority in priorities], counts


def _table_of(rows: LabelledDifferences) -> _Table:
    count = len(rows.labels)
    lengths = {
        len(of) for of in (rows.predicted, rows.chances, rows.questions, rows.sources, rows.weights)
    } | ({len(rows.same)} if rows.same else set())
    if lengths != {count} or not count:
        raise ValueError(f"{count_noun(count, 'label')} with {sorted(lengths)} other entries")
    labels = np.array([np.nan if label is None else label for label in rows.labels], dtype=float)
    chances, weights = np.asarray(rows.chances, dtype=float), np.asarray(rows.weights, dtype=float)
    if not ((chances > 0) & (chances <= 1)).all():
        raise ValueError("a chance of being labelled is above 0 and at most 1")
    known = ~np.isnan(labels)
    if (~known & (chances == 1)).any():
        raise ValueError("a row that was labelled by a chance of 1 has no label")
    same = np.asarray(rows.same, dtype=bool) if rows.same else np.zeros(count, dtype=bool)
    return _Table(
        labels=np.where(known, labels, 0.0),
        known=known,
        counted=known & ~same,
        predicted=np.asarray(rows.predicted, dtype=float),
        chances=chances,
        weights=weights / weights.mean(),
    )


def _line(table: _Table, tune: bool) -> tuple[float, float, np.ndarray]:
    """Return the intercept and the slope that leave least variance, and the leverage of each row on them, float [rows].

    The variance that the drawing of labels adds is a sum of ``(weight / chance)² (1 - chance) residual²`` over the
    labelled rows, so these are the weights of the least squares; where every row is labelled nothing depends on the line.
    """
    share = np.where(table.known, (table.weights / table.chances) ** 2 * (1 - table.chances), 0.0)
    total = share.sum()
    if total < MIN_SPREAD:
        return 0.0, 0.0, np.zeros(share.size)
    share = share / total
    centre, middle = float(share @ table.predicted), float(share @ table.labels)
    away = table.predicted - centre
    spread = float(share @ away**2)
    slope = float(share @ (away * (table.labels - middle))) / spread if tune and spread > MIN_SPREAD else 0.0
    leverage = share + (share * away**2 / spread if 0 < slope < 1 else 0.0)
    slope = min(1.0, max(0.0, slope))
    return middle - slope * centre, slope, np.minimum(leverage, 0.5)


def _estimate(rows: LabelledDifferences, table: _Table, tune: bool) -> _Estimate:
    """Return the difference with its error: by the line, or by the labels alone."""
    intercept, slope, leverage = _line(table, tune)
    line = intercept + slope * table.predicted
    residuals = np.where(table.known, table.labels - line, 0.0)
    values = line + residuals / table.chances
    residuals = residuals / (1 - leverage)
    data, sources, weights = _by_question(line + residuals / table.chances, rows, table)
    groups = document_groups(data, sources, weights)
    fresh = _fresh(table)
    freedom = _labelled_units(rows, table, groups) - 1 - (slope > 0)
    if groups is not None:
        freedom = min(freedom, groups.effective - 1)
    return _Estimate(
        difference=float((table.weights * values).mean()),
        error=math.hypot(_error(data, groups), fresh),
        fresh=fresh,
        residuals=residuals,
        freedom=max(freedom, MIN_FREEDOM),
        tuning=slope,
        units=groups.units if groups is not None else len(data),
        certain=cluster_by_document(sources, weights).by_document,
    )


def _error(data: np.ndarray, groups: Clusters | None) -> float:
    """Return the standard error of the mean, with weights that of the jackknife over the units or that of single values.

    :func:`rag.evaluation.clusters.clustered_error` asks more of weights: at least the values' own spread over their
    effective number. Rows are labelled by their weight, which evens out what the spread there is to guard against.
    """
    if groups is None or groups.weights is None:
        return clustered_error(data, groups)
    sums = np.bincount(groups.index, data - data.mean()) * pull(groups)
    jackknife = float(np.sqrt(sums.size / (sums.size - 1) * (sums**2).sum()) / data.size)
    return max(jackknife, clustered_error(data, None))


def _fresh(table: _Table) -> float:
    """Return by how much one more label, of mean weight over chance and off by a grade, moves the difference."""
    drawn = table.chances[table.counted]
    if not drawn.size:
        return 0.0
    step = float((table.weights[table.counted] / drawn).mean()) / table.known.size
    return GRADE_STEP * step * math.sqrt(float((1 - drawn).mean()))


def _by_question(
    values: np.ndarray, rows: LabelledDifferences, table: _Table
) -> tuple[np.ndarray, list[str | None], list[float]]:
    """Return the value of each question, linearised where weights differ, its document and weight, () if all are equal."""
    weighted = bool(np.ptp(table.weights) > MIN_SPREAD)
    if len(set(rows.questions)) == len(rows.questions):
        if not weighted:
            return values, list(rows.sources), []
        weights = table.weights.tolist()
        return np.array(linearised(values.tolist(), weights)), list(rows.sources), weights
    means, sizes = weighted_questions(values.tolist(), rows.questions, table.weights.tolist())
    of_question = dict(zip(rows.questions, rows.sources, strict=True))
    data = np.array(linearised(means, sizes if len(set(sizes)) > 1 else ()))
    return data, list(of_question.values()), sizes if weighted else []


def _labelled_units(rows: LabelledDifferences, table: _Table, groups: Clusters | None) -> float:
    """Return the effective number (Kish 1965) of labelled questions, or documents, by their weight over the chance."""
    by_document = groups is not None and not groups.single
    masses: dict[str, float] = {}
    for row in np.flatnonzero(table.counted).tolist():
        unit = (by_document and rows.sources[row]) or f"#{rows.questions[row]}"
        masses[unit] = masses.get(unit, 0.0) + table.weights[row] / table.chances[row]
    squares = sum(mass**2 for mass in masses.values())
    return sum(masses.values()) ** 2 / squares if squares else 0.0


def _drawing_variance(table: _Table, residuals: np.ndarray, factor: float) -> float:
    """Return the variance by the drawing of labels if every chance were larger by a factor, at most 1."""
    chances = np.minimum(1, factor * table.chances)
    parts = table.weights**2 * (1 - chances) / chances * residuals**2 / table.chances
    return float(parts[table.counted].sum()) / table.known.size**2


def _bounds(one: _Estimate, level: float) -> tuple[float, float]:
    from scipy.special import stdtrit

    half = float(stdtrit(one.freedom, 0.5 + level / 2)) * one.error
    return max(-1.0, one.difference - half), min(1.0, one.difference + half)


def _two_sided(one: _Estimate, above: float) -> float:
    from scipy.special import stdtr  # scipy.stats takes a second to import

    away = abs(one.difference - above)
    if not one.certain or away < MIN_SPREAD or math.isnan(one.error):
        return 1.0
    return 2 * float(stdtr(one.freedom, -away / max(one.error, MIN_SPREAD)))


def _decided(rows: LabelledDifferences, table: _Table, above: float, level: float) -> bool:
    one = _estimate(rows, table, tune=True)
    low, high = _bounds(one, level)
    return (low > above or high < above) and _two_sided(one, above) <= 1 - level

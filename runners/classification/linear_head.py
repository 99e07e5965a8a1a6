"""A linear head over features: multinomial logistic regression by scikit-learn, its cross-validation and its calibration.

The regressions run on one thread: their many small matrix products are eight times slower on two busy threads (3,075 rows,
77 labels: .9 s a fit), and one thread always sums in the same order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

INVERSE_REGULARISATION = (1.0, 10.0, 100.0)
"""Values of C that are tried on embeddings; unit vectors need weak regularisation."""
HEAD_CV_FOLDS = 3
MAX_CV_ROWS = 2_000
"""Most rows for cross-validation, drawn by the seed: more rows hardly change the choice of C and cost minutes."""
MAX_ITERATIONS = 300
TEMPERATURES = (0.05, 20.0)
"""Bounds of the temperature that scores are divided by."""
Features = Any
"""A matrix [rows, columns] of float32, dense or sparse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearHead:
    """A linear classifier: the label of a row is the one whose weights and bias give the largest sum."""

    labels: tuple[str, ...]
    weights: np.ndarray
    """float32 [labels, columns]"""
    bias: np.ndarray
    """float32 [labels]"""
    strength: float
    """The inverse regularisation C that was chosen."""
    accuracy: float | None
    """Cross-validated accuracy on the training rows with that C; None when fewer than two labels have two rows."""
    temperature: float | None = None
    """What scores are divided by before they become probabilities, fitted on held-out rows; None where there were none,
    and of heads of 0.2.0."""

    def scores(self, features: Features) -> np.ndarray:
        """Return the sum of each row for each label, float32 [rows, labels]."""
        return np.asarray(features @ self.weights.T + self.bias, np.float32)

    def label(self, features: Features) -> list[str]:
        """Return the label of each row."""
        return [self.labels[n] for n in np.argmax(self.scores(features), axis=1)]

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """Return calibrated probabilities [rows, labels] of scores; ValueError for a head without a temperature."""
        if self.temperature is None:
            raise ValueError("the head was not calibrated")
        return softmax(scores / self.temperature)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutScores:
    """Scores of rows by heads that were trained without them: the folds of a cross-validation."""

    scores: np.ndarray
    """float32 [rows, labels]; -inf for a label that the other folds do not have."""
    y: np.ndarray
    """The label of each of them, as its number."""

    @property
    def right(self) -> int:
        """How many get their own label."""
        return int((np.argmax(self.scores, axis=1) == self.y).sum())

    @property
    def accuracy(self) -> float:
        """Share that gets its own label."""
        return round(self.right / len(self.y), 6)

    def temperature(self) -> float:
        """Return what scores must be divided by to make the held-out labels most likely (Guo et al. 2017, 1706.04599)."""
        from scipy.optimize import minimize_scalar

        known = np.isfinite(self.scores[np.arange(len(self.y)), self.y])
        if not known.any():
            return 1.0
        scores, y = self.scores[known], self.y[known]

        def log_loss(exponent: float) -> float:
            likely = softmax(scores / np.exp(exponent))[np.arange(len(y)), y]
            return float(-np.log(np.maximum(likely, 1e-12)).mean())

        best = minimize_scalar(log_loss, bounds=np.log(TEMPERATURES), method="bounded")
        return round(float(np.exp(best.x)), 4)


@dataclass(frozen=True, slots=True)
class Folds:
    """Which rows are held out together; near repeats of a text are on one side."""

    parts: tuple[tuple[np.ndarray, np.ndarray], ...]
    """(training rows, held-out rows) of each fold; () when fewer than two labels have two rows."""
    rows: np.ndarray = field(default_factory=lambda: np.empty(0, int))
    """All rows that are held out once."""


def make_folds(y: np.ndarray, seed: int, groups: Sequence[int] | None = None) -> Folds:
    """Divide rows for cross-validation, each label about evenly; rows of labels in one group are left out.

    Args:
        y: the label of each row.
        seed: draws at most :data:`MAX_CV_ROWS` rows and the folds.
        groups: rows of one number are never divided; None: each row is a group.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    rows = np.sort(np.random.default_rng(seed).permutation(len(y))[:MAX_CV_ROWS])
    group_of = np.arange(len(y)) if groups is None else np.asarray(groups)
    counts = Counter(label for label, _ in set(zip(y[rows].tolist(), group_of[rows].tolist(), strict=True)))
    rows = rows[np.array([counts[label] >= 2 for label in y[rows].tolist()], bool)]
    counts = Counter({label: count for label, count in counts.items() if count >= 2})
    if len(counts) < 2:
        return Folds(())
    own = group_of[rows]
    divided = len(set(own.tolist())) < len(own)
    way = StratifiedGroupKFold if divided else StratifiedKFold
    folds = way(min(HEAD_CV_FOLDS, *counts.values()), shuffle=True, random_state=seed)
    parts = [
        (rows[train], rows[test]) for train, test in folds.split(rows, y[rows], own if divided else None)
    ]
    parts = [(train, test) for train, test in parts if len(test) and len(set(y[train].tolist())) >= 2]
    return Folds(tuple(parts), np.concatenate([test for _, test in parts]) if parts else np.empty(0, int))


def fit_weights(features: Features, y: np.ndarray, c: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit one regression; return weights [labels, columns], bias [labels], and the labels that the rows have."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        model = LogisticRegression(C=c, max_iter=MAX_ITERATIONS).fit(features, y)
    weights: np.ndarray = np.asarray(model.coef_, np.float32)
    bias: np.ndarray = np.asarray(model.intercept_, np.float32)
    if len(model.classes_) == 2:
        # scikit-learn fits one row for two labels, that of the second; the first one's is its negative.
        weights, bias = np.vstack([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    return weights, bias, np.asarray(model.classes_, int)


def cross_validated_rows(vectors: np.ndarray, labels: Sequence[str], seed: int = 0) -> tuple[int, int]:
    """Return how many rows get their own label from a head that was trained on the other folds, and of how many.

    The head has the best C of a few, which flatters the share a little; it learns from two thirds of the rows, which lowers
    it. At most :data:`MAX_CV_ROWS` rows are judged. A label with one row cannot be learnt from the others, so its row counts
    as wrong.

    Args:
        vectors: embeddings [rows, dimension].
        labels: the label of each row.
        seed: seed of the folds.
    """
    y = numbered(labels)[1]
    folds = make_folds(y, seed)
    judged = min(len(y), MAX_CV_ROWS)
    if not folds.parts:
        return 0, judged
    right = dict.fromkeys(INVERSE_REGULARISATION, 0)
    for c in right:
        for train, test in folds.parts:
            weights, bias, known = fit_weights(vectors[train], y[train], c)
            right[c] += int((known[np.argmax(vectors[test] @ weights.T + bias, axis=1)] == y[test]).sum())
    return max(right.values()), judged


def numbered(labels: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the sorted labels, and each row's as its number among them."""
    names = tuple(sorted(set(labels)))
    number: Callable[[str], int] = {name: n for n, name in enumerate(names)}.__getitem__
    return names, np.array(list(map(number, labels)), int)


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return rows that sum to 1, of scores where -inf is a label that cannot be."""
    exponents = np.exp(np.asarray(scores, np.float64) - scores.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)

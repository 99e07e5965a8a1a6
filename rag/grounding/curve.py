"""What thresholds refuse, rightly and wrongly: one point, the whole curve, and its area."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np

_CURVE_POINTS = 21
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RefusalPoint:
    """A threshold and the shares of questions that it refuses."""

    cut: float
    """Questions with a score below this are refused."""
    right: float
    """Share of the unanswerable questions that it refuses."""
    wrong: float
    """Share of the answerable questions that it refuses."""

    def to_json(self) -> dict[str, Any]:
        """Return the point as a JSON object."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def refusal_point(cut: float, scores: np.ndarray, answerable: np.ndarray) -> RefusalPoint:
    """Return the shares that a threshold refuses; ``scores`` are high for answerable questions, both arrays are [rows]."""
    below = scores < cut
    return RefusalPoint(float(cut), _refused_share(below[~answerable]), _refused_share(below[answerable]))


def refusal_curve(scores: np.ndarray, answerable: np.ndarray) -> tuple[RefusalPoint, ...]:
    """Return at most 21 thresholds, from one that refuses nothing to one that refuses all, evenly spaced by rank."""
    cuts, right, wrong = refused_at_every_cut(scores, answerable)
    chosen = np.unique(np.linspace(0, len(cuts) - 1, _CURVE_POINTS).round().astype(int))
    return tuple(RefusalPoint(float(cuts[n]), float(right[n]), float(wrong[n])) for n in chosen)


def auroc(scores: np.ndarray, answerable: np.ndarray) -> float:
    """Return the area under the ROC curve; nan if one of the classes is empty.

    It is the chance that an answerable question scores above an unanswerable one, where a tie counts half (Hanley and
    McNeil 1982).
    """
    from sklearn.metrics import roc_auc_score

    both = answerable.any() and not answerable.all()
    return float(roc_auc_score(answerable, scores)) if both else float("nan")


def threshold_for_refusal_share(right: float, scores: np.ndarray, answerable: np.ndarray) -> RefusalPoint:
    """Return the lowest threshold that refuses at least the share ``right`` of the unanswerable questions."""
    low = np.sort(scores[~answerable])
    # 1e-9 keeps rounding of the product from asking for one question too many
    needed = max(1, int(np.ceil(right * len(low) - 1e-9)))
    return refusal_point(float(np.nextafter(low[needed - 1], np.inf)), scores, answerable)


def refused_at_every_cut(
    scores: np.ndarray, answerable: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return every threshold that tells two scores apart, lowest first, with the shares it refuses.

    The first refuses nothing and the last everything; the others are midpoints of neighbouring scores.

    Args:
        scores: high for answerable questions, float [rows]; both classes must be there.
        answerable: which rows are answerable, bool [rows].
        weights: weight of each row, float [rows]; None for equal weights.

    Returns:
        The thresholds, and the shares of the unanswerable and of the answerable rows below each, float [thresholds].
    """
    from sklearn.metrics import roc_curve

    # Unanswerable questions are the ones to be caught and low scores catch them, so rates of the curve are shares refused.
    wrong, right, negated = roc_curve(~answerable, -scores, sample_weight=weights, drop_intermediate=False)
    values = -negated[1:]  # without the first threshold, which is infinite and refuses nothing
    return (
        np.concatenate([values[:1] - 1e-6, (values[1:] + values[:-1]) / 2, values[-1:] + 1e-6]),
        right,
        wrong,
    )


def _refused_share(flags: np.ndarray) -> float:
    return float(flags.mean()) if len(flags) else 0.0


def evenly(values: Sequence[T], most: int) -> Sequence[T]:
    """Return at most so many of the values, evenly spread."""
    if len(values) <= most:
        return values
    return [values[n] for n in np.linspace(0, len(values) - 1, most).round().astype(int).tolist()]

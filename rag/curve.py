"""What each threshold would refuse: rightly and wrongly, with the area under that curve."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

_POINTS = 21


@dataclass(frozen=True, slots=True)
class Point:
    """A threshold and what it refuses."""

    cut: float
    """Questions that score below are refused."""
    right: float
    """Share of the unanswerable questions that it refuses."""
    wrong: float
    """Share of the answerable questions that it refuses."""

    def to_json(self) -> dict[str, Any]:
        """Return the point as a JSON object."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def at(cut: float, scores: np.ndarray, answerable: np.ndarray) -> Point:
    """Return what a threshold refuses; ``scores`` [n] are high for answerable questions, ``answerable`` [n] is bool."""
    below = scores < cut
    return Point(float(cut), _share(below[~answerable]), _share(below[answerable]))


def curve(scores: np.ndarray, answerable: np.ndarray) -> tuple[Point, ...]:
    """Return at most 21 thresholds, from one that refuses nothing to one that refuses all, evenly over the questions."""
    values = np.unique(scores)
    edges = np.concatenate([values[:1] - 1e-6, (values[1:] + values[:-1]) / 2, values[-1:] + 1e-6])
    chosen = np.unique(np.linspace(0, len(edges) - 1, _POINTS).round().astype(int))
    return tuple(at(float(edges[n]), scores, answerable) for n in chosen)


def auroc(scores: np.ndarray, answerable: np.ndarray) -> float:
    """Return the chance that an answerable question scores above an unanswerable one; a tie counts half."""
    high, low = scores[answerable], np.sort(scores[~answerable])
    below = np.searchsorted(low, high, "left") + np.searchsorted(low, high, "right")
    return float(below.mean() / 2 / len(low)) if len(high) and len(low) else float("nan")


def wrong_at(right: float, scores: np.ndarray, answerable: np.ndarray) -> Point:
    """Return the lowest threshold that refuses at least the share ``right`` of the unanswerable questions."""
    low = np.sort(scores[~answerable])
    needed = max(1, int(np.ceil(right * len(low) - 1e-9)))
    return at(float(np.nextafter(low[needed - 1], np.inf)), scores, answerable)


def _share(flags: np.ndarray) -> float:
    return float(flags.mean()) if len(flags) else 0.0

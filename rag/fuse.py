"""Join the two searches: a weighted sum of min-max scores (convex), or reciprocal ranks (RRF)."""

from __future__ import annotations

import numpy as np

RRF_K = 60
"""The constant of Cormack, Clarke and Büttcher 2009."""


def convex(dense: np.ndarray, lexical: np.ndarray, weight: float) -> np.ndarray:
    """Return ``(1 - weight) * dense + weight * lexical`` after scaling each to 0..1 over the candidates.

    Both arrays hold one score per candidate. A side whose scores are all equal says nothing and counts as 0.
    """
    return (1 - weight) * _scaled(dense) + weight * _scaled(lexical)


def rrf(dense: np.ndarray, lexical: np.ndarray, weight: float = 0.5) -> np.ndarray:
    """Return the weighted sum of ``1 / (60 + rank)``; a lexical score of 0 earns nothing."""
    by_words = np.where(lexical > 0, 1 / (RRF_K + _ranks(lexical)), 0.0)
    return (1 - weight) / (RRF_K + _ranks(dense)) + weight * by_words


def _scaled(scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, dtype=np.float64)
    if not len(scores) or (spread := scores.max() - scores.min()) <= 0:
        return np.zeros(len(scores))
    return np.asarray((scores - scores.min()) / spread)


def _ranks(scores: np.ndarray) -> np.ndarray:
    """Return ranks from 1 for the best; equal scores share the better rank's order of appearance."""
    ranks = np.empty(len(scores))
    ranks[np.argsort(-np.asarray(scores), kind="stable")] = np.arange(1, len(scores) + 1)
    return ranks

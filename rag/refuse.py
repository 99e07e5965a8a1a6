"""When to refuse: a threshold on the signals of the hits, fitted on the user's own dev questions.

A small logistic model weighs the signals (``rag.signals``); its cut is where balanced accuracy on the dev questions is
best. Where dev holds too few unanswerable questions, some are made: the answerable ones are searched again without
their gold document. Where dev holds none, the questions are taken to have answers: at most one in twenty is refused.
What each threshold would have refused, rightly and wrongly, is kept as a curve, each question judged by a fit that has
not seen it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import numpy as np

from rag import curve
from rag.logistic import cut, fitted, left_out
from rag.signals import DEPTH, NAMES, Signals, signals
from rag.threshold import Decision, Threshold
from rag.types import Hit

__all__ = ["DEPTH", "Decision", "Searchable", "Signals", "Threshold", "default", "fit", "signals"]

FEWEST = 5
"""Questions needed on each side before anything is fitted."""
ENOUGH_REAL = 20
"""With fewer unanswerable dev questions than this, gold-removed searches are added."""
ASKED_OF_ALL = 0.9
"""Share of the unanswerable for which the price in wrong refusals is told, whatever cut is chosen."""


class Searchable(Protocol):
    """What calibration needs of an index."""

    def search_many(
        self, questions: Sequence[str], k: int, without: Sequence[Collection[str]] | None = None
    ) -> list[list[Hit]]:
        """Return the k best hits per question, leaving out documents per question."""


DEFAULT_WEIGHTS = {"dense": 1.0}
DEFAULT_BIAS = -0.4
"""The best cosine must reach .4: all-MiniLM then answers 92 to 99 % of the answerable questions of two
public sets and refuses 44 to 67 % once the gold document is taken away."""


def default(answerable: int = 0, unanswerable: int = 0) -> Threshold:
    """Return the threshold used when there is too little to fit on, saying so."""
    note = (
        f"{answerable} answerable and {unanswerable} unanswerable dev questions are too few to fit a refusal "
        f"threshold ({FEWEST} of each are needed): the default is used"
    )
    return Threshold(DEFAULT_WEIGHTS, DEFAULT_BIAS, "default", answerable, unanswerable, note=note)


def fit(index: Searchable, questions: Sequence[tuple[str, str | None, bool]]) -> Threshold:
    """Fit the threshold on dev questions, each (question, gold document or None, answerable)."""
    rows, labels, made, group = _searched(index, questions)
    positive, negative = labels.count(True), labels.count(False)
    if min(positive, negative) < FEWEST:
        return default(positive, negative)
    x, y = np.array([row.vector() for row in rows]), np.array(labels)
    weights, bias = fitted(x, y, made)
    scores = left_out(x, y, made, group)
    limit = cut(scores, y, made)
    scores, bias = scores - limit, bias - limit
    chosen = curve.at(0.0, scores, y)
    return Threshold(
        dict(zip(NAMES, weights.tolist(), strict=True)), bias, "logistic", positive, negative, int(made.sum()),
        round((chosen.right + 1 - chosen.wrong) / 2, 4), round(curve.auroc(scores, y), 4), chosen,
        curve.wrong_at(ASKED_OF_ALL, scores, y), curve.curve(scores, y),
    )  # fmt: skip


def _searched(
    index: Searchable, questions: Sequence[tuple[str, str | None, bool]]
) -> tuple[list[Signals], list[bool], np.ndarray, np.ndarray]:
    """Search the questions, and again without gold where that is needed.

    Returns signals and labels of all rows, which of them were made, and the number of each row's question.
    """
    asked = [question for question, _, _ in questions]
    found = index.search_many(asked, DEPTH) if asked else []
    rows = [signals(question, hits) for question, hits in zip(asked, found, strict=True)]
    labels = [answerable for _, _, answerable in questions]
    group = list(range(len(questions)))
    removable = [(n, q, doc) for n, (q, doc, answerable) in enumerate(questions) if answerable and doc]
    if labels.count(False) < ENOUGH_REAL and removable:
        without = [[doc] for _, _, doc in removable]
        again = index.search_many([question for _, question, _ in removable], DEPTH, without)
        rows += [signals(question, hits) for (_, question, _), hits in zip(removable, again, strict=True)]
        labels += [False] * len(removable)
        group += [n for n, _, _ in removable]
    made = np.arange(len(rows)) >= len(questions)
    return rows, labels, made, np.array(group)

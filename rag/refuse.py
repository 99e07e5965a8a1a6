"""When to refuse: a threshold on the signals of the hits, fitted on the user's own dev questions.

Four signals say whether the documents hold an answer: the best cosine, its lead over the others, the best
BM25 score per content word of the question, and the share of those words that the best hits hold. A small
logistic model weighs them; its cut is where balanced accuracy on the dev questions is best. Where dev holds
too few unanswerable questions, some are made: the answerable ones are searched again without their gold
document. Where dev holds none, the questions are taken to have answers: at most one in twenty is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

import numpy as np

from rag.errors import BadInput
from rag.types import Hit
from rag.words import content_words, words

FEWEST = 5
"""Questions needed on each side before anything is fitted."""
ENOUGH_REAL = 20
"""With fewer unanswerable dev questions than this, gold-removed searches are added."""
DEPTH = 5
_RIDGE = 1.0
MOST_REFUSED = 0.05
"""Share of answerable dev questions that may be refused. On harbor-desk over 12 splits this cap lowers false refusals
of test questions from .10 to .08 and correct ones from .77 to .76 only."""


class Searchable(Protocol):
    """What calibration needs of an index."""

    def search_many(
        self, questions: Sequence[str], k: int, without: Sequence[Collection[str]] | None = None
    ) -> list[list[Hit]]:
        """Return the k best hits per question, leaving out documents per question."""


@dataclass(frozen=True, slots=True)
class Signals:
    """What the hits of one question say about whether it can be answered."""

    dense: float
    """The best cosine."""
    margin: float
    """The best cosine's lead over the mean of the others."""
    lexical: float
    """The best BM25 score per content word of the question."""
    coverage: float
    """Share of the question's content words in the best hit of either kind."""

    def vector(self) -> np.ndarray:
        """Return the signals in the order of the fields."""
        return np.array([getattr(self, field.name) for field in fields(self)], dtype=np.float64)


def signals(question: str, hits: Sequence[Hit]) -> Signals:
    """Return the signals of a question's hits, of which the first five count; all 0 without hits."""
    if not hits:
        return Signals(0.0, 0.0, 0.0, 0.0)
    hits = hits[:DEPTH]
    dense = sorted((hit.dense for hit in hits), reverse=True)
    asked = set(content_words(question)) or set(words(question))
    shares = [
        len(asked & set(words(f"{h.chunk.title} {h.chunk.heading} {h.chunk.text}"))) / len(asked)
        if asked
        else 0.0
        for h in hits
    ]
    return Signals(
        dense=dense[0],
        margin=dense[0] - float(np.mean(dense[1:])) if len(dense) > 1 else 0.0,
        lexical=max(hit.lexical for hit in hits) / max(1, len(asked)),
        coverage=max(shares),
    )


@dataclass(frozen=True, slots=True)
class Threshold:
    """A fitted (or the default) decision; plain numbers, so that it is stored as JSON."""

    weights: tuple[float, ...]
    bias: float
    """Refuse where ``weights @ signals + bias`` is below 0; weights are for the raw signals."""
    how: str
    """logistic or default."""
    answerable: int
    unanswerable: int
    made: int
    """How many of the unanswerable ones were made by leaving the gold document out."""
    balanced_accuracy: float | None
    """On the questions it was fitted on (leave-one-out); None for the default."""
    note: str = ""

    def score(self, found: Signals) -> float:
        """Return the decision's score: below 0 means refuse."""
        return float(np.dot(self.weights, found.vector()) + self.bias)

    def refuses(self, question: str, hits: Sequence[Hit]) -> bool:
        """Return whether the hits say that the documents do not hold the answer; always, without hits."""
        return not hits or self.score(signals(question, hits)) < 0

    def to_json(self) -> dict[str, Any]:
        """Return the threshold as a JSON object."""
        return {"schema": 1, **asdict(self), "weights": list(self.weights)}

    @classmethod
    def from_json(cls, obj: dict[str, Any]) -> Threshold:
        """Return the threshold of a JSON object; BadInput when it is not one."""
        try:
            return cls(
                **{field.name: obj[field.name] for field in fields(cls)} | {"weights": tuple(obj["weights"])}
            )
        except (KeyError, TypeError) as error:
            raise BadInput(f"the refusal threshold is damaged: {error!r}") from error


def default(answerable: int = 0, unanswerable: int = 0) -> Threshold:
    """Return the threshold used when there is too little to fit on, saying so."""
    note = (
        f"{answerable} answerable and {unanswerable} unanswerable dev questions are too few to fit a refusal "
        f"threshold ({FEWEST} of each are needed): the default is used"
    )
    return Threshold(DEFAULT_WEIGHTS, DEFAULT_BIAS, "default", answerable, unanswerable, 0, None, note)


DEFAULT_WEIGHTS = (1.0, 0.0, 0.0, 0.0)
DEFAULT_BIAS = -0.4
"""The best cosine must reach .4: all-MiniLM then answers 92 to 99 % of the answerable questions of two
public sets and refuses 44 to 67 % once the gold document is taken away."""


def fit(index: Searchable, questions: Sequence[tuple[str, str | None, bool]], k: int = DEPTH) -> Threshold:
    """Fit the threshold on dev questions, each (question, gold document or None, answerable)."""
    asked = [question for question, _, _ in questions]
    found = index.search_many(asked, max(k, DEPTH)) if asked else []
    rows = [signals(question, hits) for question, hits in zip(asked, found, strict=True)]
    labels = [answerable for _, _, answerable in questions]
    removable = [(question, doc) for question, doc, answerable in questions if answerable and doc]
    made = 0
    if labels.count(False) < ENOUGH_REAL and removable:
        without = [[doc] for _, doc in removable]
        again = index.search_many([question for question, _ in removable], max(k, DEPTH), without)
        rows += [signals(question, hits) for (question, _), hits in zip(removable, again, strict=True)]
        labels += [False] * len(removable)
        made = len(removable)
    positive, negative = labels.count(True), labels.count(False)
    if min(positive, negative) < FEWEST:
        return default(positive, negative)
    x, y = np.array([row.vector() for row in rows]), np.array(labels)
    real = np.concatenate([np.ones(len(rows) - made, dtype=bool), np.zeros(made, dtype=bool)])
    weights, bias = _fitted(x, y, real)
    accuracy = _left_out(x, y, real)
    return Threshold(tuple(weights.tolist()), bias, "logistic", positive, negative, made, accuracy)


def _fitted(x: np.ndarray, y: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, float]:
    """Return raw-signal weights and bias of a ridge logistic fit, its cut where balanced accuracy is best."""
    from scipy.optimize import minimize

    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-9
    z, sign, share = (x - mean) / scale, np.where(y, 1.0, -1.0), _shares(y, real)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        margins = sign * (z @ parameters[:-1] + parameters[-1])
        pull = -share * sign / (1 + np.exp(np.clip(margins, -50, 50)))
        slope = np.append(z.T @ pull + _RIDGE / len(y) * parameters[:-1], pull.sum())
        ridge = _RIDGE / len(y) / 2 * float(parameters[:-1] @ parameters[:-1])
        return float(share @ np.logaddexp(0, -margins)) + ridge, slope

    best = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B").x
    weights = best[:-1] / scale
    return weights, -_cut(x @ weights, y, share)


def _shares(y: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Return each row's weight: both classes count the same, and so do real and made negatives."""
    share = np.zeros(len(y))
    share[y] = 0.5 / max(1, y.sum())
    kinds = [kind for kind in (~y & real, ~y & ~real) if kind.any()]
    for kind in kinds:
        share[kind] = 0.5 / len(kinds) / kind.sum()
    return share


def _cut(scores: np.ndarray, y: np.ndarray, share: np.ndarray) -> float:
    """Return the cut with the best weighted accuracy, in the middle of its gap; of equals the lowest.

    Only cuts are considered that refuse at most the share MOST_REFUSED of the answerable.
    """
    order = np.argsort(scores, kind="stable")
    values, gains = scores[order], np.where(y, -share, share)[order]
    reached = np.concatenate([[0.0], np.cumsum(gains)])
    refused = np.concatenate([[0.0], np.cumsum(y[order])]) / max(1, y.sum())
    edges = np.concatenate([[values[0] - 1e-6], (values[1:] + values[:-1]) / 2, [values[-1] + 1e-6]])
    return float(edges[int(np.argmax(np.where(refused <= MOST_REFUSED, np.round(reached, 12), -np.inf)))])


def _left_out(x: np.ndarray, y: np.ndarray, real: np.ndarray) -> float:
    """Return balanced accuracy with each tenth of the questions judged by a fit on the others."""
    folds = np.arange(len(y)) % min(10, len(y))
    right = np.zeros(len(y))
    for fold in range(folds.max() + 1):
        inside = folds != fold
        if y[inside].all() or not y[inside].any():
            continue
        weights, bias = _fitted(x[inside], y[inside], real[inside])
        right[~inside] = ((x[~inside] @ weights + bias) >= 0) == y[~inside]
    return round(float((right[y].mean() + right[~y].mean()) / 2), 4)

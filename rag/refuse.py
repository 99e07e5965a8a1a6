"""When to refuse: a threshold on the signals of the hits, fitted on the user's own dev questions.

A small logistic model weighs the signals (``rag.signals``); its cut is where balanced accuracy on the dev questions is
best. Where dev holds too few unanswerable questions, some are made: the answerable ones are searched again without
their gold document. Where dev holds none, the questions are taken to have answers: at most one in twenty is refused.
What each threshold would have refused, rightly and wrongly, is kept as a curve, each question judged by a fit that has
not seen it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Protocol

import numpy as np

from rag import curve
from rag.curve import Point
from rag.errors import BadInput
from rag.logistic import cut, fitted, left_out
from rag.signals import DEPTH, NAMES, Signals, signals
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


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to refuse a question, and what that rests on."""

    refuse: bool
    score: float
    """Below 0 means refuse."""
    signals: Signals

    def to_json(self) -> dict[str, Any]:
        """Return the decision as ``ask --json`` prints it."""
        said = {name: round(value, 4) for name, value in asdict(self.signals).items()}
        return {"refuse": self.refuse, "score": round(self.score, 4), "signals": said}


@dataclass(frozen=True, slots=True)
class Threshold:
    """A fitted (or the default) decision; plain values, so that it is stored as JSON."""

    weights: Mapping[str, float]
    """By the name of a signal, for its raw value; what is not named counts nothing."""
    bias: float
    """Refuse where the weighted signals and the bias sum to less than 0."""
    how: str
    """logistic or default."""
    answerable: int = 0
    unanswerable: int = 0
    made: int = 0
    """How many of the unanswerable ones were made by leaving the gold document out."""
    balanced_accuracy: float | None = None
    """Of the chosen cut, each question judged by a fit that has not seen it; None for the default."""
    auroc: float | None = None
    """Chance that an answerable question scores above an unanswerable one, judged in the same way."""
    chosen: Point | None = None
    """What the chosen cut refuses."""
    at_most: Point | None = None
    """What the lowest cut refuses that refuses 90 % of the unanswerable ones."""
    curve: tuple[Point, ...] = ()
    note: str = field(default="", kw_only=True)

    def decide(self, question: str, hits: Sequence[Hit]) -> Decision:
        """Return whether the hits say that the documents do not hold the answer; always, without hits."""
        found = signals(question, hits)
        score = sum(weight * getattr(found, name) for name, weight in self.weights.items()) + self.bias
        return Decision(not hits or score < 0, score, found)

    def refuses(self, question: str, hits: Sequence[Hit]) -> bool:
        """Return only whether to refuse."""
        return self.decide(question, hits).refuse

    def to_json(self) -> dict[str, Any]:
        """Return the threshold as a JSON object."""
        points = {
            "chosen": self.chosen and self.chosen.to_json(),
            "at_most": self.at_most and self.at_most.to_json(),
            "curve": [point.to_json() for point in self.curve],
        }
        plain = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in points}
        return {"schema": 1, **plain, "weights": dict(self.weights), **points}

    @classmethod
    def from_json(cls, obj: dict[str, Any]) -> Threshold:
        """Return the threshold of a JSON object; BadInput when it is not one."""
        try:
            values = {each.name: obj[each.name] for each in fields(cls)}
            if unknown := sorted(set(values["weights"]) - set(NAMES)):
                raise ValueError(f"unknown signal {unknown[0]}")
            weights = {name: float(weight) for name, weight in values["weights"].items()}
            chosen, at_most = (values[name] and Point(**values[name]) for name in ("chosen", "at_most"))
            points = tuple(Point(**point) for point in values["curve"])
            return cls(
                **{**values, "weights": weights, "chosen": chosen, "at_most": at_most, "curve": points}
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(
                f"the refusal threshold is damaged: {error!r}", "fit it again with: tunewise run --resume"
            ) from error


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

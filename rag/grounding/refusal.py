"""When to refuse: a threshold on the signals of the hits, fitted on the user's own dev questions.

A small logistic model weighs the signals (``rag.grounding.refusal``); its cut is where balanced accuracy on the dev questions is
best. Where dev holds too few unanswerable questions, some are made: the answerable ones are searched again without
their gold document. Where dev holds none, the questions are taken to have answers: at most one in twenty is refused.
What each threshold would have refused, rightly and wrongly, is kept as a curve, each question judged by a fit that has
not seen it.

A small ridge logistic model: which weighted sum of signals tells answerable questions from the others, and its cut.

What each threshold would refuse: rightly and wrongly, with the area under that curve.

What the hits of a question say about whether the documents hold its answer; cheap, and the same for every corpus.

The fitted decision to refuse: weights of the signals, a bias, and what it was fitted on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, fields
from typing import Any, Protocol

import numpy as np

from rag.errors import BadInput
from rag.files import SCHEMA, check_schema
from rag.text.words import content_words, words
from rag.types import Hit

CV_FOLDS = 10
_RIDGE = 3.0
"""Pull of the standardised signals' weights towards 0, in questions. Eight signals need more than 1: fitted on a third of
harbor-desk, 3 refuses .71 rightly and .03 wrongly, 1 .69 and .05, 10 .70 and .03, with less ranking on clapnq_dev."""
MAX_WRONG_REFUSALS = 0.05
"""Share of answerable dev questions that may be refused. On harbor-desk over 12 splits this cap lowers false refusals
of test questions from .10 to .08 and correct ones from .77 to .76 only."""


def fit_logistic(x: np.ndarray, y: np.ndarray, made: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the weights [signals] of raw signals and the bias: their sum is the log odds of being answerable.

    ``x`` is [questions, signals], ``y`` says which are answerable, ``made`` which of the others were made by
    leaving the gold document out. Both classes count the same, and so do real and made negatives.
    """
    from scipy.optimize import minimize

    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-9
    z, sign, share = (x - mean) / scale, np.where(y, 1.0, -1.0), _shares(y, made)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        margins = sign * (z @ parameters[:-1] + parameters[-1])
        pull = -share * sign / (1 + np.exp(np.clip(margins, -50, 50)))
        slope = np.append(z.T @ pull + _RIDGE / len(y) * parameters[:-1], pull.sum())
        ridge = _RIDGE / len(y) / 2 * float(parameters[:-1] @ parameters[:-1])
        return float(share @ np.logaddexp(0, -margins)) + ridge, slope

    best = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B").x
    weights = best[:-1] / scale
    return weights, float(best[-1] - mean @ weights)


def cross_validated_log_odds(
    x: np.ndarray, y: np.ndarray, made: np.ndarray, group: np.ndarray, folds: int = CV_FOLDS
) -> np.ndarray:
    """Return the log odds of each row by a fit that has not seen its ``group`` (its question)."""
    scores = np.zeros(len(y))
    fold = group % min(folds, len(np.unique(group)))
    for number in np.unique(fold):
        inside = fold != number
        if y[inside].any() and not y[inside].all():
            weights, bias = fit_logistic(x[inside], y[inside], made[inside])
            scores[~inside] = x[~inside] @ weights + bias
    return scores


def best_cut(scores: np.ndarray, y: np.ndarray, made: np.ndarray) -> float:
    """Return the cut with the best weighted accuracy, in the middle of its gap; of equals the lowest.

    Only cuts are considered that refuse at most the share MOST_REFUSED of the answerable. On scores that ``left_out``
    gave it holds what it promises; on a fit's own it refuses more of new questions.
    """
    share = _shares(y, made)
    order = np.argsort(scores, kind="stable")
    values, gains = scores[order], np.where(y, -share, share)[order]
    reached = np.concatenate([[0.0], np.cumsum(gains)])
    refused = np.concatenate([[0.0], np.cumsum(y[order])]) / max(1, y.sum())
    edges = np.concatenate([[values[0] - 1e-6], (values[1:] + values[:-1]) / 2, [values[-1] + 1e-6]])
    return float(
        edges[int(np.argmax(np.where(refused <= MAX_WRONG_REFUSALS, np.round(reached, 12), -np.inf)))]
    )


def _shares(y: np.ndarray, made: np.ndarray) -> np.ndarray:
    share = np.zeros(len(y))
    share[y] = 0.5 / max(1, y.sum())
    kinds = [kind for kind in (~y & ~made, ~y & made) if kind.any()]
    for kind in kinds:
        share[kind] = 0.5 / len(kinds) / kind.sum()
    return share


_POINTS = 21


@dataclass(frozen=True, slots=True)
class RefusalPoint:
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


def refusal_point(cut: float, scores: np.ndarray, answerable: np.ndarray) -> RefusalPoint:
    """Return what a threshold refuses; ``scores`` [n] are high for answerable questions, ``answerable`` [n] is bool."""
    below = scores < cut
    return RefusalPoint(float(cut), _refused_share(below[~answerable]), _refused_share(below[answerable]))


def refusal_curve(scores: np.ndarray, answerable: np.ndarray) -> tuple[RefusalPoint, ...]:
    """Return at most 21 thresholds, from one that refuses nothing to one that refuses all, evenly over the questions."""
    values = np.unique(scores)
    edges = np.concatenate([values[:1] - 1e-6, (values[1:] + values[:-1]) / 2, values[-1:] + 1e-6])
    chosen = np.unique(np.linspace(0, len(edges) - 1, _POINTS).round().astype(int))
    return tuple(refusal_point(float(edges[n]), scores, answerable) for n in chosen)


def auroc(scores: np.ndarray, answerable: np.ndarray) -> float:
    """Return the chance that an answerable question scores above an unanswerable one; a tie counts half."""
    high, low = scores[answerable], np.sort(scores[~answerable])
    below = np.searchsorted(low, high, "left") + np.searchsorted(low, high, "right")
    return float(below.mean() / 2 / len(low)) if len(high) and len(low) else float("nan")


def threshold_for_refusal_share(right: float, scores: np.ndarray, answerable: np.ndarray) -> RefusalPoint:
    """Return the lowest threshold that refuses at least the share ``right`` of the unanswerable questions."""
    low = np.sort(scores[~answerable])
    needed = max(1, int(np.ceil(right * len(low) - 1e-9)))
    return refusal_point(float(np.nextafter(low[needed - 1], np.inf)), scores, answerable)


def _refused_share(flags: np.ndarray) -> float:
    return float(flags.mean()) if len(flags) else 0.0


SIGNAL_DEPTH = 50
"""Hits looked at: as many as either search contributes."""
_NEAR = 5
"""Of these, the ones that a prompt might show."""


@dataclass(frozen=True, slots=True)
class RefusalSignals:
    """Signals of one question. Chosen by cross-validation on 600 public questions (benchmarks/LOG.md)."""

    dense: float = 0.0
    """The best cosine."""
    lead: float = 0.0
    """The best cosine's lead over the mean of all hits looked at: how much it stands out of this corpus."""
    margin: float = 0.0
    """The best cosine's lead over the mean of the next four."""
    coverage: float = 0.0
    """The largest share of the question's content words that one of the first five hits holds, title included."""
    body: float = 0.0
    """The share of them in the first hit's own text."""
    subject: float = 0.0
    """The share of them in the first hit's title."""
    named: float = 0.0
    """The share of the first title's content words that the question holds."""
    length: float = 0.0
    """How many content words the question has: long ones ask for more than one thing."""

    def vector(self) -> np.ndarray:
        """Return the signals in the order of the fields."""
        return np.array(astuple(self), dtype=np.float64)


SIGNAL_NAMES = tuple(field.name for field in fields(RefusalSignals))


def refusal_signals(question: str, hits: Sequence[Hit]) -> RefusalSignals:
    """Return the signals of a question's hits, best first; all 0 without hits."""
    if not hits:
        return RefusalSignals()
    cosines = sorted((hit.dense for hit in hits[:SIGNAL_DEPTH]), reverse=True)
    asked = frozenset(content_words(question)) or frozenset(words(question))
    title = frozenset(content_words(hits[0].chunk.title))
    whole = [f"{hit.chunk.title} {hit.chunk.heading} {hit.chunk.text}" for hit in hits[:_NEAR]]
    return RefusalSignals(
        dense=cosines[0],
        lead=cosines[0] - float(np.mean(cosines)),
        margin=cosines[0] - float(np.mean(cosines[1:_NEAR])) if len(cosines) > 1 else 0.0,
        coverage=max(_word_share(asked, words(text)) for text in whole),
        body=_word_share(asked, words(hits[0].chunk.text)),
        subject=_word_share(asked, title),
        named=_word_share(title, asked),
        length=float(len(asked)),
    )


def _word_share(wanted: frozenset[str], there: Sequence[str] | frozenset[str]) -> float:
    return len(wanted.intersection(there)) / len(wanted) if wanted else 0.0


@dataclass(frozen=True, slots=True)
class RefusalDecision:
    """Whether to refuse a question, and what that rests on."""

    refuse: bool
    score: float
    """Below 0 means refuse."""
    signals: RefusalSignals

    def to_json(self) -> dict[str, Any]:
        """Return the decision as ``ask --json`` prints it."""
        said = {name: round(value, 4) for name, value in asdict(self.signals).items()}
        return {"refuse": self.refuse, "score": round(self.score, 4), "signals": said}


@dataclass(frozen=True, slots=True)
class RefusalThreshold:
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
    chosen: RefusalPoint | None = None
    """What the chosen cut refuses."""
    at_most: RefusalPoint | None = None
    """What the lowest cut refuses that refuses 90 % of the unanswerable ones."""
    curve: tuple[RefusalPoint, ...] = ()
    note: str = field(default="", kw_only=True)

    def decide(self, question: str, hits: Sequence[Hit]) -> RefusalDecision:
        """Return whether the hits say that the documents do not hold the answer; always, without hits."""
        found = refusal_signals(question, hits)
        score = sum(weight * getattr(found, name) for name, weight in self.weights.items()) + self.bias
        return RefusalDecision(not hits or score < 0, score, found)

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
        return {"schema": SCHEMA, **plain, "weights": dict(self.weights), **points}

    @classmethod
    def from_json(cls, obj: dict[str, Any]) -> RefusalThreshold:
        """Return the threshold of a JSON object; BadInput when it is not one, or a newer one."""
        try:
            obj = check_schema(obj, "refusal", "the refusal threshold")
            values = {each.name: obj[each.name] for each in fields(cls)}
            if unknown := sorted(set(values["weights"]) - set(SIGNAL_NAMES)):
                raise ValueError(f"unknown signal {unknown[0]}")
            weights = {name: float(weight) for name, weight in values["weights"].items()}
            chosen, at_most = (
                values[name] and RefusalPoint(**values[name]) for name in ("chosen", "at_most")
            )
            points = tuple(RefusalPoint(**point) for point in values["curve"])
            return cls(
                **{**values, "weights": weights, "chosen": chosen, "at_most": at_most, "curve": points}
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(
                f"the refusal threshold is damaged: {error!r}", "fit it again with: tunewise run RUN --resume"
            ) from error


MIN_QUESTIONS_PER_CLASS = 5
"""Questions needed on each side before anything is fitted."""
MIN_REAL_UNANSWERABLE = 20
"""With fewer unanswerable dev questions than this, gold-removed searches are added."""
QUESTION_PRIOR = 0.9
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


def default_threshold(answerable: int = 0, unanswerable: int = 0) -> RefusalThreshold:
    """Return the threshold used when there is too little to fit on, saying so."""
    note = (
        f"{answerable} answerable and {unanswerable} unanswerable dev questions are too few to fit a refusal "
        f"threshold ({MIN_QUESTIONS_PER_CLASS} of each are needed): the default is used"
    )
    return RefusalThreshold(DEFAULT_WEIGHTS, DEFAULT_BIAS, "default", answerable, unanswerable, note=note)


def fit_threshold(index: Searchable, questions: Sequence[tuple[str, str | None, bool]]) -> RefusalThreshold:
    """Fit the threshold on dev questions, each (question, gold document or None, answerable)."""
    rows, labels, made, group = _searched(index, questions)
    positive, negative = labels.count(True), labels.count(False)
    if min(positive, negative) < MIN_QUESTIONS_PER_CLASS:
        return default_threshold(positive, negative)
    x, y = np.array([row.vector() for row in rows]), np.array(labels)
    weights, bias = fit_logistic(x, y, made)
    scores = cross_validated_log_odds(x, y, made, group)
    limit = best_cut(scores, y, made)
    scores, bias = scores - limit, bias - limit
    chosen = refusal_point(0.0, scores, y)
    return RefusalThreshold(
        dict(zip(SIGNAL_NAMES, weights.tolist(), strict=True)),
        bias,
        "logistic",
        positive,
        negative,
        int(made.sum()),
        round((chosen.right + 1 - chosen.wrong) / 2, 4),
        round(auroc(scores, y), 4),
        chosen,
        threshold_for_refusal_share(QUESTION_PRIOR, scores, y),
        refusal_curve(scores, y),
    )


def _searched(
    index: Searchable, questions: Sequence[tuple[str, str | None, bool]]
) -> tuple[list[RefusalSignals], list[bool], np.ndarray, np.ndarray]:
    """Search the questions, and again without gold where that is needed.

    Returns signals and labels of all rows, which of them were made, and the number of each row's question.
    """
    asked = [question for question, _, _ in questions]
    found = index.search_many(asked, SIGNAL_DEPTH) if asked else []
    rows = [refusal_signals(question, hits) for question, hits in zip(asked, found, strict=True)]
    labels = [answerable for _, _, answerable in questions]
    group = list(range(len(questions)))
    removable = [(n, q, doc) for n, (q, doc, answerable) in enumerate(questions) if answerable and doc]
    if labels.count(False) < MIN_REAL_UNANSWERABLE and removable:
        without = [[doc] for _, _, doc in removable]
        again = index.search_many([question for _, question, _ in removable], SIGNAL_DEPTH, without)
        rows += [
            refusal_signals(question, hits) for (_, question, _), hits in zip(removable, again, strict=True)
        ]
        labels += [False] * len(removable)
        group += [n for n, _, _ in removable]
    made = np.arange(len(rows)) >= len(questions)
    return rows, labels, made, np.array(group)

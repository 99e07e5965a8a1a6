"""When to refuse an answer: a threshold on signals of the hits, fitted on the user's own dev questions.

:func:`refusal_signals` computes what the hits of a question say about whether the documents contain its answer.
:class:`RefusalThreshold` is the fitted decision, stored as JSON. :mod:`rag.refusal.gate` makes it by reading the first
hits with the answerability model; where that cannot be used, :func:`fit_threshold` weighs the signals of the search alone,
most of which count shared words, with a small ridge logistic model and sets the cut where balanced accuracy on the dev
questions is best. If dev contains too few unanswerable questions, some are constructed: the answerable ones are searched
again without their gold document. What each threshold would have refused, rightly and wrongly, is reported as a curve;
every question is scored by a fit that has not seen it (cross-validation by question). :func:`default_threshold` is used if
there are too few questions to fit on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Protocol

import numpy as np

from rag.errors import BadInput
from rag.files import SCHEMA, check_schema
from rag.grounding.curve import (
    RefusalPoint,
    auroc,
    refusal_curve,
    refusal_point,
    refused_at_every_cut,
    threshold_for_refusal_share,
)
from rag.text.words import content_words, words
from rag.types import Hit

CV_FOLDS = 10
_RIDGE = 3.0
"""Strength of the ridge penalty on the standardised signals' weights, in questions. Eight signals need more than 1: fitted
on a third of harbor-desk, 3 refuses .71 rightly and .03 wrongly, 1 .69 and .05, 10 .70 and .03, with a worse ranking on
clapnq_dev."""
MAX_WRONG_REFUSALS = 0.05
"""Share of answerable dev questions that may be refused. On harbor-desk over 12 splits this cap lowers false refusals
of test questions from .10 to .08 and correct ones from .77 to .76 only."""
SIGNAL_DEPTH = 50
"""Hits that the signals are computed on: as many as each of the two searches contributes."""
_PROMPT_HITS = 5
"""The first of these, which a prompt might show."""
MIN_QUESTIONS_PER_CLASS = 5
"""Questions needed on each side before anything is fitted."""
MIN_REAL_UNANSWERABLE = 20
"""With fewer unanswerable dev questions than this, gold-removed searches are added."""
REPORTED_REFUSAL_SHARE = 0.9
"""Share of unanswerable questions for which the wrong refusals are reported too, whatever cut is chosen."""
DEFAULT_WEIGHTS = {"dense": 1.0}
DEFAULT_BIAS = -0.4
"""The best cosine must reach .4: all-MiniLM then answers 92 to 99 % of the answerable questions of two
public sets and refuses 44 to 67 % after the gold document was removed."""


@dataclass(frozen=True, slots=True)
class RefusalSignals:
    """Signals of one question, chosen by cross-validation on 600 public questions (benchmarks/LOG.md)."""

    dense: float = 0.0
    """The best cosine."""
    lead: float = 0.0
    """The best cosine minus the mean over all hits looked at: how much it stands out in this corpus."""
    margin: float = 0.0
    """The best cosine minus the mean of the next four."""
    coverage: float = 0.0
    """The largest share of the question's content words that one of the first five hits contains, title included."""
    body: float = 0.0
    """The share of the question's content words in the first hit's own text."""
    subject: float = 0.0
    """The share of the question's content words in the first hit's title."""
    named: float = 0.0
    """The share of the first title's content words that occur in the question."""
    length: float = 0.0
    """Number of content words of the question: long questions ask for more than one thing."""
    answers: float = 0.0
    """The highest log odds, by the answerability model, that one of the hits that it read answers the question."""

    def vector(self) -> np.ndarray:
        """Return the signals of the search, float64 [signals], in the order of :data:`SEARCH_SIGNALS`."""
        return np.array([getattr(self, name) for name in SEARCH_SIGNALS], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class RefusalDecision:
    """Whether to refuse a question, with the score and the signals behind it."""

    refuse: bool
    score: float
    """Below 0 means refuse."""
    signals: RefusalSignals

    def to_json(self) -> dict[str, Any]:
        """Return the decision as ``ask --json`` prints it."""
        signals = {name: round(value, 4) for name, value in asdict(self.signals).items()}
        return {"refuse": self.refuse, "score": round(self.score, 4), "signals": signals}


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerCuts:
    """What ``answers`` must reach, by how many words the question shares with its passages.

    A question in the words of the documents is read with higher log odds than the same question in other words, so that one
    cut would refuse too little of the one kind or too much of the other. Between the two shares the cut is interpolated.
    """

    other_words: float
    """The cut for questions that share few words with their passages."""
    same_words: float
    """The cut for those worded like the documents."""
    few: float
    """``coverage`` up to which a question counts as worded otherwise."""
    many: float
    """``coverage`` from which it counts as worded like the documents."""

    def at(self, coverage: float) -> float:
        """Return the cut for a share of words."""
        share = min(1.0, max(0.0, (coverage - self.few) / (self.many - self.few)))
        return self.other_words + (self.same_words - self.other_words) * share


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalThreshold:
    """A fitted (or the default) decision; plain values, so that it is stored as JSON."""

    weights: Mapping[str, float]
    """Weight of each signal's raw value, by the signal's name; signals without a weight do not count."""
    bias: float
    """Refuse if the weighted signals plus the bias are below 0."""
    how: str
    """answers (by reading), logistic or default (by signals of the search), or off (nothing is refused)."""
    answerable: int = 0
    unanswerable: int = 0
    made: int = 0
    """How many of the unanswerable ones were constructed by leaving the gold document out."""
    balanced_accuracy: float | None = None
    """Of the chosen cut, cross-validated; None for the default."""
    auroc: float | None = None
    """Chance that an answerable question scores above an unanswerable one, cross-validated."""
    chosen: RefusalPoint | None = None
    """What the chosen cut refuses."""
    at_most: RefusalPoint | None = None
    """What the lowest cut refuses that refuses at least 90 % of the unanswerable questions."""
    curve: tuple[RefusalPoint, ...] = ()
    note: str = field(default="", kw_only=True)
    cuts: AnswerCuts | None = field(default=None, kw_only=True)
    """What ``answers`` must reach; then the weights are empty, and the score is how far it lies above the cut."""
    read: int = field(default=0, kw_only=True)
    """How many hits the answerability model reads, which are then shown in the order of their answers; 0 for none."""
    reader: str = field(default="", kw_only=True)
    """SHA-256 of the weights of the answerability model that it was fitted with."""
    gate: str = field(default="fitted", kw_only=True)
    """fitted, lenient or off, as the plan has it."""
    wordings: int = field(default=0, kw_only=True)
    """How many of the dev questions are other wordings of one."""
    sample: tuple[tuple[float, ...], ...] = field(default=(), kw_only=True)
    """Values of :data:`DRIFT_SIGNALS` of the questions that it was fitted on, at most 300."""

    def decide(self, question: str, hits: Sequence[Hit]) -> RefusalDecision:
        """Decide whether the hits show that the documents do not contain the answer; without hits always refuse.

        A threshold that reads needs hits with their ``answers`` (:meth:`rag.index.Index.read`).
        """
        signals = refusal_signals(question, hits)
        if self.cuts is not None:
            score = signals.answers - self.cuts.at(signals.coverage)
        else:
            score = sum(weight * getattr(signals, name) for name, weight in self.weights.items()) + self.bias
        return RefusalDecision(not hits or score < 0, score, signals)

    def refuses(self, question: str, hits: Sequence[Hit]) -> bool:
        """Return whether :meth:`decide` refuses."""
        return self.decide(question, hits).refuse

    def to_json(self) -> dict[str, Any]:
        """Return the threshold as a JSON object."""
        points: dict[str, Any] = {
            "chosen": self.chosen and self.chosen.to_json(),
            "at_most": self.at_most and self.at_most.to_json(),
            "curve": [point.to_json() for point in self.curve],
        }
        points["cuts"] = self.cuts and asdict(self.cuts)
        points["sample"] = [list(row) for row in self.sample]
        plain = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in points}
        return {"schema": SCHEMA, **plain, "weights": dict(self.weights), **points}

    @classmethod
    def from_json(cls, obj: dict[str, Any]) -> RefusalThreshold:
        """Return the threshold of a JSON object.

        Raises:
            BadInput: if the object is damaged or of a newer format.
        """
        try:
            obj = check_schema(obj, "refusal", "the refusal threshold")
            values = {item.name: obj[item.name] for item in fields(cls)}
            if unknown := sorted(set(values["weights"]) - set(SIGNAL_NAMES)):
                raise ValueError(f"unknown signal {unknown[0]}")
            weights = {name: float(weight) for name, weight in values["weights"].items()}
            chosen, at_most = (
                values[name] and RefusalPoint(**values[name]) for name in ("chosen", "at_most")
            )
            points = tuple(RefusalPoint(**point) for point in values["curve"])
            cuts = AnswerCuts(**values["cuts"]) if values["cuts"] else None
            sample = tuple(tuple(map(float, row)) for row in values["sample"])
            values |= {"weights": weights, "chosen": chosen, "at_most": at_most, "curve": points}
            return cls(**{**values, "cuts": cuts, "sample": sample})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(
                f"the refusal threshold is damaged: {error!r}", "fit it again with: tunewise run RUN --resume"
            ) from error


class Searchable(Protocol):
    """The part of an index that fitting needs."""

    def search_many(
        self, questions: Sequence[str], k: int, without: Sequence[Collection[str]] | None = None
    ) -> list[list[Hit]]:
        """Return the k best hits of each question; ``without`` names documents to leave out of each."""


SIGNAL_NAMES = tuple(field.name for field in fields(RefusalSignals))
SEARCH_SIGNALS = SIGNAL_NAMES[:-1]
"""The signals of the search alone, which the logistic model weighs."""
DRIFT_SIGNALS = ("answers", "coverage", "dense", "length")
"""The signals by which questions are compared with those that the threshold was fitted on."""
SAMPLED = 300
"""Most questions whose drift signals a threshold keeps."""


def fit_logistic(x: np.ndarray, y: np.ndarray, constructed: np.ndarray) -> tuple[np.ndarray, float]:
    """Fit the ridge logistic model: the weighted signals plus the bias are the log odds of being answerable.

    scikit-learn's ``LogisticRegression`` on standardised signals minimises the weighted logistic loss
    sum(share_i * log(1 + exp(-s_i * (w . z_i + b)))) + ridge / (2 n) * |w|², where s is 1 for answerable questions, else
    -1. Both classes have the same total weight, and so have real and constructed negatives.

    Args:
        x: raw signals, float [rows, signals].
        y: which rows are answerable, bool [rows].
        constructed: which of the others were constructed by leaving the gold document out, bool [rows].

    Returns:
        The weights [signals] for raw (not standardised) signals, and the bias.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    # Newton steps: the optimum to the last digits whatever the rows' order, where L-BFGS stops a few 1e-3 before it.
    # The shares add up to 1, so C is the inverse of ridge / n.
    model = LogisticRegression(C=len(y) / _RIDGE, solver="newton-cholesky", tol=1e-10, max_iter=100)
    model.fit(scaler.fit_transform(x), y, sample_weight=_shares(y, constructed))
    # undo the standardisation: w . (x - mean) / scale + b is (w / scale) . x + (b - mean . (w / scale))
    weights = model.coef_[0] / scaler.scale_
    return weights, float(model.intercept_[0] - scaler.mean_ @ weights)


def cross_validated_log_odds(
    x: np.ndarray, y: np.ndarray, constructed: np.ndarray, group: np.ndarray, folds: int = CV_FOLDS
) -> np.ndarray:
    """Return the log odds of each row, float [rows], by a fit that has not seen its group.

    A row stays 0 if the other folds have only one class, so that nothing can be fitted.

    Args:
        x: raw signals, float [rows, signals].
        y: which rows are answerable, bool [rows].
        constructed: which rows were constructed, bool [rows].
        group: number of the question that each row belongs to, int [rows]; its rows are in one fold.
        folds: number of folds at most.
    """
    scores = np.zeros(len(y))
    fold = group % min(folds, len(np.unique(group)))
    for number in np.unique(fold):
        train = fold != number
        if y[train].any() and not y[train].all():
            weights, bias = fit_logistic(x[train], y[train], constructed[train])
            scores[~train] = x[~train] @ weights + bias
    return scores


def best_cut(scores: np.ndarray, y: np.ndarray, constructed: np.ndarray) -> float:
    """Return the threshold with the best weighted accuracy, in the middle of its gap; the lowest of equals.

    Only thresholds that refuse at most the share :data:`MAX_WRONG_REFUSALS` of the answerable questions are considered. On
    scores of :func:`cross_validated_log_odds` that limit holds for new questions; on scores of a fit on the same questions
    more of the new ones are refused.

    Args:
        scores: high for answerable questions, float [rows].
        y: which rows are answerable, bool [rows].
        constructed: which rows were constructed, bool [rows].
    """
    cuts, right, wrong = refused_at_every_cut(scores, y, _shares(y, constructed))
    # Both classes weigh the same, so the accuracy grows with the difference of the shares refused. Rounding makes equal
    # sums exactly equal: 1 of 20 is within the limit, and argmax takes the lowest of equal thresholds.
    gain = np.where(np.round(wrong, 12) <= MAX_WRONG_REFUSALS, np.round(right - wrong, 12), -np.inf)
    return float(cuts[int(np.argmax(gain))])


def refusal_signals(question: str, hits: Sequence[Hit]) -> RefusalSignals:
    """Return the signals of a question's hits, given best first; all 0 without hits."""
    if not hits:
        return RefusalSignals()
    cosines = sorted((hit.dense for hit in hits[:SIGNAL_DEPTH]), reverse=True)
    question_words = frozenset(content_words(question)) or frozenset(words(question))
    title_words = frozenset(content_words(hits[0].chunk.title))
    texts = [f"{hit.chunk.title} {hit.chunk.heading} {hit.chunk.text}" for hit in hits[:_PROMPT_HITS]]
    return RefusalSignals(
        dense=cosines[0],
        lead=cosines[0] - float(np.mean(cosines)),
        margin=cosines[0] - float(np.mean(cosines[1:_PROMPT_HITS])) if len(cosines) > 1 else 0.0,
        coverage=max(_word_share(question_words, words(text)) for text in texts),
        body=_word_share(question_words, words(hits[0].chunk.text)),
        subject=_word_share(question_words, title_words),
        named=_word_share(title_words, question_words),
        length=float(len(question_words)),
        answers=max((hit.answers for hit in hits if hit.answers is not None), default=0.0),
    )


def question_coverage(question: str, text: str) -> float:
    """Return the share of a question's content words that a text contains, 0 to 1."""
    wanted = frozenset(content_words(question)) or frozenset(words(question))
    return _word_share(wanted, words(text))


def default_threshold(answerable: int = 0, unanswerable: int = 0) -> RefusalThreshold:
    """Return the threshold that is used if there are too few questions to fit on; its note says so."""
    note = (
        f"{answerable} answerable and {unanswerable} unanswerable dev questions are too few to fit a refusal "
        f"threshold ({MIN_QUESTIONS_PER_CLASS} of each are needed): the default is used"
    )
    return RefusalThreshold(
        weights=DEFAULT_WEIGHTS,
        bias=DEFAULT_BIAS,
        how="default",
        answerable=answerable,
        unanswerable=unanswerable,
        note=note,
    )


def fit_threshold(
    index: Searchable,
    questions: Sequence[tuple[str, str | None, bool]],
    wording_of: Sequence[str] | None = None,
) -> RefusalThreshold:
    """Fit the threshold on dev questions.

    Args:
        index: searched for every question.
        questions: (question, gold document or None, answerable) of each dev question.
        wording_of: id of the question that each is a wording of; None where each is a question of its own. Wordings of one
            are in one fold.
    """
    rows, labels, constructed, groups = _signal_rows(index, questions)
    if wording_of is not None:
        groups = np.unique(np.array(wording_of), return_inverse=True)[1][groups]
    positive = labels.count(True)
    negative = labels.count(False)
    if min(positive, negative) < MIN_QUESTIONS_PER_CLASS:
        return default_threshold(positive, negative)
    x = np.array([row.vector() for row in rows])
    y = np.array(labels)
    weights, bias = fit_logistic(x, y, constructed)
    scores = cross_validated_log_odds(x, y, constructed, groups)
    cut = best_cut(scores, y, constructed)
    scores = scores - cut
    bias = bias - cut
    chosen = refusal_point(0.0, scores, y)
    return RefusalThreshold(
        weights=dict(zip(SEARCH_SIGNALS, weights.tolist(), strict=True)),
        bias=bias,
        how="logistic",
        answerable=positive,
        unanswerable=negative,
        made=int(constructed.sum()),
        balanced_accuracy=round((chosen.right + 1 - chosen.wrong) / 2, 4),
        auroc=round(auroc(scores, y), 4),
        chosen=chosen,
        at_most=threshold_for_refusal_share(REPORTED_REFUSAL_SHARE, scores, y),
        curve=refusal_curve(scores, y),
        sample=drift_sample(rows[: len(questions)]),
    )


def drift_sample(signals: Sequence[RefusalSignals]) -> tuple[tuple[float, ...], ...]:
    """Return the :data:`DRIFT_SIGNALS` of questions, of at most :data:`SAMPLED` evenly chosen ones."""
    chosen = np.linspace(0, max(0, len(signals) - 1), min(SAMPLED, len(signals))).round().astype(int).tolist()
    return tuple(drift_values(signals[n]) for n in chosen)


def drift_values(signals: RefusalSignals) -> tuple[float, ...]:
    """Return the :data:`DRIFT_SIGNALS` of a question, rounded as they are stored: 1/3 must equal the stored 1/3."""
    return tuple(round(float(getattr(signals, name)), 4) for name in DRIFT_SIGNALS)


def _shares(y: np.ndarray, constructed: np.ndarray) -> np.ndarray:
    """Return each row's weight, float [rows]; each class sums to 1/2, and real and constructed negatives to 1/4 each."""
    share = np.zeros(len(y))
    share[y] = 0.5 / max(1, y.sum())
    kinds = [kind for kind in (~y & ~constructed, ~y & constructed) if kind.any()]
    for kind in kinds:
        share[kind] = 0.5 / len(kinds) / kind.sum()
    return share


def _word_share(wanted: frozenset[str], present: Sequence[str] | frozenset[str]) -> float:
    """Return the share of the wanted words that are present; 0 if none are wanted."""
    return len(wanted.intersection(present)) / len(wanted) if wanted else 0.0


def _signal_rows(
    index: Searchable, questions: Sequence[tuple[str, str | None, bool]]
) -> tuple[list[RefusalSignals], list[bool], np.ndarray, np.ndarray]:
    """Search the questions, and again without their gold document if unanswerable ones are missing.

    Returns:
        The signals of each row; whether each row is answerable; which rows were constructed, bool [rows]; and the number of
        each row's question, int [rows].
    """
    texts = [question for question, _, _ in questions]
    hits_of_questions = index.search_many(texts, SIGNAL_DEPTH) if texts else []
    rows = [refusal_signals(question, hits) for question, hits in zip(texts, hits_of_questions, strict=True)]
    labels = [answerable for _, _, answerable in questions]
    groups = list(range(len(questions)))
    removable = [
        (n, question, doc) for n, (question, doc, answerable) in enumerate(questions) if answerable and doc
    ]
    if labels.count(False) < MIN_REAL_UNANSWERABLE and removable:
        without = [[doc] for _, _, doc in removable]
        again = index.search_many([question for _, question, _ in removable], SIGNAL_DEPTH, without)
        rows += [
            refusal_signals(question, hits) for (_, question, _), hits in zip(removable, again, strict=True)
        ]
        labels += [False] * len(removable)
        groups += [n for n, _, _ in removable]
    constructed = np.arange(len(rows)) >= len(questions)
    return rows, labels, constructed, np.array(groups)

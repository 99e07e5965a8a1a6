"""The gate before an answer: whether the documents seem to hold it, decided by reading the first hits.

:func:`fit_gate` makes the :class:`rag.grounding.refusal.RefusalThreshold` of an index. With the answerability model
(:mod:`rag.embedding.answerability`) a question is refused where none of the hits read seems to answer it. How likely an
answer must be depends on the question's wording: the cut for questions worded like the documents is set on the user's dev
questions, the one for other words on dev questions in such words, or else on the houses of :data:`SHIPPED_CUTS`.
:func:`read_hits` is what happens to the hits of every search: the first are read, the decision is made, and those that
answer come first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np

from rag.embedding.reranker import Scorer, by_answers
from rag.grounding import curve, refusal
from rag.grounding.curve import evenly
from rag.grounding.refusal import AnswerCuts, RefusalDecision, RefusalSignals, RefusalThreshold
from rag.types import Hit

Gate = Literal["fitted", "lenient", "off"]
READ = 12
"""Hits that are read: see benchmarks/LOG.md for other numbers."""
SHIPPED_CUTS = AnswerCuts(other_words=-0.9, same_words=-0.9, few=0.3, many=0.7)
"""For questions in any wording, chosen on three houses that the model was not trained on: two of benchmarks/houses/dev
and the dev half of one that is not in the project (benchmarks/LOG.md)."""
LENIENT_CUT = -3.5
"""Under which at most 1 % of the answerable questions of these houses fall, whatever their wording."""
NO_MODEL_LENIENT_COSINE = 0.15
"""Without the model, a lenient gate refuses what has no passage nearer than this."""
MIN_PER_CUT = 8
"""Answerable dev questions needed on a side before its cut is set on them."""
MARGIN = 1.0
"""How far below what dev allows the cut for the documents' words is set: a few dozen questions show only roughly where the
lowest twentieth lies, and hardly any unanswerable question lies just below it (benchmarks/LOG.md)."""
SPLIT = 0.5
"""``coverage`` that divides dev questions into those worded like the documents and others."""
MOST_OF_A_LOG = 0.25
"""Most of the questions of a log, which have no labels, that the gate may refuse: most of them will be answerable."""
MOST_LOG_QUESTIONS = 100
"""Questions of a log that are read: enough for its quarter, in half a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DevQuestion:
    """A dev question in one of its wordings."""

    question: str
    doc: str | None = None
    """The document with the answer, where it is known."""
    answerable: bool = True
    group: str = ""
    """Id of the question that this is a wording of; "" where it is the only one."""
    wording: int = 0
    """0 for the question itself, 1 and up for its other wordings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSettings:
    """How a gate is fitted."""

    gate: Gate = "fitted"
    most_wrong: float = refusal.MAX_WRONG_REFUSALS
    """Largest share of the answerable dev questions that may be refused, in the worst wording."""
    reader: Scorer | None = None
    """The answerability model; None where it cannot be used."""
    why_not_read: str = ""
    """Why there is no reader, for the note."""


class Readable(refusal.Searchable, Protocol):
    """The part of an index that fitting needs."""

    def read(self, reader: Scorer, question: str, hits: Sequence[Hit], depth: int) -> list[Hit]:
        """Return hits in their order, the first ``depth`` with the log odds that they answer the question."""


def read_hits(
    index: Readable, threshold: RefusalThreshold, reader: Scorer | None, question: str, hits: Sequence[Hit]
) -> tuple[list[Hit], RefusalDecision]:
    """Return the hits of a search in the order in which they are shown, and whether the question is refused.

    Args:
        index: that was searched.
        threshold: of the index.
        reader: the answerability model; needed where the threshold reads.
        question: the question.
        hits: of its search, best first.
    """
    if not threshold.read or reader is None:
        return list(hits), threshold.decide(question, hits)
    read = index.read(reader, question, hits, threshold.read)
    return by_answers(read), threshold.decide(question, read)


def fit_gate(
    index: Readable, questions: Sequence[DevQuestion], settings: GateSettings, log: Sequence[str] = ()
) -> RefusalThreshold:
    """Fit the refusal threshold of an index.

    Args:
        index: searched for every question.
        questions: dev questions with their wordings.
        settings: which gate, and with what.
        log: questions without labels, in the words that customers use.
    """
    if settings.gate == "off":
        return RefusalThreshold(
            weights={}, bias=1.0, how="off", gate="off", note="nothing is refused before the model is asked"
        )
    if settings.reader is None:
        return _without_reading(index, questions, settings)
    reader = _Remembering(settings.reader)
    rows = _read_rows(index, questions, reader)
    asked = _signals_of(index, reader, evenly(log, MOST_LOG_QUESTIONS))
    cuts = _cuts(rows, settings, asked)
    answerable = np.array([row.answerable for row in rows], dtype=bool)
    constructed = np.array([row.made for row in rows], dtype=bool)
    own = [row for row in rows if not row.made]
    threshold = RefusalThreshold(
        weights={},
        bias=0.0,
        how="answers",
        answerable=int(answerable.sum()),
        unanswerable=int((~answerable).sum()),
        made=int(constructed.sum()),
        note=_note(own, settings),
        cuts=cuts,
        read=READ,
        gate=settings.gate,
        wordings=sum(row.wording > 0 for row in own),
        sample=refusal.drift_sample([*(row.signals for row in own), *asked]),
    )
    if not answerable.any() or answerable.all():
        return threshold
    scores = _held_out_scores(rows, settings, asked)
    chosen = curve.refusal_point(0.0, scores, answerable)
    return replace(
        threshold,
        balanced_accuracy=round((chosen.right + 1 - chosen.wrong) / 2, 4),
        auroc=round(curve.auroc(scores, answerable), 4),
        chosen=chosen,
        at_most=curve.threshold_for_refusal_share(refusal.REPORTED_REFUSAL_SHARE, scores, answerable),
        curve=curve.refusal_curve(scores, answerable),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A dev question that was searched and read, with or without its gold document."""

    signals: RefusalSignals
    answerable: bool
    made: bool
    """Whether it is unanswerable because its gold document was left out."""
    group: str
    wording: int


def _read_rows(index: Readable, questions: Sequence[DevQuestion], reader: Scorer) -> list[_Row]:
    """Search and read the questions, and again without their gold document if unanswerable ones are missing."""
    texts = [question.question for question in questions]
    signals = _signals_of(index, reader, texts)
    rows = [
        _Row(
            signals=own,
            answerable=question.answerable,
            made=False,
            group=question.group or str(number),
            wording=question.wording,
        )
        for number, (question, own) in enumerate(zip(questions, signals, strict=True))
    ]
    removable = [n for n, question in enumerate(questions) if question.answerable and question.doc]
    if sum(not question.answerable for question in questions) >= refusal.MIN_REAL_UNANSWERABLE:
        return rows
    without = [[str(questions[n].doc)] for n in removable]
    again = _signals_of(index, reader, [texts[n] for n in removable], without)
    return rows + [
        replace(rows[n], signals=own, answerable=False, made=True)
        for n, own in zip(removable, again, strict=True)
    ]


def _signals_of(
    index: Readable, reader: Scorer, texts: Sequence[str], without: Sequence[Sequence[str]] | None = None
) -> list[RefusalSignals]:
    if not texts:
        return []
    results = index.search_many(texts, refusal.SIGNAL_DEPTH, without)
    return [
        refusal.refusal_signals(text, index.read(reader, text, hits, READ))
        for text, hits in zip(texts, results, strict=True)
    ]


def _cuts(rows: Iterable[_Row], settings: GateSettings, log: Sequence[RefusalSignals]) -> AnswerCuts:
    """Return the cuts that dev questions allow: each side's is set on its own, in the worst wording."""
    if settings.gate == "lenient":
        return replace(SHIPPED_CUTS, other_words=LENIENT_CUT, same_words=LENIENT_CUT)
    most_wrong = settings.most_wrong
    good = [row for row in rows if row.answerable]
    same = [row for row in good if row.signals.coverage >= SPLIT]
    other = [row for row in good if row.signals.coverage < SPLIT]
    cuts = SHIPPED_CUTS
    if (cut := _worst_cut(other, most_wrong)) is not None:
        cuts = replace(cuts, other_words=cut)
    if (cut := _worst_cut(same, most_wrong)) is not None:
        cuts = replace(cuts, same_words=max(cut - MARGIN, cuts.other_words))
    unlabelled = sorted(signals.answers for signals in log if signals.coverage < SPLIT)
    if len(unlabelled) >= MIN_PER_CUT:
        cuts = replace(cuts, other_words=min(cuts.other_words, _gap(unlabelled, MOST_OF_A_LOG)))
    return cuts


def _worst_cut(rows: Sequence[_Row], most_wrong: float) -> float | None:
    """Return the cut that refuses at most a share of the rows of each wording; None with too few of every wording."""
    answers: dict[int, list[float]] = {}
    for row in rows:
        answers.setdefault(row.wording, []).append(row.signals.answers)
    cuts = [_gap(sorted(values), most_wrong) for values in answers.values() if len(values) >= MIN_PER_CUT]
    return min(cuts, default=None)


def _gap(values: Sequence[float], share: float) -> float:
    """Return a cut in the middle of the gap above at most a share of ascending values."""
    below = int(share * len(values) + 1e-9)
    return (values[below - 1] + values[below]) / 2 if below else values[0] - 1e-6


def _held_out_scores(
    rows: Sequence[_Row], settings: GateSettings, log: Sequence[RefusalSignals]
) -> np.ndarray:
    """Return how far each row's answers lie above cuts that its question did not set, float [rows]."""
    groups = {group: n for n, group in enumerate(dict.fromkeys(row.group for row in rows))}
    folds = np.array([groups[row.group] % refusal.CV_FOLDS for row in rows])
    scores = np.zeros(len(rows))
    for fold in range(refusal.CV_FOLDS):
        cuts = _cuts((row for row, own in zip(rows, folds, strict=True) if own != fold), settings, log)
        for n in np.flatnonzero(folds == fold).tolist():
            signals = rows[n].signals
            scores[n] = signals.answers - cuts.at(signals.coverage)
    return scores


def _without_reading(
    index: Readable, questions: Sequence[DevQuestion], settings: GateSettings
) -> RefusalThreshold:
    """Return a threshold on the signals of the search, which notice shared words more than the answer."""
    note = (
        f"the passages are not read before an answer: {settings.why_not_read}"
        if settings.why_not_read
        else ""
    )
    if settings.gate == "lenient":
        weights = {"dense": 1.0}
        return RefusalThreshold(
            weights=weights, bias=-NO_MODEL_LENIENT_COSINE, how="default", gate="lenient", note=note
        )
    fitted = refusal.fit_threshold(
        index,
        [(row.question, row.doc, row.answerable) for row in questions],
        [row.group or str(number) for number, row in enumerate(questions)],
    )
    wordings = sum(row.wording > 0 for row in questions)
    note = "; ".join(text for text in (fitted.note, note) if text)
    return replace(fitted, note=note, wordings=wordings)


def _note(rows: Sequence[_Row], settings: GateSettings) -> str:
    """Return for which wording the gate holds."""
    if settings.gate == "lenient":
        return "only what is clearly outside the documents in any wording is refused"
    good = [row for row in rows if row.answerable]
    same = sum(row.signals.coverage >= SPLIT for row in good)
    other = len(good) - same
    parts = [
        f"for questions in the documents' words it is set on {same} dev questions"
        if same >= MIN_PER_CUT
        else "for questions in the documents' words it is the shipped one",
        f"for other words on {other}" if other >= MIN_PER_CUT else "for other words it is the shipped one",
    ]
    return "; ".join(parts)


class _Remembering:
    """A reader that reads a passage for a question once: without its gold document a search finds mostly the same."""

    def __init__(self, reader: Scorer) -> None:
        self._reader = reader
        self._known: dict[tuple[str, str], float] = {}

    @property
    def truncated(self) -> int:
        return self._reader.truncated

    def scores(self, question: str, texts: Sequence[str]) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if (question, text) not in self._known]
        for text, score in zip(new, self._reader.scores(question, new), strict=True):
            self._known[question, text] = float(score)
        return np.array([self._known[question, text] for text in texts], dtype=np.float32)

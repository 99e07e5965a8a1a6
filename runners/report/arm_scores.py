"""The scores of one arm on every question, with what their means and intervals need: weights, wordings, documents, seeds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import mul
from statistics import fmean
from typing import Any

from rag.evaluation.clusters import LEVEL, linearised, mean_by_question, weighted_questions
from rag.evaluation.prediction_powered import LabelledDifferences, PredictionPowered, prediction_powered

ITSELF = ""
"""Among :attr:`ArmScores.graded`, the arm's own grades: its difference to an arm that answers nothing right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GradedRows:
    """People's labels and a judge's grades of one arm less those of another, with the row that each is about."""

    asked: tuple[str, ...]
    differences: LabelledDifferences

    def of(self, asked: Collection[str]) -> GradedRows:
        """Return those of some rows."""
        at = [n for n, row in enumerate(self.asked) if row in asked]
        rows = self.differences
        return GradedRows(
            asked=tuple(self.asked[n] for n in at),
            differences=LabelledDifferences(
                labels=[rows.labels[n] for n in at],
                predicted=[rows.predicted[n] for n in at],
                chances=[rows.chances[n] for n in at],
                questions=[rows.questions[n] for n in at],
                sources=[rows.sources[n] for n in at],
                weights=[rows.weights[n] for n in at],
                same=[rows.same[n] for n in at] if rows.same else (),
            ),
        )

    def mean_grade(self, level: float = LEVEL) -> PredictionPowered:
        """Return the mean of an arm's own grades (:data:`ITSELF`), which with its interval lies between 0 and 1."""
        mean = prediction_powered(self.differences, level=level, any_time=True)
        low, middle, high = (min(1.0, max(0.0, value)) for value in (mean.low, mean.difference, mean.high))
        return replace(mean, difference=middle, low=low, high=high)

    def reversed(self) -> GradedRows:
        """Return the other arm less this one."""
        rows = self.differences
        labels = [None if label is None else -label for label in rows.labels]
        return replace(
            self, differences=replace(rows, labels=labels, predicted=[-value for value in rows.predicted])
        )


@dataclass(frozen=True, slots=True)
class ArmScores:
    """One arm's scores, one per question, in the order of the test questions."""

    arm: str
    questions: tuple[str, ...]
    scores: tuple[dict[str, float], ...]
    combined: tuple[float, ...]
    seconds: tuple[float, ...]
    prompt_tokens: tuple[int, ...]
    completion_tokens: tuple[int, ...]
    documents: tuple[str | None, ...] = ()
    """The source document of each question; () when it was not recorded."""
    seeds: tuple[tuple[int, float], ...] = ()
    """(seed, mean combined score) of each seed; () when they were not recorded."""
    question_weights: tuple[float, ...] = ()
    """Weight of each question in the arm's mean, 1 on average; () when all are 1. See :func:`question_weights`."""
    made: tuple[bool, ...] = ()
    """Whether each question was made from the documents; () when none was."""
    wording_of: tuple[str | None, ...] = ()
    """The question that each one asks in other words, None for one as its row has it; () when none has other wordings."""
    hits: tuple[float | None, ...] = ()
    """Whether the gold document is among the passages shown, None where no document is known; () where nothing was looked
    up, or it was not recorded. With several seeds it is their mean."""
    asked: tuple[float, ...] = ()
    """How often each question is asked, 1 on average, as the weights of its rows say; () when all are equal. It is part of
    ``question_weights``."""
    graded: Mapping[str, GradedRows] = field(default_factory=dict)
    """By other arm, where the judge's grades count for the comparison with it (:mod:`runners.judging.calibration`)."""

    def of_origin(self, from_documents: bool) -> ArmScores:
        """Return the scores of the made questions alone, or of the others; the means of the seeds are of all questions."""
        marks = self.made or (False,) * len(self.questions)
        return self.part([mark == from_documents for mark in marks])

    def of_wordings(self, other: bool) -> ArmScores:
        """Return the scores of the other wordings alone, or of the questions as their rows have them."""
        marks = self.wording_of or (None,) * len(self.questions)
        return self.part([(mark is not None) == other for mark in marks])

    def part(self, of_part: Sequence[bool]) -> ArmScores:
        """Return the scores of some questions; the means of the seeds are of all questions."""
        at = [n for n, inside in enumerate(of_part) if inside]

        def pick(values: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(values[n] for n in at) if values else ()

        fields = (
            "questions",
            "scores",
            "combined",
            "seconds",
            "prompt_tokens",
            "completion_tokens",
            "documents",
        )
        optional = ("question_weights", "made", "wording_of", "hits", "asked")
        picked: dict[str, Any] = {name: pick(getattr(self, name)) for name in (*fields, *optional)}
        graded = {other: rows.of(picked["questions"]) for other, rows in self.graded.items()}
        return replace(self, **picked, graded={other: rows for other, rows in graded.items() if rows.asked})

    @property
    def originals(self) -> tuple[str, ...]:
        """The id of the question itself for each that was asked: a wording has that of its question."""
        if not self.wording_of:
            return self.questions
        return tuple(of or id for id, of in zip(self.questions, self.wording_of, strict=True))

    @property
    def question_count(self) -> int:
        """How many questions were asked, other wordings of one not counted."""
        return len(set(self.originals))

    @property
    def weighted(self) -> tuple[float, ...]:
        """Combined score times weight of each question: the values whose differences are tested."""
        weights = self.question_weights or (1.0,) * len(self.combined)
        return tuple(score * weight for score, weight in zip(self.combined, weights, strict=True))

    @property
    def mean_score(self) -> float:
        """The weighted mean of the combined scores; 0 without questions."""
        total = sum(self.question_weights) or len(self.combined)
        return sum(self.weighted) / total if total else 0.0

    def of(self, name: str) -> list[float]:
        """Return one score's values over the questions that have it."""
        return [scores[name] for scores in self.scores if name in scores]

    def originals_of(self, name: str) -> list[str]:
        """Return the id of the question itself for each value of :meth:`of`."""
        return [id for id, scores in zip(self.originals, self.scores, strict=True) if name in scores]

    def by_question(self, name: str) -> list[float]:
        """Return one value of a score for each question: the mean over its wordings, as :func:`mean_by_question` has it."""
        return mean_by_question(self.of(name), self.originals_of(name), self._asked_of(name))

    def _asked_of(self, name: str) -> list[float]:
        """Return how often each question that has a score is asked; [] when all are equal."""
        if name == "combined":
            return list(self.question_weights if self.asked else ())
        return [times for times, scores in zip(self.asked, self.scores, strict=False) if name in scores]

    def weights_by_question(self, name: str) -> list[float]:
        """Return how often each question is asked, in the order of :meth:`shown`; [] when all are asked as often."""
        weights = self._asked_of(name)
        originals = self.originals if name == "combined" else self.originals_of(name)
        return weighted_questions(weights, originals, weights)[1] if weights else []

    def mean_of(self, name: str) -> float:
        """Return the mean of a score over what was asked, of the questions that have it."""
        values, weights = self.of(name), self._asked_of(name)
        if not weights:
            return fmean(values)
        return sum(map(mul, values, weights)) / sum(weights)

    def shown(self, name: str) -> list[float]:
        """Return the values whose mean and interval are a score as it is shown, one for each question.

        They are those of :meth:`by_question`, but for two weighted means: ``combined``, whose questions have weights, and a
        balanced ``refusal``: half the share of right refusals among the questions without an answer plus half the share of
        questions with an answer that were not refused. An arm that never refuses gets .5, however few questions
        have no answer.
        """
        if name == "combined":
            if self.asked:
                return mean_by_question(self.combined, self.originals, self.question_weights)
            return mean_by_question(linearised(self.combined, self.question_weights), self.originals)
        values = self.of(name)
        without = [("correct_refusal" in scores) for scores in self.scores if name in scores]
        count = sum(without)
        if name != "refusal" or not 0 < count < len(values):
            return self.by_question(name)
        weights = {True: len(values) / (2 * count), False: len(values) / (2 * (len(values) - count))}
        if asked := self._asked_of(name):
            total = {
                lacks: sum(times for times, of in zip(asked, without, strict=True) if of is lacks)
                for lacks in weights
            }
            parts = [times / total[lacks] for times, lacks in zip(asked, without, strict=True)]
            return mean_by_question(values, self.originals_of(name), parts)
        balanced = linearised(values, [weights[lacks] for lacks in without])
        return mean_by_question(balanced, self.originals_of(name))

    def sources(self, name: str | None = None) -> list[str | None]:
        """Return the document of each question, or of those that have one score, in the order of :meth:`by_question`."""
        documents = self.documents or (None,) * len(self.questions)
        rows = zip(self.originals, documents, self.scores, strict=True)
        of_question: dict[str, str | None] = {}
        for question, document, scores in rows:
            if name is None or name in scores:
                of_question.setdefault(question, document)
        return list(of_question.values())

    @property
    def tokens(self) -> float:
        """Mean tokens per answer, prompt and completion together."""
        return fmean(self.prompt_tokens) + fmean(self.completion_tokens) if self.questions else 0.0

    @property
    def seed_spread(self) -> float:
        """The mean score of the best seed minus that of the worst; 0 with one seed."""
        means = [mean for _, mean in self.seeds]
        return max(means) - min(means) if means else 0.0


def judged_rows(arms: Sequence[ArmScores]) -> tuple[ArmScores, ...]:
    """Return the scores on rows whose gold says whether an answer is right; on all rows where none or all have such gold.

    An answer that nothing judges would count 0 for every arm, and make all differences smaller than they are. Where a
    judge's grades count for a pair (:attr:`ArmScores.graded`), all rows stay: it has graded these too.
    """
    judged = {id for arm in arms for id, of in zip(arm.questions, arm.scores, strict=True) if "right" in of}
    if not judged or any(arm.graded for arm in arms):
        return tuple(arms)
    return tuple(arm.part([id in judged for id in arm.questions]) for arm in arms)


def rows_without_gold(arms: Sequence[ArmScores]) -> int:
    """Return how many rows :func:`judged_rows` leaves out."""
    asked, judged = ({id for arm in of for id in arm.questions} for of in (arms, judged_rows(arms)))
    return len(asked - judged)

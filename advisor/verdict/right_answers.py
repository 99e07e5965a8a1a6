"""How many of an arm's answers are right, with the interval, and apart for questions with and without an answer.

:func:`by_wording` counts the questions as their rows have them apart from their other wordings.

What counts as right is the score ``right`` of :mod:`runners.scoring`; here it is counted, each wording of a question for
itself. With several training seeds a question counts by its mean over them, so the counts are rounded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rag.evaluation.statistics import clustered_share
from rag.refusal.relevance import BESIDE
from runners.trial.trial import ArmScores

RIGHT = "right"
"""The score that is counted."""
UNANSWERABLE_SCORE = "correct_refusal"
"""The score that exactly the questions without an answer have."""


@dataclass(frozen=True, slots=True)
class AnswerCount:
    """How many of some questions were answered rightly."""

    n: int
    of: int

    @property
    def text(self) -> str:
        """The count in words: 48 of 65."""
        return f"{self.n} of {self.of}"

    def to_json(self) -> dict[str, int]:
        """Return the count as the report has it."""
        return {"n": self.n, "of": self.of}


@dataclass(frozen=True, slots=True)
class RightAnswers:
    """The right answers of one arm."""

    total: AnswerCount
    low: float
    """Lower end of the 95 % interval of the share, clustered by document and by question."""
    high: float
    answered: AnswerCount
    """Right answers to the questions that have an answer."""
    refused: AnswerCount
    """Right refusals of the questions without an answer."""

    @property
    def text(self) -> str:
        """The count in words: 48 of 65."""
        return self.total.text

    @property
    def share(self) -> float:
        """The share of right answers."""
        return self.total.n / self.total.of

    def to_json(self) -> dict[str, Any]:
        """Return counts and interval as the report has them."""
        return {
            **self.total.to_json(),
            "low": self.low,
            "high": self.high,
            "answered": self.answered.to_json(),
            "refused": self.refused.to_json(),
        }


def right_answers(arm: ArmScores) -> RightAnswers | None:
    """Return the right answers of an arm; None when no answer could be judged, as in a run without gold."""
    values = arm.of(RIGHT)
    if not values:
        return None
    without = [scores[RIGHT] for scores in arm.scores if RIGHT in scores and UNANSWERABLE_SCORE in scores]
    interval = clustered_share(arm.by_question(RIGHT), arm.sources(RIGHT))
    total, refused = _count(values), _count(without)
    # The difference, so that the two parts add up to the whole where means over seeds are rounded.
    answered = AnswerCount(total.n - refused.n, total.of - refused.of)
    return RightAnswers(total, interval.low, interval.high, answered, refused)


@dataclass(frozen=True, slots=True, kw_only=True)
class WordingCounts:
    """What became of the questions as their rows have them, or of their other wordings."""

    right: RightAnswers | None
    """None where no answer could be judged."""
    refused_wrongly: AnswerCount
    """Of the questions that have an answer."""
    refused_rightly: AnswerCount
    """Of those without."""
    hit: AnswerCount | None
    """Questions whose gold document is among the passages shown; None where nothing was looked up."""

    def to_json(self) -> dict[str, Any]:
        """Return the counts as the report has them."""
        counts = {
            "right": self.right.to_json() if self.right else None,
            "refused_wrongly": self.refused_wrongly.to_json(),
            "refused_rightly": self.refused_rightly.to_json(),
        }
        return counts | ({"hit": self.hit.to_json()} if self.hit else {})


def by_wording(arm: ArmScores) -> dict[str, WordingCounts]:
    """Return the counts of an arm's questions (``question``) and of their other wordings (``wordings``); {} without any."""
    if not any(arm.wording_of):
        return {}
    parts = {"question": arm.of_wordings(other=False), "wordings": arm.of_wordings(other=True)}
    return {
        name: WordingCounts(
            right=right_answers(part),
            refused_wrongly=_count(part.of("false_refusal")),
            refused_rightly=_count(part.of(UNANSWERABLE_SCORE)),
            hit=_count(hits) if (hits := [hit for hit in part.hits if hit is not None]) else None,
        )
        for name, part in parts.items()
    }


def _count(values: Sequence[float]) -> AnswerCount:
    """Return how many of some values between 0 and 1 there are, rounded where they are means over seeds."""
    return AnswerCount(math.floor(sum(values) + 0.5), len(values))


def is_beside(row: Mapping[str, Any]) -> bool:
    """Return whether a row of the journal is an answer whose citations seem not to be what was asked."""
    return any(citation.get("support") == BESIDE for citation in row.get("citations") or ())


def beside_answers(rows: Sequence[Mapping[str, Any]], arm: str) -> AnswerCount:
    """Return how many of the answers that an arm gave, refusals left out, are marked as beside the question.

    Args:
        rows: of the journal; the answers of every seed count.
        arm: the arm.
    """
    given = [row for row in rows if row["arm"] == arm and not row.get("refused")]
    return AnswerCount(sum(map(is_beside, given)), len(given))

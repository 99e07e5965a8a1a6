"""How many of an arm's answers are right, with the interval, and apart for questions with and without an answer.

What counts as right is the score ``right`` of :mod:`runners.scoring`; here it is counted. With several training
seeds a question counts by its mean over them, so the counts are rounded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rag.evaluation.statistics import clustered_share
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
    """Lower end of the 95 % interval of the share, clustered by document."""
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
    interval = clustered_share(values, arm.sources(RIGHT))
    total, refused = (AnswerCount(math.floor(sum(row) + 0.5), len(row)) for row in (values, without))
    # The difference, so that the two parts add up to the whole where means over seeds are rounded.
    answered = AnswerCount(total.n - refused.n, total.of - refused.of)
    return RightAnswers(total, interval.low, interval.high, answered, refused)

"""How many of an arm's answers are right, with the interval, and apart for questions with and without an answer.

:func:`by_wording` counts the questions as their rows have them apart from their other wordings.

What counts as right is the score ``right`` of :mod:`runners.scoring`; here it is counted, each wording of a question for
itself. With several training seeds a question counts by its mean over them, so the counts are rounded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from advisor.verdict.comparison import RIGHT
from rag.evaluation.statistics import clustered_share
from rag.refusal.relevance import BESIDE
from runners.report.records import AnswerCount, ByWording, RightAnswers, WordingCounts
from runners.trial.trial import ArmScores

UNANSWERABLE_SCORE = "correct_refusal"
"""The score that exactly the questions without an answer have."""


def right_answers(arm: ArmScores) -> RightAnswers | None:
    """Return the right answers of an arm; None when no answer could be judged, as in a run without gold."""
    values = arm.of(RIGHT)
    if not values:
        return None
    without = [scores[RIGHT] for scores in arm.scores if RIGHT in scores and UNANSWERABLE_SCORE in scores]
    weights = arm.weights_by_question(RIGHT)
    interval = clustered_share(arm.by_question(RIGHT), arm.sources(RIGHT), weights=weights)
    total, refused = counted(values), counted(without)
    # The difference, so that the two parts add up to the whole where means over seeds are rounded.
    answered = AnswerCount(n=total.n - refused.n, of=total.of - refused.of)
    return RightAnswers(
        n=total.n,
        of=total.of,
        low=interval.low,
        high=interval.high,
        answered=answered,
        refused=refused,
        asked_share=interval.mean if weights else None,
    )


def by_wording(arm: ArmScores) -> ByWording | None:
    """Return the counts of an arm's questions and of their other wordings; None without any."""
    if not any(arm.wording_of):
        return None
    parts = [arm.of_wordings(other=other) for other in (False, True)]
    question, wordings = (
        WordingCounts(
            right=right_answers(part),
            refused_wrongly=counted(part.of("false_refusal")),
            refused_rightly=counted(part.of(UNANSWERABLE_SCORE)),
            hit=counted(hits) if (hits := [hit for hit in part.hits if hit is not None]) else None,
        )
        for part in parts
    )
    return ByWording(question=question, wordings=wordings)


def counted(values: Sequence[float]) -> AnswerCount:
    """Return how many of some values between 0 and 1 there are, rounded where they are means over seeds."""
    return AnswerCount(n=math.floor(sum(values) + 0.5), of=len(values))


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
    return AnswerCount(n=sum(map(is_beside, given)), of=len(given))

"""Weights of the combined score, from answers and checks alone, each with its reason; fixed before a run.

They grade right answers: an answer that is not right scores 0 whatever the weights are. Weights of scores that being
right includes (refusal, label, agreement ...) grade the answers to questions without gold, and are shown for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from advisor.questionnaire.profile import Profile
from runners.data.questions import Question
from runners.plan.schema import StyleCheck
from runners.scoring.scores import marks_answer

_SHAPES = {"labels": "the labels", "json": "JSON of the examples' shape"}


@dataclass(frozen=True, slots=True)
class ScoreWeight:
    """The weight of one score, and the answer that gives it."""

    name: str
    weight: float
    reason: str


def score_weights(
    profile: Profile, checks: Sequence[StyleCheck], questions: Sequence[Question]
) -> tuple[ScoreWeight, ...]:
    """Return the weights above zero, in the order of a plan."""
    kinds = {check.kind for check in checks}
    shape = "labels" if "labels" in kinds else "json" if "json_schema" in kinds else "free"
    weights = [_style_weight(profile, shape)] if checks else []
    weights += _correctness_weights(profile, checks, questions, shape)
    if profile.must_cite:
        weights.append(ScoreWeight("citation", 0.5, "answers must name their source"))
    if any(not question.answerable for question in questions):
        costly = profile.wrong_answer_cost == "high"
        why = "some questions have no answer" + (" and a wrong answer is expensive" if costly else "")
        weights.append(ScoreWeight("refusal", 1.0 if costly else 0.5, why))
    if profile.absence_is_legal and shape != "labels":
        costly = profile.wrong_answer_cost == "high"
        why = '"not stated" can be right' + (
            " and a wrong answer is expensive" if costly else ", an invented value never"
        )
        weights.append(ScoreWeight("spurious", 1.0 if costly else 0.5, why))
    return tuple(weights)


def _style_weight(profile: Profile, shape: str) -> ScoreWeight:
    """Return the weight of the style checks."""
    if shape != "free":
        return ScoreWeight("style", 0.5, f"what reads the answers takes {_SHAPES[shape]} only")
    far = ", and the model is far from it" if profile.behaviour_gap == "high" else ""
    return ScoreWeight("style", 1.0, f"the examples have a style of their own{far}")


def _correctness_weights(
    profile: Profile, checks: Sequence[StyleCheck], questions: Sequence[Question], shape: str
) -> list[ScoreWeight]:
    """Return the weights for correctness: label, JSON slots, final answer, or facts and wording."""
    weights = []
    if profile.needs_facts or any(question.fact or question.spans for question in questions):
        weights += [
            ScoreWeight(
                "fact_recall", 1.0, "of two right answers the one that has more of the fact is better"
            ),
            ScoreWeight("agreement", 0.5, "a wrong number or a wrong yes is worse than a missing word"),
        ]
    if shape == "labels":
        weights.append(ScoreWeight("label", 1.0, "every question has one right label"))
    elif shape == "json":
        weights.append(ScoreWeight("slot_f1", 1.0, "the slots of the JSON are the answer"))
    elif marks_answer(checks):
        weights.append(ScoreWeight("final_answer", 1.0, "a reply is right when what it comes to is"))
    else:
        weights.append(ScoreWeight("token_f1", 0.5, "the wording should be near the reference"))
    return weights

"""Weights of the combined score from the answers alone, each with its reason; fixed before any arm runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from advisor.questionnaire.profile import Profile
from runners.data.questions import Question
from runners.plan.schema import StyleCheck
from runners.scoring.scores import marks_answer


@dataclass(frozen=True, slots=True)
class ScoreWeight:
    """How much one score counts, and what was said that makes it count."""

    name: str
    weight: float
    reason: str


def score_weights(
    profile: Profile, checks: Sequence[StyleCheck], questions: Sequence[Question]
) -> tuple[ScoreWeight, ...]:
    """Return the weights above zero, in the order of their mention in a plan."""
    kinds = {check.kind for check in checks}
    shape = "labels" if "labels" in kinds else "json" if "json_schema" in kinds else "free"
    weights = [_style(profile, shape)] if checks else []
    weights += _right(profile, checks, questions, shape)
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


def _style(profile: Profile, shape: str) -> ScoreWeight:
    if shape != "free":
        return ScoreWeight("style", 0.5, f"what reads the answers takes {_SHAPES[shape]} only")
    far = ", and the model is far from it" if profile.behaviour_gap == "high" else ""
    return ScoreWeight("style", 1.0, f"the examples show a house style{far}")


def _right(
    profile: Profile, checks: Sequence[StyleCheck], questions: Sequence[Question], shape: str
) -> list[ScoreWeight]:
    """What makes an answer right: its label, its slots, what it comes to, or its facts and its wording."""
    weights = []
    if profile.needs_facts or any(question.fact or question.spans for question in questions):
        weights += [
            ScoreWeight("fact_recall", 1.0, "the answers carry facts that the model may lack"),
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


_SHAPES = {"labels": "the labels", "json": "JSON of the examples' shape"}

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
    p: Profile, checks: Sequence[StyleCheck], questions: Sequence[Question]
) -> tuple[ScoreWeight, ...]:
    """Return the weights above zero, in the order of their mention in a plan."""
    kinds = {check.kind for check in checks}
    shape = "labels" if "labels" in kinds else "json" if "json_schema" in kinds else "free"
    found = [_style(p, shape)] if checks else []
    found += _right(p, checks, questions, shape)
    if p.must_cite:
        found.append(ScoreWeight("citation", 0.5, "answers must name their source"))
    if any(not q.answerable for q in questions):
        costly = p.wrong_answer_cost == "high"
        why = "some questions have no answer" + (" and a wrong answer is expensive" if costly else "")
        found.append(ScoreWeight("refusal", 1.0 if costly else 0.5, why))
    if p.absence_is_legal and shape != "labels":
        costly = p.wrong_answer_cost == "high"
        why = '"not stated" can be right' + (
            " and a wrong answer is expensive" if costly else ", an invented value never"
        )
        found.append(ScoreWeight("spurious", 1.0 if costly else 0.5, why))
    return tuple(found)


def _style(p: Profile, shape: str) -> ScoreWeight:
    if shape != "free":
        return ScoreWeight("style", 0.5, f"what reads the answers takes {_SHAPES[shape]} only")
    far = ", and the model is far from it" if p.behaviour_gap == "high" else ""
    return ScoreWeight("style", 1.0, f"the examples show a house style{far}")


def _right(
    p: Profile, checks: Sequence[StyleCheck], questions: Sequence[Question], shape: str
) -> list[ScoreWeight]:
    """What makes an answer right: its label, its slots, what it comes to, or its facts and its wording."""
    found = []
    if p.needs_facts or any(q.fact or q.spans for q in questions):
        found += [
            ScoreWeight("fact_recall", 1.0, "the answers carry facts that the model may lack"),
            ScoreWeight("agreement", 0.5, "a wrong number or a wrong yes is worse than a missing word"),
        ]
    if shape == "labels":
        found.append(ScoreWeight("label", 1.0, "every question has one right label"))
    elif shape == "json":
        found.append(ScoreWeight("slot_f1", 1.0, "the slots of the JSON are the answer"))
    elif marks_answer(checks):
        found.append(ScoreWeight("final_answer", 1.0, "a reply is right when what it comes to is"))
    else:
        found.append(ScoreWeight("token_f1", 0.5, "the wording should be near the reference"))
    return found


_SHAPES = {"labels": "the labels", "json": "JSON of the examples' shape"}

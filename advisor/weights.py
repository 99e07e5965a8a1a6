"""Weights of the combined score from the answers alone, each with its reason; fixed before any arm runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from advisor.profile import Profile
from runners.data import Question
from runners.final import marks_answer
from runners.plan import Check


@dataclass(frozen=True, slots=True)
class Weight:
    """How much one score counts, and what was said that makes it count."""

    name: str
    weight: float
    reason: str


def weigh(p: Profile, checks: Sequence[Check], questions: Sequence[Question]) -> tuple[Weight, ...]:
    """Return the weights above zero, in the order of their mention in a plan."""
    kinds = {check.kind for check in checks}
    shape = "labels" if "labels" in kinds else "json" if "json_schema" in kinds else "free"
    found = [_style(p, shape)] if checks else []
    found += _right(p, checks, questions, shape)
    if p.must_cite:
        found.append(Weight("citation", 0.5, "answers must name their source"))
    if any(not q.answerable for q in questions):
        costly = p.wrong_answer_cost == "high"
        why = "some questions have no answer" + (" and a wrong answer is expensive" if costly else "")
        found.append(Weight("refusal", 1.0 if costly else 0.5, why))
    if p.absence_is_legal and shape != "labels":
        costly = p.wrong_answer_cost == "high"
        why = '"not stated" can be right' + (
            " and a wrong answer is expensive" if costly else ", an invented value never"
        )
        found.append(Weight("spurious", 1.0 if costly else 0.5, why))
    return tuple(found)


def _style(p: Profile, shape: str) -> Weight:
    if shape != "free":
        return Weight("style", 0.5, f"what reads the answers takes {_SHAPES[shape]} only")
    far = ", and the model is far from it" if p.behaviour_gap == "high" else ""
    return Weight("style", 1.0, f"the examples show a house style{far}")


def _right(p: Profile, checks: Sequence[Check], questions: Sequence[Question], shape: str) -> list[Weight]:
    """What makes an answer right: its label, its slots, what it comes to, or its facts and its wording."""
    found = []
    if p.needs_facts or any(q.fact or q.spans for q in questions):
        found += [
            Weight("fact_recall", 1.0, "the answers carry facts that the model may lack"),
            Weight("agreement", 0.5, "a wrong number or a wrong yes is worse than a missing word"),
        ]
    if shape == "labels":
        found.append(Weight("label", 1.0, "every question has one right label"))
    elif shape == "json":
        found.append(Weight("slot_f1", 1.0, "the slots of the JSON are the answer"))
    elif marks_answer(checks):
        found.append(Weight("final_answer", 1.0, "a reply is right when what it comes to is"))
    else:
        found.append(Weight("token_f1", 0.5, "the wording should be near the reference"))
    return found


_SHAPES = {"labels": "the labels", "json": "JSON of the examples' shape"}

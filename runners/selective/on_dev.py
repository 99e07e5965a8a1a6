"""What an arm's dev answers settle before its trial: how long answers may get, and whether unsupported ones are refused.

:func:`settle_on_dev` asks dev questions with the arm's chosen prompt. An arm that was not trained does not know how long the
answers of the examples are: its limit is doubled until at most one answer in twenty is cut. An arm that cites refuses
unsupported answers where the plan wants that, and dev shows that hardly any right answer is lost by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict

from rag.refusal.relevance import LEAST_SUPPORT
from rag.text.words import count_noun
from runners.arms.answer_constraint import answer_constraint
from runners.arms.few_shot import PromptCandidate
from runners.arms.prompt_selection import (
    SelectionContext,
    StoredPrompts,
    answers_digest,
    ask_candidates,
    known_answers,
)
from runners.data.questions import Question, with_wordings
from runners.plan.gate import CHECK_ANSWERS, MIN_ANSWERS, Check
from runners.plan.schema import Plan

ROOM_ANSWERS = 20
"""Most dev answers for the limit of an arm."""
CUT_SHARE = 0.05
LOST_SHARE = 0.08
"""Largest share of an arm's right answers, right refusals among them, that dev answers may lose by the check."""


class ArmSettings(BaseModel):
    """What was settled for an arm."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    made_from: str = ""
    max_new_tokens: int
    """Most tokens of an answer."""
    asked: int = 0
    """Dev answers that this rests on."""
    cut: int = 0
    """Those of them that the limit cut."""
    check: Check = "mark"
    least_support: float | None = None
    """Support under which an answer is refused."""
    why: str = ""
    """Why unsupported answers are refused, or only marked; "" where the plan does not want them refused."""

    def applied(self, plan: Plan) -> Plan:
        """Return the plan with these settings, for one arm."""
        least = self.least_support if plan.refusal.least_support is None else plan.refusal.least_support
        refusal = plan.refusal.model_copy(update={"check": self.check, "least_support": least})
        return plan.model_copy(update={"max_new_tokens": self.max_new_tokens, "refusal": refusal})


def settings_of(stored: StoredPrompts, plan: Plan, arm: str) -> ArmSettings:
    """Return what a trial settled for an arm; the plan's limit and no refusal where it settled nothing."""
    own = stored.settings.get(arm)
    return ArmSettings.model_validate(own) if own else ArmSettings(max_new_tokens=plan.max_new_tokens)


def settle_on_dev(
    stage: SelectionContext, candidate: PromptCandidate, answered: Sequence[str] = ()
) -> ArmSettings:
    """Return the settings of an arm with the prompt that it uses; no answer is asked twice.

    Args:
        stage: the plan, arm, dev questions and model.
        candidate: the arm's prompt.
        answered: ids of the dev questions that were answered with it when it was chosen.
    """
    plan, arm = stage.plan, stage.arm
    checked = plan.refusal.checks(arm)
    # answers in a constrained form end by themselves, and a model that looks things up has limits of its own
    grows = not (arm.weights or arm.looks_up or arm.labels == "scored") and answer_constraint(plan) is None
    settings = ArmSettings(max_new_tokens=plan.max_new_tokens)
    if not (checked or grows) or not stage.dev:
        return settings
    # what was answered to choose the prompt comes first, and is enough for the limit
    forms = sorted(_one_wording_each(stage.dev), key=lambda question: question.id not in answered)
    enough = max(MIN_ANSWERS, sum(question.id in answered for question in forms))
    asked = forms[: CHECK_ANSWERS if checked else min(ROOM_ANSWERS, enough)]
    rows = _rows(stage, candidate, asked)
    cut = _cut(asked, rows, settings.max_new_tokens)
    while grows and len(cut) > CUT_SHARE * len(asked) and settings.max_new_tokens < stage.most_room:
        limit = min(2 * settings.max_new_tokens, stage.most_room)
        settings = settings.model_copy(update={"max_new_tokens": limit})
        longer = replace(stage, plan=plan.model_copy(update={"max_new_tokens": limit}))
        rows |= _rows(longer, candidate, cut)
        cut = _cut(asked, rows, settings.max_new_tokens)
    settings = settings.model_copy(update={"asked": len(asked), "cut": len(cut)})
    least = LEAST_SUPPORT if plan.refusal.least_support is None else plan.refusal.least_support
    return _with_check(settings, list(rows.values()), least) if checked else settings


def _one_wording_each(questions: Sequence[Question]) -> list[Question]:
    """Return each question in one of its wordings, in turn, so that the words of those who ask are among them."""
    forms = [with_wordings([question]) for question in questions]
    return [own[number % len(own)] for number, own in enumerate(forms)]


def _rows(
    stage: SelectionContext, candidate: PromptCandidate, questions: Sequence[Question]
) -> dict[str, dict[str, Any]]:
    """Return the journal's rows of dev answers by question, after asking those that are missing."""
    made_from = answers_digest(stage)
    ask_candidates(stage, [candidate], questions, made_from)
    journal = known_answers(stage, made_from)
    return {question.id: journal[candidate.name, question.id] for question in questions}


def _cut(questions: Sequence[Question], rows: Mapping[str, Mapping[str, Any]], limit: int) -> list[Question]:
    """Return the questions whose answers the limit cut, and not that they repeated themselves."""
    answers = {q.id: rows[q.id] for q in questions if rows[q.id]["finish"] == "length"}
    return [q for q in questions if q.id in answers and answers[q.id]["completion_tokens"] >= limit]


def _with_check(settings: ArmSettings, rows: Sequence[Mapping[str, Any]], least: float) -> ArmSettings:
    """Return the settings with the check in force where dev answers lose at most :data:`LOST_SHARE` of the right ones by it.

    The demanded support ``least`` is not set on these answers, so that the loss counted on them is that of other questions.
    Answers of a tuned model to questions of its training have more support than those of the test: a support set on them
    refused 8 of 37 right test answers and lost none on dev (Qwen2.5-Coder-0.5B, hybrid, the shipped example).
    """
    given = [row for row in rows if row["support"] is not None]
    below = [row for row in given if row["support"] < least]
    lost, of = (sum(row["right"] == 1 for row in some) for some in (below, rows))
    why = (
        f"of {count_noun(len(given), 'dev answer')}, {len(below)} have little support, {lost} of them right; "
        f"{of} are right in all, refusals among them"
    )
    refuse = 0 < LOST_SHARE * of >= lost
    checked = {"check": "refuse", "least_support": least} if refuse else {}
    return settings.model_copy(update={**checked, "why": why})

"""Questions to a router of a finished run: its first arm answers where it is sure, the other one is asked elsewhere.

The other arm's model is loaded only when there is a question for it.
"""

from __future__ import annotations

from collections.abc import Generator as Running
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from runners.arms.answer import Answer
from runners.data.formats import Message
from runners.data.questions import Question
from runners.plan.steps import EvaluateStep
from runners.run_folder import TRIAL
from runners.selective.routes import is_sure, require_route, sureness

if TYPE_CHECKING:
    from runners.runs.opened import OpenRun


def sure_answers(session: OpenRun, step: EvaluateStep, questions: Sequence[Question]) -> list[Answer | None]:
    """Return the answers of a router's first arm to questions that it is sure of; None for the others."""
    first = session.plan.routed(step)[0]
    path = session.folder.path
    cut = require_route(path, path / TRIAL, step).cut
    if cut is None or not questions:
        return [None] * len(questions)
    answers = session.answer(questions, first)
    return [
        replace(answer, arm=first.arm) if is_sure(sureness(answer.completion), cut) else None
        for answer in answers
    ]


def ask_routed(
    session: OpenRun, questions: Sequence[Question], step: EvaluateStep, seed: int | None
) -> list[Answer]:
    """Answer questions with a router; ``arm`` of an answer is the one of its two arms that gave it."""
    otherwise = session.plan.routed(step)[1]
    answers = sure_answers(session, step, questions)
    unsure = [question for question, answer in zip(questions, answers, strict=True) if answer is None]
    asked = iter(session.answer(unsure, otherwise, seed) if unsure else ())
    return [answer or replace(next(asked), arm=otherwise.arm) for answer in answers]


def stream_routed(
    session: OpenRun, question: str, step: EvaluateStep, history: tuple[Message, ...]
) -> Running[str, None, Answer]:
    """Yield the pieces of a router's answer, of the first arm as a whole; return the answer of :func:`ask_routed`."""
    otherwise = session.plan.routed(step)[1]
    (answer,) = sure_answers(session, step, [Question("ask-0", question, history=history)])
    if answer is not None:
        yield answer.marked
        return answer
    streamed = yield from session.stream(question, otherwise, history)
    return replace(streamed, arm=otherwise.arm)

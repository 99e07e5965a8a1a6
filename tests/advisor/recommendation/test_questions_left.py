"""The bound on the questions left, and which questions are pruned."""

from __future__ import annotations

import random
import time
from itertools import pairwise
from typing import Any

import pytest

from advisor.questionnaire.profile import Profile
from advisor.questionnaire.questions import QUESTION_BY_ID, QUESTIONS
from advisor.recommendation.questions_left import (
    DERIVED_ANSWERS,
    can_decide,
    is_worth_asking,
    max_questions_left,
)
from advisor.recommendation.ranking import rank_methods

MACHINE = {"gpu_kind": "none", "gpu_count": 0, "gpu_memory_gib": 0.0, "ram_gib": 16, "cpu_cores": 4}
MEASURED = {**MACHINE, "model": "smollm2-135m-instruct", "model_params_b": 0.1345}
CONTRADICTORY = {"facts_change", "must_cite", "corpus_tokens", "can_retrain_every_days", "call_volume"}
"""Any answer would repeat or contradict one that was given: facts where none are needed, calls counted already."""


def walk(dice: random.Random, everything: bool, counted: bool) -> tuple[dict[str, Any], list[int]]:
    """Answer at random until nothing is left; return what is known, and the bound before each question."""
    known: dict[str, Any] = dict(MEASURED)
    settled: set[str] = set()
    bounds = []
    while open_questions := [
        q for q in QUESTIONS if q.id not in settled and is_worth_asking(q, known, everything)
    ]:
        question = open_questions[0]
        if counted:
            bounds.append(max_questions_left(known, settled, everything))
        value = dice.choice(question.trial)
        known = {**known, question.id: value, **(DERIVED_ANSWERS.get(question.id, {}) if value else {})}
        settled.add(question.id)
    return known, bounds


@pytest.mark.parametrize("everything", [False, True])
def test_max_questions_left_falls_with_every_question(everything: bool) -> None:
    """Each answer lowers the bound by at least one."""
    dice = random.Random(0)
    for _ in range(60):
        _, bounds = walk(dice, everything, True)
        assert all(a > b for a, b in pairwise(bounds))
        assert bounds[-1] >= 1


@pytest.mark.parametrize("everything", [False, True])
def test_max_questions_left_is_reached(everything: bool) -> None:
    known: dict[str, Any] = dict(MEASURED)
    settled: set[str] = set()
    most = max_questions_left(known, settled, everything)
    for asked in range(most):
        question = next(q for q in QUESTIONS if q.id not in settled and is_worth_asking(q, known, everything))
        settled.add(question.id)
        outcomes = [
            {**known, question.id: value, **(DERIVED_ANSWERS.get(question.id, {}) if value else {})}
            for value in question.trial
        ]
        known = max(outcomes, key=lambda outcome: max_questions_left(outcome, settled, everything))
        assert max_questions_left(known, settled, everything) == most - asked - 1


def test_pruned_questions_cannot_change_the_choice() -> None:
    """After random answers, no trial value of a pruned question changes the choice."""
    dice = random.Random(1)
    tried = 0
    for _ in range(300):
        known, _ = walk(dice, True, False)
        paths = {
            key: None if known.get(key) is None else "x" for key in ("documents", "examples", "questions")
        }
        profile = Profile.of({**known, **paths, "model": None, "goal": None, "prompt": None})
        choice = rank_methods(profile).choice
        for question in QUESTIONS:
            pruned = not question.when(known) and known.get(question.id) is None
            if not pruned or question.id in ("prompt", "model") or question.id in CONTRADICTORY:
                continue
            for value in question.trial:
                tried += 1
                assert rank_methods(profile.change(question.id, value)).choice == choice, (
                    question.id,
                    value,
                    known,
                )
    assert tried > 200


def test_can_decide() -> None:
    """A goal never decides; with everything else unknown, needing facts does."""
    profile = Profile.of(MEASURED)
    assert not can_decide(QUESTION_BY_ID["goal"], profile)
    assert can_decide(QUESTION_BY_ID["task_needs_facts"], profile)
    assert can_decide(QUESTION_BY_ID["documents"], profile)


def test_questions_left_takes_milliseconds() -> None:
    """The bound and one decision, best of five."""
    profile = Profile.of(MEASURED)
    seconds = []
    for _ in range(5):
        started = time.thread_time()
        max_questions_left(MEASURED, set(), True)
        can_decide(QUESTION_BY_ID["labelled_examples"], profile)
        seconds.append(time.thread_time() - started)
    assert min(seconds) < 0.03

"""Which questions are asked: pruning is sound, the count of what is left is exact, and both are fast."""

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
def test_the_bound_holds_and_falls(everything: bool) -> None:
    """Whatever is answered, each question lowers it by one at least."""
    dice = random.Random(0)
    for _ in range(60):
        _, bounds = walk(dice, everything, True)
        assert all(a > b for a, b in pairwise(bounds))
        assert bounds[-1] >= 1


@pytest.mark.parametrize("everything", [False, True])
def test_the_bound_is_reached(everything: bool) -> None:
    """Some answers lead through as many questions as it says."""
    known: dict[str, Any] = dict(MEASURED)
    settled: set[str] = set()
    most = max_questions_left(known, settled, everything)
    for asked in range(most):
        question = next(q for q in QUESTIONS if q.id not in settled and is_worth_asking(q, known, everything))
        settled.add(question.id)
        ways = [
            {**known, question.id: value, **(DERIVED_ANSWERS.get(question.id, {}) if value else {})}
            for value in question.trial
        ]
        known = max(ways, key=lambda way: max_questions_left(way, settled, everything))
        assert max_questions_left(known, settled, everything) == most - asked - 1


def test_what_is_not_asked_would_not_have_changed_the_choice() -> None:
    """At the end of any conversation, no trial value of a question that was pruned moves the lead."""
    dice = random.Random(1)
    tried = 0
    for _ in range(300):
        known, _ = walk(dice, True, False)
        paths = {
            key: None if known.get(key) is None else "x" for key in ("documents", "examples", "questions")
        }
        p = Profile.of({**known, **paths, "model": None, "goal": None, "prompt": None})
        choice = rank_methods(p).choice
        for question in QUESTIONS:
            pruned = not question.when(known) and known.get(question.id) is None
            if not pruned or question.id in ("prompt", "model") or question.id in CONTRADICTORY:
                continue
            for value in question.trial:
                tried += 1
                assert rank_methods(p.change(question.id, value)).choice == choice, (
                    question.id,
                    value,
                    known,
                )
    assert tried > 200


def test_what_decides() -> None:
    """A goal never does; with everything else unknown, needing facts does."""
    p = Profile.of(MEASURED)
    assert not can_decide(QUESTION_BY_ID["goal"], p)
    assert can_decide(QUESTION_BY_ID["task_needs_facts"], p)
    assert can_decide(QUESTION_BY_ID["documents"], p)


def test_a_step_takes_milliseconds() -> None:
    """Count what is left and judge one question; the best of five."""
    p = Profile.of(MEASURED)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        max_questions_left(MEASURED, set(), True)
        can_decide(QUESTION_BY_ID["labelled_examples"], p)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.02

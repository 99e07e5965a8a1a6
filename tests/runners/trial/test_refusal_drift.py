"""Whether tuning changed when an arm refuses, on constructed answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from runners.data.questions import Question, with_wordings
from runners.plan.schema import parse_plan
from runners.report.refusal_drift import refusal_drift

PLAN = parse_plan(
    {
        "name": "p",
        "choice": "hybrid",
        "model": {"name": "m"},
        "data": {"documents": "d", "examples": "e"},
        "weights": {"style": 1},
        "steps": [
            {"kind": "index"},
            {"kind": "train", "arm": "lora"},
            {"kind": "evaluate", "arm": "prompting"},
            {"kind": "evaluate", "arm": "rag", "retrieval": True},
            {"kind": "evaluate", "arm": "lora", "weights": "lora"},
            {"kind": "evaluate", "arm": "hybrid", "weights": "lora", "retrieval": True},
        ],
    }
)
QUESTIONS = [Question(f"q{n}", "?", answerable=n >= 10) for n in range(40)]
"""Ten without an answer, thirty with one."""


def answers(**refused: set[int]) -> list[dict[str, Any]]:
    """Return the trial's rows; the arguments say which questions each arm refuses."""
    return [
        {"arm": arm, "seed": 0, "id": q.id, "refused": n in questions_refused}
        for arm, questions_refused in refused.items()
        for n, q in enumerate(QUESTIONS)
    ]


def test_tuned_arm_is_compared_with_untuned_arm_of_same_inputs() -> None:
    rows = answers(prompting=set(), rag=set(range(10)), lora=set(), hybrid=set(range(10)))
    lora, hybrid = refusal_drift(PLAN, QUESTIONS, rows)
    assert [(row["arm"], row["against"]) for row in (lora, hybrid)] == [
        ("lora", "prompting"),
        ("hybrid", "rag"),
    ]
    assert not lora["warned"]
    assert not hybrid["warned"]
    assert (hybrid["unanswerable"]["before"], hybrid["unanswerable"]["after"]) == (1.0, 1.0)
    assert (hybrid["unanswerable"]["n"], hybrid["answerable"]["n"]) == (10, 30)


def test_fewer_correct_and_more_false_refusals_give_warning() -> None:
    rows = answers(prompting=set(range(10)), rag=set(), lora={0, 1, 2}, hybrid=set(range(10, 22)))
    lora, hybrid = refusal_drift(PLAN, QUESTIONS, rows)
    assert lora["text"] == "lora refuses 3 of 10 questions without an answer, prompting 10 of 10"
    assert hybrid["text"] == "hybrid refuses 12 of 30 questions that have an answer, rag 0 of 30"
    assert hybrid["answerable"]["low"] > 0
    assert lora["unanswerable"]["high"] < 0


def test_wordings_refused_alike_are_no_further_evidence() -> None:
    """An arm that refuses three more questions is not warned of because each was asked in three wordings."""
    refused = {"prompting": set[int](), "lora": {10, 11, 12}}
    plain = refusal_drift(PLAN, QUESTIONS, answers(**refused))[0]["answerable"]
    asked = with_wordings([replace(q, wordings=("? ?", "? ? ?")) for q in QUESTIONS])
    rows = [
        {"arm": arm, "seed": 0, "id": q.id, "refused": int(q.original[1:]) in numbers}
        for arm, numbers in refused.items()
        for q in asked
    ]
    (lora,) = (row for row in refusal_drift(PLAN, asked, rows) if row["arm"] == "lora")
    worded = lora["answerable"]
    assert (worded["n"], plain["n"]) == (90, 30)
    assert worded["p"] == pytest.approx(plain["p"], abs=0.01)
    assert (worded["low"], worded["high"]) == pytest.approx((plain["low"], plain["high"]), abs=0.02)
    assert not lora["warned"]


def test_noise_and_improvement_give_no_warning() -> None:
    rows = answers(prompting={0, 1, 2, 10}, rag={0, 10, 11}, lora={0, 1, 10, 11}, hybrid=set(range(10)))
    assert [row["warned"] for row in refusal_drift(PLAN, QUESTIONS, rows)] == [False, False]


def test_seeds_are_averaged_and_missing_answers_are_skipped() -> None:
    rows = [
        *answers(prompting=set(), lora=set()),
        {"arm": "lora", "seed": 1, "id": "q12", "refused": True},
        {"arm": "rag", "seed": 0, "id": "q1"},
    ]
    (lora, hybrid) = refusal_drift(PLAN, QUESTIONS, rows)
    assert lora["answerable"]["after"] == 0.5 / 30
    assert (hybrid["unanswerable"], hybrid["answerable"], hybrid["warned"]) == (None, None, False)

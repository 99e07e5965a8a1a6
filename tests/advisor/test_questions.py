"""The questionnaire's ids are a contract, and every question can be asked."""

from __future__ import annotations

from dataclasses import fields

from advisor.profile import Profile
from advisor.questions import BY_ID, QUESTIONS, SECTIONS

IDS = [
    "goal",
    "documents",
    "examples",
    "questions",
    "prompt",
    "task_needs_facts",
    "facts_change",
    "must_cite",
    "behaviour_gap",
    "output_format",
    "absence_is_legal",
    "labelled_examples",
    "corpus_tokens",
    "unlabelled_tokens",
    "prompt_tokens",
    "answer_tokens",
    "call_volume",
    "calls_per_month",
    "prompting_pass_rate",
    "latency_p95_ms",
    "data_must_stay_local",
    "hosted_api_allowed",
    "wrong_answer_cost",
    "budget_usd",
    "can_retrain_every_days",
    "model",
    "model_params_b",
    "gpu_kind",
    "gpu_count",
    "gpu_memory_gib",
    "ram_gib",
    "cpu_cores",
    "disk_gib",
]


def test_ids_are_the_contract() -> None:
    """Scripts and answers files rely on them."""
    assert sorted(BY_ID) == sorted(IDS)
    assert len(QUESTIONS) == len(BY_ID)


def test_every_question_can_be_asked() -> None:
    """Text, reason and section are there, and choices where they are needed."""
    sections = [name for name, _ in SECTIONS]
    for question in QUESTIONS:
        assert question.text.endswith("?")
        assert question.why.endswith(".")
        assert question.section in sections
        assert bool(question.choices) == (question.kind == "choice")
    order = [sections.index(question.section) for question in QUESTIONS]
    assert order == sorted(order)


def test_the_profile_has_a_field_for_each() -> None:
    """Whatever can be answered reaches the rules."""
    assert set(IDS) <= {field.name for field in fields(Profile)}


def test_a_typical_session_is_short() -> None:
    """At most 15 questions are asked when the files are given or not."""
    for known in ({}, {"documents": "d", "examples": "e", "questions": "q", "gpu_kind": "none"}):
        asked = [q for q in QUESTIONS if not q.detail and q.when(known) and q.id not in known]
        assert len(asked) <= 15

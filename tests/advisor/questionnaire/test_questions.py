"""The questionnaire: ids are a contract, and every question can be asked."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from advisor.questionnaire.answers import read_answer
from advisor.questionnaire.profile import Profile
from advisor.questionnaire.questions import QUESTION_BY_ID, QUESTION_SECTIONS, QUESTIONS
from advisor.recommendation.questions_left import DERIVED_ANSWERS, is_worth_asking

IDS = [
    "goal",
    "documents",
    "examples",
    "columns",
    "questions",
    "prompt",
    "task_needs_facts",
    "facts_change",
    "must_cite",
    "question_kind",
    "behaviour_gap",
    "output_format",
    "labels_need_knowledge",
    "replies_verbatim",
    "absence_is_legal",
    "labelled_examples",
    "label_count",
    "corpus_tokens",
    "answers_in_documents",
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
    "usable_from",
    "budget_usd",
    "can_retrain_every_days",
    "runs_on",
    "models",
    "minutes",
    "usd",
    "model",
    "model_calls_tools",
    "usd_per_million_input",
    "usd_per_million_output",
    "model_params_b",
    "gpu_kind",
    "gpu_count",
    "gpu_memory_gib",
    "ram_gib",
    "cpu_cores",
    "disk_gib",
]


def test_question_ids_match_contract() -> None:
    """Scripts and answers files rely on the ids."""
    assert sorted(QUESTION_BY_ID) == sorted(IDS)
    assert len(QUESTIONS) == len(QUESTION_BY_ID)


def test_every_question_has_text_reason_and_section() -> None:
    """Choices exist exactly for questions of kind choice."""
    sections = [name for name, _ in QUESTION_SECTIONS]
    for question in QUESTIONS:
        assert question.text.endswith("?")
        assert question.why.endswith(".")
        assert question.section in sections
        assert bool(question.choices) == (question.kind == "choice")
    order = [sections.index(question.section) for question in QUESTIONS]
    assert order == sorted(order)


def test_profile_has_a_field_for_every_question() -> None:
    """Every answer is available to the rules."""
    assert set(IDS) <= {field.name for field in fields(Profile)}


def test_typical_session_asks_at_most_15_questions() -> None:
    """With files, for a model whose size is known; one more without, where amounts are asked that files would tell."""
    for most, known in ((16, {}), (15, {"documents": "d", "examples": "e", "questions": "q"})):
        measured = {"model_params_b": 0.135, "gpu_kind": "none"}
        for question, derived in DERIVED_ANSWERS.items():
            measured |= derived if question in known else {}
        asked = [
            q for q in QUESTIONS if q.id not in known and is_worth_asking(q, {**measured, **known}, False)
        ]
        assert 10 <= len(asked) + len(known) <= most


def test_conditions_read_only_declared_answers() -> None:
    """The exact bound on questions left depends on the declared ones."""
    for question in QUESTIONS:
        looked: set[str] = set()

        class Watched(dict[str, Any]):
            def get(self, key: str, default: Any = None) -> Any:
                looked.add(key)  # noqa: B023
                return super().get(key, default)

        for value in (None, "none", "high", "new", "slow", True):
            question.when(Watched(dict.fromkeys(question.when.reads, value)))
        assert looked <= set(question.when.reads)


def test_trial_values_are_valid_answers() -> None:
    """There are at least two for each question."""
    for question in QUESTIONS:
        assert len(question.trial) >= 2
        assert [read_answer(question.id, value) for value in question.trial] == list(question.trial)

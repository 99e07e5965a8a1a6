"""The embedder step and the arm rag-tuned, drafted only where they are asked for."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest

from advisor.costs.arm_costs import upkeep_costs
from advisor.costs.step_time import estimate_step_times
from advisor.drafting.tuned_retriever import (
    MIN_OFFERED_EXAMPLES,
    offers_tuned_retriever,
    with_tuned_retriever,
)
from advisor.questionnaire.profile import Profile
from rag.errors import BadInput, CannotRun
from runners.plan.schema import Plan, parse_plan, step_name


def plan_with(*steps: dict[str, Any], **data: str) -> Plan:
    return parse_plan(
        {
            "name": "desk",
            "choice": "rag",
            "model": {"name": "smollm2-135m-instruct"},
            "data": data,
            "steps": list(steps),
            "weights": {"token_f1": 1},
        }
    )


RAG = {"kind": "evaluate", "arm": "rag", "retrieval": True, "instructions": "chosen"}
FILES = {"documents": "docs", "examples": "rows.jsonl", "questions": "asked.jsonl"}


def test_arm_is_rag_with_the_tuned_retriever() -> None:
    plan = plan_with({"kind": "index"}, RAG, **FILES)
    tuned = with_tuned_retriever(plan)
    assert [step_name(step) for step in tuned.steps] == [
        "index",
        "embedder",
        "evaluate:rag",
        "evaluate:rag-tuned",
    ]
    rag, arm = tuned.arms
    assert arm == rag.model_copy(update={"arm": "rag-tuned", "retriever": "tuned"})
    costs = upkeep_costs(tuned.steps)
    assert costs["rag"] < costs["rag-tuned"]
    times = dict(estimate_step_times(tuned, 400, 60))
    assert times["embedder"] > times["index"]


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (plan_with({"kind": "evaluate", "arm": "prompting"}, examples="rows.jsonl"), "has no documents"),
        (plan_with({"kind": "index"}, RAG, documents="docs"), "has no examples"),
        (plan_with({"kind": "index"}, {**RAG, "arm": "r"}, **FILES), "has no arm rag"),
    ],
)
def test_plan_that_cannot_tune_is_refused(plan: Plan, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        with_tuned_retriever(plan)


def test_missing_extra_is_refused_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(CannotRun) as refused:
        with_tuned_retriever(plan_with({"kind": "index"}, RAG, **FILES))
    assert 'pip install "tunewise[retriever]"' in str(refused.value)


def test_wizard_offers_it_with_documents_and_enough_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = Profile(documents="docs", examples="rows", labelled_examples=MIN_OFFERED_EXAMPLES)
    assert offers_tuned_retriever(profile)
    assert not offers_tuned_retriever(replace(profile, labelled_examples=MIN_OFFERED_EXAMPLES - 1))
    assert not offers_tuned_retriever(replace(profile, documents=None))
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert not offers_tuned_retriever(profile)

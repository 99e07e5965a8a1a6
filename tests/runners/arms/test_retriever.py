"""Retrieval for the arms: how many passages, how long, and when to refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rag.grounding import context
from rag.grounding.refusal import RefusalThreshold
from runners.arms.retriever import token_counter
from runners.models.resolve import Model

ALWAYS = RefusalThreshold({}, -1.0, "default")
QUESTIONS = ["How many berths has the Heron Pier?", "How many berths has the Kelp Pier?"]


def test_each_question_gets_its_k_best_passages_numbered(make_retriever: Callable[..., Any]) -> None:
    found = make_retriever(k=2).find(QUESTIONS)
    assert [len(f.hits) for f in found] == [2, 2]
    for name, f in zip(("Heron", "Kelp"), found, strict=True):
        assert f.hits[0].chunk.text.startswith(f"The {name} Pier")
        assert f.hits[0].score >= f.hits[1].score
        stated, first, *_ = f.passages.split("\n")
        fence = first.split()[0]
        assert stated == context.DATA_NOTICE
        assert first.startswith(f"{fence} [1] {name} Pier")
        assert f"\n{fence} [2] " in f.passages
        assert f.passages.endswith(f"\n{fence} end")
        assert not f.refuse
        assert f.searched == {"documents": 12, "passages": 12, "generation": 1}


def test_passages_stay_within_the_budget_of_the_base_models_tokens(
    make_retriever: Callable[..., Any],
) -> None:
    retriever = make_retriever(k=5, context_tokens=60)
    shown = retriever.find(QUESTIONS[:1])[0].passages
    assert 0 < retriever.count_tokens(shown) <= 60
    assert "[2]" in shown
    assert "[5]" not in shown


def test_the_threshold_decides_on_a_fixed_depth_whatever_k_is(make_retriever: Callable[..., Any]) -> None:
    margin = RefusalThreshold({"margin": 1.0}, -0.01, "logistic")
    decided = [[f.refuse for f in make_retriever(margin, k=k).find(QUESTIONS)] for k in (1, 3, 8)]
    assert decided[0] == decided[1] == decided[2]
    assert all(f.refuse for f in make_retriever(ALWAYS).find(QUESTIONS))


def test_tokens_are_counted_as_the_model_does(tiny: Model) -> None:
    count = token_counter(tiny.folder)
    assert count("") == 0
    assert 0 < count("the north pier") < count("the north pier opens at six")

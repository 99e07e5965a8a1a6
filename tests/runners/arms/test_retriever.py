"""Retrieval for the arms: number and length of passages, and when to refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rag.grounding import context
from rag.grounding.refusal import RefusalThreshold

ALWAYS = RefusalThreshold(weights={}, bias=-1.0, how="default")
QUESTIONS = ["How many berths has the Heron Pier?", "How many berths has the Kelp Pier?"]


def test_question_gets_k_best_numbered_passages(make_retriever: Callable[..., Any]) -> None:
    results = make_retriever(k=2).find(QUESTIONS)
    assert [len(result.hits) for result in results] == [2, 2]
    for name, result in zip(("Heron", "Kelp"), results, strict=True):
        assert result.hits[0].chunk.text.startswith(f"The {name} Pier")
        assert result.hits[0].score >= result.hits[1].score
        stated, fence, first, *_, last = result.passages.split("\n")
        assert stated == context.DATA_NOTICE
        assert first.startswith(f"[1] {name} Pier")
        assert "\n[2] " in result.passages
        assert last == fence == context.shown_delimiter(result.passages)
        assert not result.refuse
        assert result.searched == {"documents": 12, "passages": 12, "generation": 1}


def test_passages_stay_within_token_budget(
    make_retriever: Callable[..., Any],
) -> None:
    retriever = make_retriever(k=5, context_tokens=60)
    shown = retriever.find(QUESTIONS[:1])[0].passages
    assert 0 < retriever.count_tokens(shown) <= 60
    assert "[2]" in shown
    assert "[5]" not in shown


def test_refusal_uses_fixed_depth_independent_of_k(make_retriever: Callable[..., Any]) -> None:
    margin = RefusalThreshold(weights={"margin": 1.0}, bias=-0.01, how="logistic")
    decided = [[result.refuse for result in make_retriever(margin, k=k).find(QUESTIONS)] for k in (1, 3, 8)]
    assert decided[0] == decided[1] == decided[2]
    assert all(result.refuse for result in make_retriever(ALWAYS).find(QUESTIONS))

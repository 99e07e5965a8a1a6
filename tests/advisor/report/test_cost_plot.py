"""The cost lines as SVG, with the crossing marked, and in words."""

from __future__ import annotations

from typing import Any

from advisor.methods.registry import METHOD_BY_NAME
from advisor.questionnaire.profile import Profile
from advisor.recommendation.break_even import break_even
from advisor.report import cost_plot
from advisor.report.cost_plot import cost_chart

HOSTED: dict[str, Any] = {
    "labelled_examples": 1500,
    "behaviour_gap": "high",
    "calls_per_month": 40_000,
    "task_needs_facts": "new",
    "corpus_tokens": 400_000,
    "model_params_b": 8,
}


def break_even_of(answers: dict[str, Any]) -> dict[str, Any]:
    """Return the break-even of these answers."""
    profile = Profile.of(answers)
    result = break_even(profile, {name: method.estimate(profile) for name, method in METHOD_BY_NAME.items()})
    assert result is not None
    return result


def test_nothing_is_drawn_without_prices() -> None:
    empty = {**break_even_of(HOSTED), "per_month": {}}
    assert cost_chart(empty, ["rag"], {}) == ""
    assert cost_chart({}, ["rag"], {}) == ""


def test_cost_chart_is_inline_and_deterministic() -> None:
    result = break_even_of(HOSTED)
    arms = ["lora", "few-shot", "prompting"]
    svg = cost_chart(result, arms, {"lora": 0, "few-shot": 1, "prompting": 2})
    assert "<svg" in svg
    assert "http" not in svg
    assert "lora" in svg
    assert "rag" not in svg, "only arms that were measured are drawn"
    assert "yours: 40,000 a month" in svg
    assert svg == cost_chart(result, arms, {"lora": 0, "few-shot": 1, "prompting": 2})
    assert 'class="mark"' in svg
    assert 'class="mark"' not in cost_chart(result, ["lora"], {})


def test_pairs_are_in_plain_words() -> None:
    result = break_even_of(HOSTED)
    pairs = dict(cost_plot.pairs_in_words(result, ["prompting", "few-shot", "rag", "lora"]))
    assert len(pairs) == 6
    assert pairs["prompting and rag"] == "prompting is cheaper at any number of calls"
    assert pairs["few-shot and lora"].startswith("the same at about ")
    assert cost_plot.pairs_in_words(result, ["rag"]) == []

"""The cost lines as text and as SVG: within their width, with every method named and the crossing marked."""

from __future__ import annotations

from typing import Any

import pytest

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
SITUATIONS: dict[str, dict[str, Any]] = {
    "hosted": HOSTED,
    "own": {**HOSTED, "gpu_kind": "cuda", "gpu_memory_gib": 24},
    "remote": {"model": "openai:gpt-4o-mini@http://x/v1", "calls_per_month": 3, "corpus_tokens": 9000},
    "local": {**HOSTED, "data_must_stay_local": True},
    "huge": {**HOSTED, "model_params_b": 405, "calls_per_month": 10**12},
    "nothing": {},
}


def break_even_of(answers: dict[str, Any]) -> dict[str, Any]:
    """Return the break-even of these answers."""
    profile = Profile.of(answers)
    result = break_even(profile, {name: method.estimate(profile) for name, method in METHOD_BY_NAME.items()})
    assert result is not None
    return result


@pytest.mark.parametrize("width", [1, 40, 80, 100, 1000])
@pytest.mark.parametrize("name", SITUATIONS)
def test_plot_fits_width_and_names_open_methods(name: str, width: int) -> None:
    result = break_even_of(SITUATIONS[name])
    text = cost_plot.plot_lines(result, width)
    rows = text.split("\n")
    assert max(map(len, rows)) <= max(width, cost_plot.LEAST_WIDTH)
    assert len(rows) <= 32
    assert text.isascii()
    for method, row in result["per_month"].items():
        if row["open"]:
            assert method in text
    assert text == cost_plot.plot_lines(result, width)


def test_plot_marks_crossing_and_user_calls() -> None:
    text = cost_plot.plot_lines(break_even_of(HOSTED), 90)
    assert "+ few-shot and lora cost the same" in text
    rows = [row.split("|", 1)[1] for row in text.split("\n") if "|" in row]
    assert sum(row.count("+") for row in rows) == 1
    assert all(row[41:42] in ":PFXRSLQAH" for row in rows if len(row) > 41), "40,000 is one column"
    assert "100k" in text
    assert ": 40,000 calls (yours)" in text


def test_plot_without_prices_says_so() -> None:
    empty = {**break_even_of(HOSTED), "per_month": {}}
    assert "no prices are known" in cost_plot.plot_lines(empty, 80)
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

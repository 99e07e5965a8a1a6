"""Coded comparisons become cases of `eval-advice` by their fields alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.coded_ways import eval_case, left_out_because
from benchmarks.scorers.advice_cases import read_cases, score_cases

ROW: dict[str, Any] = {
    "id": "x",
    "source": {"title": "a comparison"},
    "compares": "methods",
    "use": "yes",
    "winner": "agentic-search",
    "accept": ["agentic-search"],
    "cheaper": None,
    "faster": "rag",
    "model": {"name": "Claude Opus 4.6", "size_b": None, "place": "hosted"},
    "can_call_tools": True,
    "document_tokens": None,
    "changes": "never",
    "calls_per_day": None,
    "latency_matters": "unknown",
    "question_kind": "multi-hop",
}
TIE = {"winner": "tie", "accept": ["rag", "long-context"], "question_kind": "fact lookup"}


@pytest.mark.parametrize(
    ("changed", "winner", "choice"),
    [
        ({}, "agentic-search", "agentic-search"),
        ({"calls_per_day": 20_000}, "agentic-search", "rag"),
        ({"latency_matters": "yes"}, "agentic-search", "rag"),
        (TIE, "rag", "rag"),
        (TIE | {"cheaper": "long-context", "document_tokens": 74_000}, "long-context", "long-context"),
        ({"model": {"name": "x", "size_b": 8, "place": "local"}}, "agentic-search", "rag"),
    ],
)
def test_a_row_is_scored_as_the_advice_sees_it(
    tmp_path: Path, changed: dict[str, Any], winner: str, choice: str
) -> None:
    path = tmp_path / "cases.json"
    path.write_text(json.dumps({"cases": [eval_case(ROW | changed)]}), "utf-8")
    (scored,) = score_cases(read_cases(path))
    assert (scored.case.winner, scored.ranking.choice) == (winner, choice)


def test_rows_that_compare_tools_or_are_weak_are_left_out() -> None:
    assert left_out_because(ROW, ()) == ""
    assert left_out_because(ROW | {"compares": "tools"}, ()) == "compares tools"
    assert left_out_because(ROW | {"use": "weak"}, ()) == "use: weak"
    assert left_out_because(ROW, ["x"]) == "named by --leave-out"


def test_long_context_counts_as_prompting_where_a_case_has_no_word_for_it(tmp_path: Path) -> None:
    answers = {"task_needs_facts": "new", "corpus_tokens": 60_000, "behaviour_gap": "low"}
    rows = [
        {"id": "old", "answers": answers, "winner": "prompting"},
        {"id": "new", "answers": answers, "winner": "prompting", "also_acceptable": ["long-context"]},
        {"id": "other", "answers": answers, "winner": "rag"},
    ]
    path = tmp_path / "cases.json"
    path.write_text(json.dumps({"cases": rows}), "utf-8")
    scored = score_cases(read_cases(path))
    assert [(case.accepted, case.exact) for case in scored] == [(True, True), (True, False), (False, False)]

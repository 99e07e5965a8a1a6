"""`tunewise eval-advice`: accuracy on published cases, how choices are scored, and invalid case files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advisor.questionnaire.profile import Profile
from benchmarks.scorers.advice_cases import cases_json, read_cases, rule_of_thumb, score_cases
from rag.errors import BadInput

Printed = Callable[..., str]

CASE: dict[str, Any] = {
    "id": "c1",
    "winner": "few-shot",
    "also_acceptable": ["lora"],
    "test_use": "winner_or_also",
    "answers": {"task_needs_facts": "none", "labelled_examples": 20},
    "source": {"title": "written here"},
}


def write(path: Path, *cases: dict[str, Any]) -> Path:
    """Write a case file."""
    path.write_text(json.dumps({"cases": list(cases)}), "utf-8")
    return path


def test_advice_on_published_cases_meets_targets(shared: Path) -> None:
    """At least 49 of 51 accepted and 40 exact."""
    scores = cases_json(score_cases(read_cases(shared / "cases" / "decision_dev.json")))
    assert scores["n"] == 51
    assert scores["accepted"] >= 49, scores["misses"]
    assert scores["exact"] >= 40


@pytest.mark.parametrize(
    ("name", "accepted", "exact"), [("a", 40, 32), ("b", 42, 35), ("c", 37, 26), ("d", 43, 33)]
)
def test_advice_on_blind_cases_does_not_get_worse(root: Path, name: str, accepted: int, exact: int) -> None:
    """The cases written blind for this project are accepted as often as the log says, or more often."""
    scores = cases_json(score_cases(read_cases(root / "benchmarks" / "blind" / f"{name}.json")))
    assert scores["n"] == (45 if name in "ab" else 55)
    assert scores["accepted"] >= accepted, scores["misses"]
    assert scores["exact"] >= exact


@pytest.mark.parametrize(
    ("name", "accepted", "labels"), [("cases", 38, 16), ("labels", 47, 46), ("agentic", 41, 0)]
)
def test_advice_on_label_cases_does_not_get_worse(root: Path, name: str, accepted: int, labels: int) -> None:
    """Both sets were looked at since their first scores, which stand in their notes; this only holds what is reached."""
    scored = score_cases(read_cases(root / "benchmarks" / "unseen" / f"{name}.json"))
    assert sum(case.accepted for case in scored) >= accepted
    assert sum(case.accepted for case in scored if case.case.profile.gives_labels) >= labels


@pytest.mark.parametrize(
    ("case", "choice", "accepted"),
    [
        (CASE, "few-shot", True),
        (CASE, "prompting", True),
        (CASE, "lora", True),
        (CASE, "rag", False),
        ({**CASE, "test_use": "winner_only"}, "prompting", False),
        ({**CASE, "winner": "rag", "also_acceptable": []}, "prompting", False),
        ({**CASE, "test_use": "constraint", "hardware_forbids": {"methods": ["lora"]}}, "rag", True),
        ({**CASE, "test_use": "constraint", "hardware_forbids": {"methods": ["lora"]}}, "lora", False),
    ],
)
def test_case_accepts_choices_by_its_use(
    tmp_path: Path, case: dict[str, Any], choice: str, accepted: bool
) -> None:
    """Winner, also acceptable, prompting for few-shot, and hardware."""
    assert read_cases(write(tmp_path / "c.json", case))[0].accepts(choice) is accepted


def test_eval_advice_prints_counts_confusion_and_misses(printed: Printed, tmp_path: Path) -> None:
    """JSON on stdout with the contract's keys; each miss has the reasons that counted."""
    path = write(tmp_path / "c.json", CASE, {**CASE, "id": "c2", "winner": "full", "also_acceptable": []})
    data = json.loads(printed("eval-advice", path, "--json"))
    assert (data["schema"], data["n"], data["accepted"], data["exact"]) == (1, 2, 1, 1)
    assert data["confusion"] == {"few-shot": {"few-shot": 1}, "full": {"few-shot": 1}}
    assert data["misses"][0]["id"] == "c2"
    assert data["misses"][0]["choice"] == "few-shot"
    assert {"rule", "text"} == set(data["misses"][0]["reasons"][0])
    shown = printed("eval-advice", path)
    assert "1 of 2 accepted" in shown
    assert "c2" in shown


def test_eval_advice_counts_baselines_and_the_methods_that_were_compared(
    printed: Printed, tmp_path: Path
) -> None:
    """The rule of thumb, the best constant method, the sign test, and the best ranked of the compared methods."""
    far = {"task_needs_facts": "new", "behaviour_gap": "high", "labelled_examples": 300}
    cases = [
        {**CASE, "compared": ["few-shot", "lora"]},
        {**CASE, "id": "c2", "winner": "hybrid", "also_acceptable": [], "answers": far},
        {
            **CASE,
            "id": "c3",
            "winner": "rag",
            "also_acceptable": [],
            "options_compared": ["base", "base+RAG"],
        },
        {**CASE, "id": "c4", "options_compared": ["few-shot", "a tuned model"]},
    ]
    data = json.loads(printed("eval-advice", write(tmp_path / "c.json", *cases), "--json"))
    assert [case["of_compared"] for case in data["cases"]] == ["few-shot", None, "prompting", None]
    assert (data["of_compared"], data["compared"]) == (1, 2)
    assert data["baselines"] == {
        "rule_of_thumb": {"accepted": 3, "exact": 1},
        "best_constant": {"method": "prompting", "accepted": 2},
    }
    assert data["sign_test"] == {"advice_only": 0, "rule_of_thumb_only": 0, "p": 1.0}
    shown = " ".join(printed("eval-advice", tmp_path / "c.json").split())
    assert "rule of thumb: 3 accepted, 1 exact" in shown
    assert "always prompting: 2 accepted" in shown
    assert "the methods that the source compared: 1 of 2 accepted" in shown


@pytest.mark.parametrize(
    ("answers", "method"),
    [
        ({"task_needs_facts": "new"}, "rag"),
        ({"behaviour_gap": "high", "labelled_examples": 50}, "lora"),
        ({"behaviour_gap": "high", "labelled_examples": 49}, "prompting"),
        ({"task_needs_facts": "new", "behaviour_gap": "high", "labelled_examples": 50}, "hybrid"),
        ({"behaviour_gap": "high", "output_format": "labels", "labelled_examples": 100}, "classifier"),
        ({"output_format": "labels", "labelled_examples": 99}, "prompting"),
        ({"task_needs_facts": "new", "output_format": "labels", "labelled_examples": 100}, "rag"),
    ],
)
def test_rule_of_thumb(answers: dict[str, Any], method: str) -> None:
    assert rule_of_thumb(Profile.of(answers)) == method


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ('{"cases": []}', "has no cases"),
        (json.dumps({"cases": [{**CASE, "winner": "magic"}]}), "winner cannot be 'magic'"),
        (json.dumps({"cases": [{**CASE, "answers": {"labeled_examples": 3}}]}), "labeled_examples"),
        (
            json.dumps({"cases": [{**CASE, "answers": {"labelled_examples": -3}}]}),
            "labelled_examples cannot be -3",
        ),
        (json.dumps({"cases": [{**CASE, "also_acceptable": ["loraa"]}]}), "cannot contain 'loraa'"),
        (json.dumps({"cases": [{**CASE, "test_use": "constraint"}]}), "names no method"),
    ],
)
def test_broken_case_files_are_rejected(tmp_path: Path, text: str, message: str) -> None:
    """One line with the place and the value."""
    path = tmp_path / "c.json"
    path.write_text(text, "utf-8")
    with pytest.raises(BadInput, match=message.replace("(", r"\(")):
        read_cases(path)

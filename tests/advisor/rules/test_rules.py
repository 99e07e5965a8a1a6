"""Every rule has the parts of a rule, applies in its case and not in another."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from advisor.methods import blockers
from advisor.methods.registry import METHODS
from advisor.questionnaire.data_facts import DataFacts
from advisor.questionnaire.probe_facts import ProbeFacts, ProbeShare
from advisor.questionnaire.profile import Profile
from advisor.rules.base import Need, Rule
from advisor.rules.registry import RULES

FAMILIES = {
    "KN": "knowledge",
    "AG": "agentic search",
    "BE": "behaviour",
    "DA": "data",
    "LB": "labels",
    "SC": "scale",
    "RS": "resources",
    "RK": "risk",
}

SEARCHING = {
    "task_needs_facts": "new",
    "corpus_tokens": 60_000,
    "model": "openai:gpt-6.1-terra@https://h/v1",
}
"""A hosted model that calls tools, and documents."""
# For each rule a situation in which it speaks, and one, as near as may be, in which it does not.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "KN001": ({"task_needs_facts": "new"}, {"task_needs_facts": "known"}),
    "KN002": ({"must_cite": True}, {"must_cite": False}),
    "KN003": ({"facts_change": "slow"}, {"facts_change": "static"}),
    "KN005": (
        {"task_needs_facts": "new", "corpus_tokens": 150_000},
        {"task_needs_facts": "new", "corpus_tokens": 300_000},
    ),
    "KN008": (
        {"facts_change": "fast", "can_retrain_every_days": 7},
        {"facts_change": "slow", "can_retrain_every_days": 7},
    ),
    "KN009": (
        {"task_needs_facts": "known", "corpus_tokens": 10},
        {"task_needs_facts": "known", "corpus_tokens": 0},
    ),
    "KN010": (
        {"task_needs_facts": "new", "corpus_tokens": 500_000},
        {"task_needs_facts": "new", "corpus_tokens": 5_000_000},
    ),
    "KN011": ({"data": {"passages_in_prompts": 0.9}}, {"data": {"passages_in_prompts": 0.3}}),
    "KN012": (
        {"task_needs_facts": "new", "model": "smollm2-135m-instruct", "data": {"language": "es"}},
        {"task_needs_facts": "new", "model": "qwen3-8b", "data": {"language": "es"}},
    ),
    "KN013": (
        {"task_needs_facts": "new", "corpus_tokens": 9_000, "answers_in_documents": 0.4},
        {"task_needs_facts": "new", "corpus_tokens": 9_000, "answers_in_documents": 0.5},
    ),
    "KN014": (
        {"task_needs_facts": "new", "corpus_tokens": 90_000},
        {"task_needs_facts": "new", "corpus_tokens": 60_000},
    ),
    "AG001": (
        SEARCHING | {"question_kind": "several"},
        SEARCHING | {"question_kind": "single"},
    ),
    "AG002": (
        SEARCHING | {"facts_change": "fast", "calls_per_month": 1_500},
        SEARCHING | {"facts_change": "slow", "calls_per_month": 1_500},
    ),
    "AG003": (
        {"task_needs_facts": "new", "question_kind": "counting"},
        {"task_needs_facts": "new", "question_kind": "several"},
    ),
    "BE001": ({"behaviour_gap": "high"}, {"behaviour_gap": "low"}),
    "BE003": ({"prompting_pass_rate": 0.9}, {"prompting_pass_rate": 0.9, "must_cite": True}),
    "BE004": ({"output_format": "json"}, {"output_format": "json", "behaviour_gap": "none"}),
    "BE006": ({"absence_is_legal": True}, {"absence_is_legal": False}),
    "BE007": ({"prompting_pass_rate": 0.3}, {"prompting_pass_rate": 0.3, "task_needs_facts": "new"}),
    "BE009": (
        {"output_format": "labels", "labelled_examples": 20},
        {"output_format": "labels", "labelled_examples": 19},
    ),
    "BE012": ({"model": "openai:qwen3-8b@http://127.0.0.1:1/v1"}, {"model": "qwen3-4b-instruct-2507"}),
    "LB003": (
        {"output_format": "labels", "labels_need_knowledge": True, "behaviour_gap": "low"},
        {"output_format": "labels", "labels_need_knowledge": True, "behaviour_gap": "high"},
    ),
    "LB004": (
        {"output_format": "labels", "data": {"label_count": 2, "text_tokens": 257}},
        {"output_format": "labels", "data": {"label_count": 2, "text_tokens": 256}},
    ),
    "LB005": (
        {"output_format": "labels", "call_volume": "high", "behaviour_gap": "low"},
        {"output_format": "labels", "call_volume": "high", "behaviour_gap": "high"},
    ),
    "LB006": ({"replies_verbatim": True}, {"replies_verbatim": False}),
    "LB007": ({"data": {"repeated_replies": 0.5}}, {"data": {"repeated_replies": 0.49}}),
    "LB008": (
        {"output_format": "labels", "probe": {"classifier": (90, 100), "passes": (20, 40)}},
        {"output_format": "labels", "probe": {"classifier": (60, 100), "passes": (20, 40)}},
    ),
    "DA001": ({"labelled_examples": 20}, {"labelled_examples": 50}),
    "DA002": ({"labelled_examples": 100}, {"labelled_examples": 100, "call_volume": "high"}),
    "DA007": ({"unlabelled_tokens": 2_000_000_000}, {"unlabelled_tokens": 2_000_000}),
    "DA010": (
        {"behaviour_gap": "high", "labelled_examples": 60},
        {"behaviour_gap": "high", "labelled_examples": 60, "data_must_stay_local": True},
    ),
    "DA012": (
        {"labelled_examples": 231, "data": {"label_count": 77, "rows_per_label": 3.0}},
        {"labelled_examples": 10_000, "data": {"label_count": 2, "rows_per_label": 5_000.0}},
    ),
    "DA013": (
        {"behaviour_gap": "high", "corpus_tokens": 9_000},
        {"behaviour_gap": "high", "corpus_tokens": 9_000, "labelled_examples": 9},
    ),
    "SC001": ({"calls_per_month": 50_000}, {"calls_per_month": 5_000}),
    "SC004": ({"latency_p95_ms": 500}, {"latency_p95_ms": "none"}),
    "SC005": (
        {"calls_per_month": 50_000, "prompt_tokens": 2000},
        {"calls_per_month": 49_999, "prompt_tokens": 2000},
    ),
    "RS001": ({}, {}),
    "RS003": ({"labelled_examples": 60}, {"labelled_examples": 60, "behaviour_gap": "none"}),
    "RS004": (
        {"model_params_b": 0.3, "labelled_examples": 300},
        {"model_params_b": 0.8, "labelled_examples": 300},
    ),
    "RS005": (
        {
            "gpu_count": 8,
            "gpu_memory_gib": 80,
            "model_params_b": 30,
            "labelled_examples": 9000,
            "behaviour_gap": "high",
        },
        {
            "gpu_count": 8,
            "gpu_memory_gib": 80,
            "model_params_b": 40,
            "labelled_examples": 9000,
            "behaviour_gap": "high",
        },
    ),
    "RS006": (
        {"gpu_count": 1, "gpu_memory_gib": 16, "model_params_b": 8, "labelled_examples": 900},
        {"gpu_count": 1, "gpu_memory_gib": 48, "model_params_b": 8, "labelled_examples": 900},
    ),
    "DA014": (
        {"task_needs_facts": "new", "behaviour_gap": "low", "labelled_examples": 200, "model_params_b": 0.3},
        {"task_needs_facts": "new", "behaviour_gap": "low", "labelled_examples": 200, "model_params_b": 3},
    ),
    "BE014": (
        {"behaviour_gap": "high", "probe": {"passes": (2, 40), "few_shot": (25, 40)}},
        {"behaviour_gap": "high", "probe": {"passes": (2, 40), "few_shot": (5, 40)}},
    ),
    "RS013": (
        {"gpu_count": 1, "gpu_memory_gib": 24, "model_params_b": 7, "labelled_examples": 900},
        {"gpu_count": 1, "gpu_memory_gib": 80, "model_params_b": 33, "labelled_examples": 900},
    ),
    "RS007": ({"gpu_kind": "none", "model_params_b": 7}, {"gpu_kind": "none", "model_params_b": 0.1}),
    "RS010": ({"gpu_kind": "cuda", "gpu_count": 8}, {"gpu_kind": "cuda", "gpu_count": 1}),
    "RS011": ({"gpu_kind": "mps"}, {"gpu_kind": "cuda"}),
    "RS012": (
        {"model": "smollm2-135m-instruct", "prompt_tokens": 2_000, "answer_tokens": 100},
        {"model": "qwen3-8b", "prompt_tokens": 2_000, "answer_tokens": 100},
    ),
    "RS009": ({"gpu_kind": "none"}, {"gpu_kind": "none", "model_params_b": 7}),
    "RK001": ({"wrong_answer_cost": "high", "task_needs_facts": "new"}, {"wrong_answer_cost": "high"}),
    "RK002": (
        {"task_needs_facts": "new", "labelled_examples": 900, "behaviour_gap": "none"},
        {"task_needs_facts": "new", "labelled_examples": 900, "behaviour_gap": "high"},
    ),
    "RK003": ({}, {"questions": "q.jsonl"}),
    "RK006": (
        {"model": "openai:m@https://host.example/v1", "data_must_stay_local": True},
        {"model": "openai:m@http://127.0.0.1:8000/v1", "data_must_stay_local": True},
    ),
    "RK008": (
        {"data": {"label_count": 2, "largest_label_share": 0.66}},
        {"data": {"label_count": 2, "largest_label_share": 0.55}},
    ),
}


def profile_of(answers: dict[str, Any]) -> Profile:
    """Return the profile of answers; what was counted in files is under ``data``, what a probe counted under ``probe``."""
    rest = {key: value for key, value in answers.items() if key not in ("data", "probe")}
    probe: dict[str, Any] = {name: ProbeShare(*share) for name, share in answers.get("probe", {}).items()}
    return replace(Profile.of(rest), data=DataFacts(**answers.get("data", {})), probe=ProbeFacts(**probe))


def by_code(code: str) -> type[Rule]:
    """Return the rule of a code."""
    return next(rule for rule in RULES if rule.code() == code)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code())
def test_rule_has_code_text_evidence_and_weight(rule: type[Rule]) -> None:
    """There is a weight exactly where there is a need."""
    assert re.fullmatch(r"(KN|AG|BE|LB|DA|SC|RS|RK)\d{3}", rule.code())
    assert rule.family == FAMILIES[rule.code()[:2]]
    lines = rule.text().split("\n")
    assert lines[0].endswith((".", ":")) or "." in rule.text().split("\n\n")[0]
    assert "Does not apply" in rule.text()
    assert rule.text().endswith(".")
    assert rule.evidence
    assert all(len(source) > 10 for source in rule.evidence)
    assert (rule.weight > 0) == (rule.need is not None)


def test_all_rule_classes_are_listed_once() -> None:
    """At least 18 rules in five families."""
    assert len(RULES) >= 18
    assert len({rule.family for rule in RULES}) >= 5
    assert len({rule.code() for rule in RULES}) == len(RULES)
    written = {leaf for family in Rule.__subclasses__() for leaf in family.__subclasses__()}
    assert written == set(RULES)


@pytest.mark.parametrize("code", CASES)
def test_rule_applies_in_its_case_only(code: str) -> None:
    """One situation in which the rule applies, one in which it does not."""
    speaks, silent = CASES[code]
    rule = by_code(code)()
    assert rule.applies(profile_of(speaks))
    if speaks != silent:
        assert rule.applies(profile_of(silent)) == ""


@pytest.mark.parametrize(
    ("code", "changed"),
    [
        ("DA002", {"task_needs_facts": "new"}),
        ("DA002", {"must_cite": True}),
        ("RS004", {"task_needs_facts": "new"}),
        ("RK002", {"corpus_tokens": 50_000}),
        ("DA007", {"task_needs_facts": "new", "facts_change": "fast"}),
        ("RS003", {"model_params_b": 70, "gpu_count": 1, "gpu_memory_gib": 48}),
        ("BE007", {"prompting_pass_rate": 0.8}),
        ("RS004", {"data": {"label_count": 77, "rows_per_label": 3.0}}),
        ("BE009", {"data": {"label_count": 20, "rows_per_label": 1.0}}),
        ("LB005", {"model_params_b": 0.5}),
        ("DA012", {"model_params_b": 0.5}),
        ("KN001", {"data": {"passages_in_prompts": 0.9}}),
        ("KN002", {"data": {"passages_in_prompts": 0.9}}),
        ("KN005", {"model": "mistral-7b-instruct-v0.3"}),
        ("RS009", {"model": "openai:m@http://127.0.0.1:1/v1"}),
        ("AG001", {"model": "openai:some-model@https://h/v1"}),
        ("AG001", {"model": "openai:gpt-4o-mini@https://h/v1"}),
        ("AG001", {"model": "llama-3.1-8b-instruct"}),
        ("AG001", {"calls_per_month": 600_000}),
        ("AG001", {"corpus_tokens": 2_000_000_000}),
        ("AG002", {"calls_per_month": None}),
        ("AG002", {"calls_per_month": 600_000}),
        ("AG002", {"question_kind": "single"}),
        ("AG002", {"corpus_tokens": 900_000}),
        ("AG002", {"corpus_tokens": 600}),
        ("AG002", {"model_calls_tools": False}),
    ],
)
def test_rule_exceptions_hold(code: str, changed: dict[str, Any]) -> None:
    """Each exception in the rule's text, added to a situation in which the rule applies."""
    answers = {key: value for key, value in (CASES[code][0] | changed).items() if value is not None}
    assert by_code(code)().applies(profile_of(CASES[code][0]))
    assert by_code(code)().applies(profile_of(answers)) == ""


def test_model_said_to_call_tools_need_not_be_named() -> None:
    """Several places, documents, and yes to tools; not where the size is known to be too small."""
    answers = {"task_needs_facts": "new", "question_kind": "several", "model_calls_tools": True}
    rule = by_code("AG001")()
    assert rule.applies(Profile.of(answers))
    assert rule.applies(Profile.of({**answers, "model_params_b": 8})) == ""
    assert rule.applies(Profile.of({**answers, "model_calls_tools": False})) == ""


def test_every_rule_has_a_case() -> None:
    """RK004 depends on a count that is no answer, so it is tested here."""
    assert set(CASES) | {"RK004"} == {rule.code() for rule in RULES}
    rule = by_code("RK004")()
    assert rule.applies(Profile.of({}, question_count=20))
    assert rule.applies(Profile.of({}, question_count=90)) == ""


def test_every_need_has_a_rule_and_a_method() -> None:
    """No need is without a rule or without a method that serves it."""
    needed = {rule.need for rule in RULES if rule.need}
    served = {need for method in METHODS for need, degree in method.serves.items() if degree > 0}
    assert needed == set(Need) == served


def test_blockers_have_unique_codes_and_texts() -> None:
    codes = [blockers.blocker_code(check) for check in blockers.BLOCKER_CHECKS]
    assert len(set(codes)) == len(codes)
    for check in blockers.BLOCKER_CHECKS:
        assert re.fullmatch(r"BL\d{3}", blockers.blocker_code(check))
        assert blockers.blocker_text(check).endswith(".")

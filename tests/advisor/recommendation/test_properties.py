"""Properties of the advice over random profiles: 500 of each by default, 10,000 with ``--deep``."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from advisor.questionnaire.data_facts import DataFacts
from advisor.questionnaire.profile import Profile
from advisor.questionnaire.questions import QUESTION_BY_ID
from advisor.recommendation.alternatives import relaxations
from advisor.recommendation.ranking import first_choice, rank_methods
from advisor.recommendation.recommend import recommend_for_profile
from advisor.recommendation.sensitivity import Sensitivity, counterfactuals
from advisor.recommendation.thresholds import NUMERIC_KEYS, choice_spans, declared_thresholds

SIZES = {"gpu_count": 64, "cpu_cores": 128, "model_params_b": 500, "gpu_memory_gib": 400, "ram_gib": 4000}
"""The largest value worth drawing, where it is not a million."""


def value_of(key: str) -> st.SearchStrategy[Any]:
    """Return a strategy of values that a question may have, small and large ones, and unknown."""
    question = QUESTION_BY_ID[key]
    if question.kind == "choice":
        return st.none() | st.sampled_from([choice.value for choice in question.choices])
    if question.kind == "flag":
        return st.none() | st.booleans()
    if question.kind == "share":
        return st.none() | st.floats(0, 1)
    top = SIZES.get(key, 1e6)
    if question.kind == "count":
        near = [n for n in (1, 7, 20, 60, 300, 5_000, 10**6, 10**10) if n <= top or key not in SIZES]
        return st.none() | st.sampled_from(near) | st.integers(int(question.low), int(top))
    return st.none() | st.floats(max(question.low, 0.01), top, allow_nan=False)


KEYS = [
    key
    for key, question in QUESTION_BY_ID.items()
    if question.kind not in ("text", "path", "columns", "models")
]
MODELS = st.none() | st.sampled_from(
    ["llama-3.1-8b-instruct", "smollm2-135m-instruct", "openai:m@http://127.0.0.1:1/v1"]
)
PROFILES = st.fixed_dictionaries({}, optional={**{key: value_of(key) for key in KEYS}, "model": MODELS})


FACTS = st.builds(
    DataFacts,
    label_count=st.none() | st.integers(2, 200),
    rows_per_label=st.none() | st.floats(0.5, 5000),
    largest_label_share=st.none() | st.floats(0.01, 1),
    language=st.none() | st.sampled_from(["en", "de", "es"]),
    passages_in_prompts=st.none() | st.floats(0, 1),
)
"""What may be counted in files."""


def scores(profile: Profile) -> dict[str, float]:
    """Return every method's score."""
    return {s.method.name: s.score for s in rank_methods(profile).methods}


@given(PROFILES, FACTS)
def test_recommendation_is_total_and_deterministic(answers: dict[str, Any], facts: DataFacts) -> None:
    """Any answers and counts give one recommendation, and its JSON is the same the second time."""
    profile = replace(Profile.of(answers), data=facts)
    a, b = (recommend_for_profile(replace(profile)).to_json() for _ in range(2))
    assert json.dumps(a) == json.dumps(b)
    assert a["ranked"][0]["feasible"]
    ranking, first = rank_methods(profile), first_choice(replace(profile))
    assert first.choice == ranking.choice
    assert first.rules == tuple(finding.rule for finding in ranking.findings if finding.need)


@given(PROFILES)
def test_counterfactuals_change_the_choice_as_stated(answers: dict[str, Any]) -> None:
    """Applying one, all else the same, gives the stated choice, which is not the present one."""
    profile = Profile.of(answers)
    choice = rank_methods(profile).choice
    for counterfactual in counterfactuals(profile, choice, Sensitivity.of(profile)):
        changed = Profile.of({**answers, counterfactual["key"]: counterfactual["to"]})
        assert rank_methods(changed).choice == counterfactual["choice_becomes"] != choice, counterfactual
        assert counterfactual["choice_becomes"] in counterfactual["text"]
        assert counterfactual["key"] in counterfactual["text"]


@given(PROFILES, FACTS, st.sampled_from(NUMERIC_KEYS), st.floats(0, 1))
def test_choice_is_constant_within_spans(
    answers: dict[str, Any], facts: DataFacts, key: str, position: float
) -> None:
    """Any number of a span gives the span's choice, spans are adjacent, thresholds that are no
    declared constant are too high by one unit of the second digit at most.
    """
    profile = replace(Profile.of(answers), data=facts)
    question = QUESTION_BY_ID[key]
    spans = choice_spans(profile, key)
    assert spans[0].low == question.low
    for span, following in pairwise(spans):
        assert span.high == following.low
        assert span.choice != following.choice
    for span in spans:
        whole = question.kind == "count"
        top = min(span.high, max(10.0, 10 * span.low), 1.0 if question.kind == "share" else 1e12)
        value = span.low + position * (top - span.low)
        value = int(value) if whole else value
        declared = span.high in declared_thresholds(profile, key)
        near_the_end = not declared and math.isfinite(span.high) and value > span.high * 0.9
        if value in span and not near_the_end:
            assert rank_methods(profile.change(key, value)).choice == span.choice, (key, value, span)


@given(PROFILES, st.floats(0.01, 400), st.floats(0, 400))
def test_more_gpu_memory_never_blocks_a_method(answers: dict[str, Any], gib: float, more: float) -> None:
    """A method that is feasible stays so on a larger GPU."""
    answers = {"gpu_count": 1, **answers, "gpu_kind": "cuda"}
    less = rank_methods(Profile.of({**answers, "gpu_memory_gib": gib}))
    bigger = rank_methods(Profile.of({**answers, "gpu_memory_gib": gib + more}))
    feasible = {s.method.name for s in less.methods if not s.blockers}
    assert feasible <= {s.method.name for s in bigger.methods if not s.blockers}


@given(PROFILES)
def test_must_cite_never_raises_methods_without_retrieval(answers: dict[str, Any]) -> None:
    """must_cite may only raise retrieval and the hybrid."""
    without = scores(Profile.of({**answers, "must_cite": False}))
    with_it = scores(Profile.of({**answers, "must_cite": True}))
    for name in ("prompting", "few-shot", "lora", "qlora", "full"):
        assert with_it[name] <= without[name]


@given(PROFILES)
def test_fresher_facts_never_lower_rag(answers: dict[str, Any]) -> None:
    """From static over slow to fast, rag's score only rises."""
    ranked = [
        rank_methods(Profile.of({**answers, "facts_change": change})) for change in ("static", "slow", "fast")
    ]
    points = [next(s.score for s in r.methods if s.method.name == "rag") for r in ranked]
    assert points == sorted(points)


@given(PROFILES, FACTS, st.integers(0, 20_000), st.integers(0, 20_000))
def test_more_examples_never_lower_tuning_scores(
    answers: dict[str, Any], facts: DataFacts, n: int, more: int
) -> None:
    """All else the same; with more examples there are more of each label."""
    profile = replace(Profile.of({**answers, "labelled_examples": n}), data=facts)
    few, many = scores(profile), scores(profile.change("labelled_examples", n + more))
    for name in ("lora", "qlora", "full", "hybrid"):
        assert many[name] >= few[name]


@given(PROFILES)
def test_zero_documents_never_choose_retrieval(answers: dict[str, Any]) -> None:
    """An explicit zero blocks rag and hybrid; unknown does not."""
    assert rank_methods(Profile.of({**answers, "corpus_tokens": 0})).choice not in ("rag", "hybrid")


@given(PROFILES, FACTS, st.floats(0.5, 1))
def test_passages_in_prompts_never_choose_retrieval(
    answers: dict[str, Any], facts: DataFacts, share: float
) -> None:
    """Without documents, whatever was answered; and passages in prompts never raise rag's score."""
    given_passages = replace(facts, passages_in_prompts=share)
    none_given = Profile.of({**answers, "corpus_tokens": 0})
    for profile in (Profile.of({**answers, "corpus_tokens": None}), none_given):
        assert rank_methods(replace(profile, data=given_passages)).choice not in ("rag", "hybrid")
    without = replace(facts, passages_in_prompts=None)
    before, after = (scores(replace(Profile.of(answers), data=data)) for data in (without, given_passages))
    # A hybrid without documents is blocked; its sum may rise with the rules for tasks that need no facts.
    assert after["rag"] <= before["rag"]


@given(PROFILES)
def test_hybrid_needs_facts_and_behaviour(answers: dict[str, Any]) -> None:
    """It is chosen only with a fact need and a behaviour need."""
    profile = Profile.of(answers)
    if rank_methods(profile).choice == "hybrid":
        assert profile.needs_facts or profile.must_cite or profile.corpus_tokens
        assert profile.behaviour_gap in ("low", "high") or profile.can_learn_to_read


TASK = (
    "task_needs_facts",
    "facts_change",
    "must_cite",
    "behaviour_gap",
    "labelled_examples",
    "corpus_tokens",
    "call_volume",
    "data_must_stay_local",
    "gpu_memory_gib",
    "gpu_count",
    "model_params_b",
)


@given(st.fixed_dictionaries({}, optional={key: value_of(key) for key in TASK}))
def test_choice_never_contradicts_experts(answers: dict[str, Any]) -> None:
    """No training without data or need, no retrieval without a need, no new facts or sources without
    retrieval.
    """
    profile = Profile.of(answers)
    choice = rank_methods(profile).choice
    trains, retrieves = choice in ("lora", "qlora", "full", "hybrid"), choice in ("rag", "hybrid")
    if profile.behaviour_gap == "none" or (
        profile.labelled_examples is not None and profile.labelled_examples < 50
    ):
        assert not trains
    if profile.task_needs_facts == "none" and not profile.must_cite:
        assert not retrieves
    if profile.behaviour_gap is None or profile.corpus_tokens == 0:
        return
    if profile.task_needs_facts == "new":
        whole = profile.corpus_tokens is not None and profile.corpus_tokens <= 200_000
        assert retrieves or (whole and not trains)
    if profile.task_needs_facts in ("new", "known") and profile.must_cite:
        assert retrieves


@given(PROFILES)
def test_relaxed_answers_give_the_stated_choice(answers: dict[str, Any]) -> None:
    """With the answers of a relaxation the engine chooses the method that it names."""
    profile = Profile.of(answers)
    for relaxation in relaxations(profile, rank_methods(profile)):
        changed = profile
        for key, value in relaxation["set"].items():
            changed = changed.change(key, value)
        assert not relaxation["set"] or rank_methods(changed).choice == relaxation["then"], relaxation


def test_unknown_documents_may_choose_retrieval() -> None:
    assert rank_methods(Profile.of({"task_needs_facts": "new", "facts_change": "fast"})).choice == "rag"

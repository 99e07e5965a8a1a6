"""What must hold in every situation: random profiles, 500 of each by default, 10,000 with ``--deep``."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from advisor.questionnaire.profile import Profile
from advisor.questionnaire.questions import QUESTION_BY_ID
from advisor.recommendation.alternatives import relaxations
from advisor.recommendation.ranking import rank_methods
from advisor.recommendation.recommend import recommend_for_profile
from advisor.recommendation.sensitivity import Sensitivity, counterfactuals
from advisor.recommendation.thresholds import NUMERIC_KEYS, choice_spans

SIZES = {"gpu_count": 64, "cpu_cores": 128, "model_params_b": 500, "gpu_memory_gib": 400, "ram_gib": 4000}
"""The largest value worth drawing, where it is not a million."""


def value_of(key: str) -> st.SearchStrategy[Any]:
    """Values that a question may have, small and large ones alike, unknown among them."""
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


KEYS = [key for key, question in QUESTION_BY_ID.items() if question.kind not in ("text", "path")]
MODELS = st.none() | st.sampled_from(
    ["llama-3.1-8b-instruct", "smollm2-135m-instruct", "openai:m@http://127.0.0.1:1/v1"]
)
PROFILES = st.fixed_dictionaries({}, optional={**{key: value_of(key) for key in KEYS}, "model": MODELS})


def scores(profile: Profile) -> dict[str, float]:
    """Return every method's score."""
    return {s.method.name: s.score for s in rank_methods(profile).methods}


@given(PROFILES)
def test_no_profile_raises_and_the_advice_is_the_same_again(answers: dict[str, Any]) -> None:
    """Whatever is answered, there is one recommendation, and its JSON is the same the second time."""
    a, b = (recommend_for_profile(Profile.of(answers)).to_json() for _ in range(2))
    assert json.dumps(a) == json.dumps(b)
    assert a["ranked"][0]["feasible"]


@given(PROFILES)
def test_every_printed_flip_is_true(answers: dict[str, Any]) -> None:
    """Applying a flip, all else the same, makes the choice what was printed, and another than now."""
    p = Profile.of(answers)
    choice = rank_methods(p).choice
    for flip in counterfactuals(p, choice, Sensitivity.of(p)):
        changed = Profile.of({**answers, flip["key"]: flip["to"]})
        assert rank_methods(changed).choice == flip["choice_becomes"] != choice, flip
        assert flip["choice_becomes"] in flip["text"]
        assert flip["key"] in flip["text"]


@given(PROFILES, st.sampled_from(NUMERIC_KEYS), st.floats(0, 1))
def test_between_thresholds_nothing_changes(answers: dict[str, Any], key: str, place: float) -> None:
    """Any number of a span leads to the span's choice, and its ends meet; a threshold is sure to three digits."""
    p = Profile.of(answers)
    asked = QUESTION_BY_ID[key]
    found = choice_spans(p, key)
    assert found[0].low == asked.low
    for span, following in pairwise(found):
        assert span.high == following.low
        assert span.choice != following.choice
    for span in found:
        whole = asked.kind == "count"
        top = min(span.high, max(10.0, 10 * span.low), 1.0 if asked.kind == "share" else 1e12)
        value = span.low + place * (top - span.low)
        value = int(value) if whole else value
        near_the_end = value > span.high * 0.998 and not (whole and span.high <= 1000)
        if value in span and not near_the_end:
            assert rank_methods(p.change(key, value)).choice == span.choice, (key, value, span)


@given(PROFILES, st.floats(0.01, 400), st.floats(0, 400))
def test_more_gpu_memory_never_forbids(answers: dict[str, Any], gib: float, more: float) -> None:
    """A method that is feasible stays so on a larger card."""
    answers = {"gpu_count": 1, **answers, "gpu_kind": "cuda"}
    less = rank_methods(Profile.of({**answers, "gpu_memory_gib": gib}))
    bigger = rank_methods(Profile.of({**answers, "gpu_memory_gib": gib + more}))
    feasible = {s.method.name for s in less.methods if not s.blockers}
    assert feasible <= {s.method.name for s in bigger.methods if not s.blockers}


@given(PROFILES)
def test_citing_never_raises_what_cannot_cite(answers: dict[str, Any]) -> None:
    """must_cite may only raise retrieval and the hybrid."""
    without = scores(Profile.of({**answers, "must_cite": False}))
    with_it = scores(Profile.of({**answers, "must_cite": True}))
    for name in ("prompting", "few-shot", "lora", "qlora", "full"):
        assert with_it[name] <= without[name]


@given(PROFILES)
def test_fresher_facts_never_lower_retrieval(answers: dict[str, Any]) -> None:
    """static, slow, fast: rag's score only rises, and so does its place."""
    ranked = [
        rank_methods(Profile.of({**answers, "facts_change": change})) for change in ("static", "slow", "fast")
    ]
    points = [next(s.score for s in r.methods if s.method.name == "rag") for r in ranked]
    assert points == sorted(points)


@given(PROFILES, st.integers(0, 20_000), st.integers(0, 20_000))
def test_more_examples_never_lower_tuning(answers: dict[str, Any], n: int, more: int) -> None:
    """All else the same, examples speak for tuning or not at all."""
    few = scores(Profile.of({**answers, "labelled_examples": n}))
    many = scores(Profile.of({**answers, "labelled_examples": n + more}))
    for name in ("lora", "qlora", "full", "hybrid"):
        assert many[name] >= few[name]


@given(PROFILES)
def test_no_documents_never_leave_retrieval_first(answers: dict[str, Any]) -> None:
    """An explicit zero forbids rag and hybrid; unknown does not."""
    assert rank_methods(Profile.of({**answers, "corpus_tokens": 0})).choice not in ("rag", "hybrid")


@given(PROFILES)
def test_a_hybrid_needs_both_needs(answers: dict[str, Any]) -> None:
    """It is chosen only where a fact need and a behaviour need stand."""
    p = Profile.of(answers)
    if rank_methods(p).choice == "hybrid":
        assert p.needs_facts or p.must_cite or p.corpus_tokens
        assert p.behaviour_gap in ("low", "high")


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
def test_what_an_expert_would_never_say(answers: dict[str, Any]) -> None:
    """No training on nothing or for nothing, no retrieval without a need, no new facts or sources without it."""
    p = Profile.of(answers)
    choice = rank_methods(p).choice
    trains, retrieves = choice in ("lora", "qlora", "full", "hybrid"), choice in ("rag", "hybrid")
    if p.behaviour_gap == "none" or (p.labelled_examples is not None and p.labelled_examples < 50):
        assert not trains
    if p.task_needs_facts == "none" and not p.must_cite:
        assert not retrieves
    if p.behaviour_gap is None or p.corpus_tokens == 0:
        return
    if p.task_needs_facts == "new":
        whole = p.corpus_tokens is not None and p.corpus_tokens <= 200_000
        assert retrieves or (whole and not trains)
    if p.task_needs_facts in ("new", "known") and p.must_cite:
        assert retrieves


@given(PROFILES)
def test_every_rung_that_changes_answers_holds(answers: dict[str, Any]) -> None:
    """With the answers of a rung the engine chooses what the rung opens."""
    p = Profile.of(answers)
    for rung in relaxations(p, rank_methods(p)):
        changed = p
        for key, value in rung["set"].items():
            changed = changed.change(key, value)
        assert not rung["set"] or rank_methods(changed).choice == rung["then"], rung


def test_unknown_documents_may_leave_retrieval_first() -> None:
    """Unknown is not zero."""
    assert rank_methods(Profile.of({"task_needs_facts": "new", "facts_change": "fast"})).choice == "rag"

"""Every method: text, steps that make a plan, blockers with numbers, an estimate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from advisor.methods.base import Drafting, Method
from advisor.methods.hybrid import Hybrid
from advisor.methods.registry import METHOD_BY_NAME, METHODS
from advisor.questionnaire.data_facts import DataFacts
from advisor.questionnaire.profile import Profile
from runners.plan.schema import METHODS as KNOWN
from runners.plan.schema import parse_plan
from runners.plan.steps import EvaluateStep


def test_method_table_matches_contract() -> None:
    """Every built-in method, each once."""
    assert sorted(method.name for method in METHODS) == sorted(KNOWN)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_method_has_text_degrees_and_estimate(method: Method) -> None:
    """Degrees are between 0 and 1; there is an estimate in any situation."""
    assert len(method.text().split("\n\n")) >= 2
    assert all(0 <= degree <= 1 for degree in method.serves.values())
    for answers in (
        {},
        {"model_params_b": 7, "labelled_examples": 100, "gpu_memory_gib": 24, "gpu_count": 1},
    ):
        estimate = method.estimate(Profile.of(answers)).to_json()
        assert set(estimate) == {
            "memory_gib",
            "hours",
            "usd",
            "per_call_usd",
            "per_call_usd_range",
            "assumptions",
        }


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_method_steps_make_a_valid_plan(method: Method) -> None:
    """A method's steps, after an index and the arms it starts from or routes to, make a valid plan."""
    profile = Profile.of({"labelled_examples": 100})
    drafting = Drafting("lora", {"rank": 8, "alpha": 16.0, "reasons": {"rank": "few rows"}})
    steps = method.steps(profile, drafting)
    needed = {"hybrid": ("lora",), "router": ("classifier", "few-shot")}.get(method.name, ())
    before = [step for name in needed for step in METHOD_BY_NAME[name].steps(profile, drafting)]
    plan = parse_plan(
        {
            "schema": 1,
            "name": "x",
            "choice": method.name,
            "model": {"name": "m"},
            "data": {"documents": "d", "examples": "e.jsonl"},
            "weights": {"token_f1": 1},
            "steps": [{"kind": "index"}, *(s.model_dump(mode="json") for s in (*before, *steps))],
        }
    )
    assert any(isinstance(step, EvaluateStep) and step.arm == method.name for step in plan.steps)


@pytest.mark.parametrize(
    ("name", "answers", "code", "text"),
    [
        ("lora", {"labelled_examples": 3}, "BL001", "at least 10 examples, you have 3"),
        ("lora", {"model_params_b": 70, "gpu_memory_gib": 24, "gpu_count": 1}, "BL002", "one GPU of 24 GiB"),
        (
            "full",
            {"model_params_b": 70, "gpu_memory_gib": 24, "gpu_count": 2},
            "BL002",
            "on each when sharded over 2 (fsdp): each of 2 GPUs has 24 GiB",
        ),
        (
            "qlora",
            {"model_params_b": 70, "gpu_memory_gib": 24, "gpu_count": 2},
            "BL002",
            "sharded over 2 (fsdp, 4-bit weights whole on each)",
        ),
        (
            "lora",
            {"model_params_b": 70, "gpu_memory_gib": 24, "gpu_count": 16},
            "BL002",
            "16 GPUs can train it sharded (fsdp), but answers come from one: in 4 bits",
        ),
        ("lora", {"model_params_b": 7, "gpu_kind": "none"}, "BL003", "no GPU"),
        (
            "lora",
            {"model_params_b": 2, "gpu_kind": "none", "labelled_examples": 10**6},
            "BL003",
            "days without a GPU",
        ),
        ("lora", {"model": "openai:m@http://h/v1"}, "BL004", "endpoint"),
        (
            "full",
            {"budget_usd": 1, "model_params_b": 3, "labelled_examples": 10**6},
            "BL005",
            "the budget is 1",
        ),
        ("rag", {"corpus_tokens": 0}, "BL006", "no documents"),
        ("long-context", {"corpus_tokens": 0}, "BL006", "no documents"),
        ("long-context", {"corpus_tokens": 2_000_000}, "BL015", "more than models read at once"),
        (
            "long-context",
            {"corpus_tokens": 9_000, "model": "smollm2-135m-instruct"},
            "BL015",
            "all documents are 9,000 tokens, and the model's context has 8,192 left",
        ),
        ("agentic-search", {}, "BL016", "no model that calls tools is named"),
        ("agentic-search", {"model": "openai:m@http://h/v1"}, "BL016", "not known whether m calls tools"),
        ("agentic-search", {"model": "gemma-3-27b-it"}, "BL016", "gemma-3-27b-it does not call tools"),
        ("agentic-search", {"model": "qwen3-8b"}, "BL017", "8.19 billion parameters mostly fails"),
        (
            "agentic-search",
            {"model": "openai:claude-sonnet-5.5@https://h/v1", "latency_p95_ms": 2000},
            "BL018",
            "takes about 12 s (6 to 60 in published runs), and must come within 2000 ms",
        ),
        ("few-shot", {"labelled_examples": 0}, "BL007", "no examples"),
        ("hybrid", {"task_needs_facts": "none"}, "BL008", "a search would have no use"),
        ("hybrid", {"labelled_examples": 120}, "BL008", "you have not said that the task needs facts"),
        (
            "hybrid",
            {"task_needs_facts": "none", "corpus_tokens": 9000},
            "BL008",
            "a search would have no use",
        ),
        (
            "hybrid",
            {"task_needs_facts": "new", "behaviour_gap": "none"},
            "BL008",
            "fine-tuning would have no use",
        ),
        (
            "few-shot",
            {"model": "smollm2-135m-instruct", "prompt_tokens": 5000},
            "BL010",
            "3,192 tokens left",
        ),
    ],
)
def test_blockers_state_numbers(name: str, answers: dict[str, Any], code: str, text: str) -> None:
    found = {blocker.rule: blocker.text for blocker in METHOD_BY_NAME[name].blocked(Profile.of(answers))}
    assert text in found[code]


def test_passages_in_prompts_block_retrieval_without_documents() -> None:
    """Even where new facts in another form were named; documents beside them are worth a search."""
    answers = {"task_needs_facts": "new", "behaviour_gap": "high", "labelled_examples": 400}
    reading = replace(Profile.of(answers), data=DataFacts(passages_in_prompts=0.94))
    for name in ("rag", "hybrid"):
        (blocker,) = METHOD_BY_NAME[name].blocked(reading)
        assert (blocker.rule, blocker.text[:19]) == ("BL009", "94% of the prompts ")
        assert not METHOD_BY_NAME[name].blocked(reading.change("corpus_tokens", 9000))


def test_published_qlora_runs_are_not_blocked() -> None:
    """65B on 48 GB and 33B on 24 GB with QLoRA are published: at most tight. 70B on 2x24 GB is too, by another program:
    a run here holds 4-bit weights whole on each GPU."""
    two = Profile.of({"model_params_b": 70, "gpu_memory_gib": 24, "gpu_count": 2, "labelled_examples": 999})
    assert METHOD_BY_NAME["qlora"].blocked(two)
    assert not METHOD_BY_NAME["qlora"].blocked(replace(two, other_program=True))
    for params, gib, count in ((65, 48, 1), (33, 24, 1)):
        profile = Profile.of(
            {"model_params_b": params, "gpu_memory_gib": gib, "gpu_count": count, "labelled_examples": 999}
        )
        assert not METHOD_BY_NAME["qlora"].blocked(profile)
        assert METHOD_BY_NAME["lora"].blocked(profile)


@pytest.mark.parametrize(
    ("gib", "tuning"), [(80, "lora"), (16, "qlora"), (10, "qlora"), (None, "lora"), (4, None)]
)
def test_hybrid_uses_best_feasible_tuning_method(gib: float | None, tuning: str | None) -> None:
    """LoRA with memory to spare, QLoRA where LoRA would nearly fill the GPU, none where nothing fits."""
    answers = {
        "task_needs_facts": "new",
        "behaviour_gap": "high",
        "labelled_examples": 900,
        "model_params_b": 8,
    }
    profile = Profile.of(answers if gib is None else {**answers, "gpu_memory_gib": gib, "gpu_count": 1})
    found = Hybrid().tuned_by(profile)
    assert (found.name if found else None) == tuning
    assert bool(Hybrid().blocked(profile)) == (tuning is None)


def test_a_model_that_may_search_by_itself_is_known_by_name_or_said() -> None:
    """Of a catalogue's model, a hosted one, and one of which the user says it; strength is what rules ask for besides."""

    def is_open(**answers: Any) -> bool:
        return not METHOD_BY_NAME["agentic-search"].blocked(Profile.of(answers))

    assert is_open(model="qwen2.5-72b-instruct")
    assert is_open(model="openai:claude-opus-5.5@https://h/v1")
    assert is_open(model="openai:gpt-4o-mini@https://h/v1"), "possible, though no rule speaks for it"
    assert is_open(model="openai:m@http://h/v1", model_calls_tools=True)
    assert not is_open(model="openai:gpt-6.1-sol@https://h/v1", model_calls_tools=False)
    assert not is_open(model="openai:Qwen3-8B@http://h/v1")


def test_search_by_the_model_costs_several_calls() -> None:
    """The likely answer reads about 14 times what one search gives; a plan's limit ends the dearest."""
    asked = Profile.of({"model": "openai:mistral-small-4@https://h/v1", "corpus_tokens": 10**6})
    searched, once = (METHOD_BY_NAME[name].estimate(asked) for name in ("agentic-search", "rag"))
    assert searched.per_call_usd
    assert once.per_call_usd
    assert searched.per_call_range
    assert 8 < searched.per_call_usd / once.per_call_usd < 16
    assert searched.per_call_range.high < 50_000 * 0.15e-6 + 1_000 * 0.6e-6 + 0.0005
    assert searched.to_json()["seconds"] == {"low": 6.0, "likely": 12.0, "high": 60.0}
    few = Profile.of({"model": "openai:mistral-small-4@https://h/v1", "corpus_tokens": 3_000})
    assert (METHOD_BY_NAME["agentic-search"].estimate(few).per_call_usd or 1) < searched.per_call_usd
    assert "not measured by us" in " ".join(searched.assumptions)

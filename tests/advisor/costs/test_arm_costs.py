"""Which arm is the cheaper one: by what is made and kept, then by measured tokens; new arms have a place."""

from __future__ import annotations

from advisor.costs.arm_costs import cheaper_arms, upkeep_costs
from advisor.drafting.draft import _gate
from runners.plan.schema import Step
from runners.plan.steps import EvaluateStep, IndexStep, TrainStep

STEPS: tuple[Step, ...] = (
    IndexStep(),
    TrainStep(arm="lora"),
    TrainStep(arm="full", method="full"),
    TrainStep(arm="hybrid", rows="retrieval"),
    EvaluateStep(arm="hybrid", weights="hybrid", retrieval=True),
    EvaluateStep(arm="naive-stack", weights="lora", retrieval=True),
    EvaluateStep(arm="full", weights="full"),
    EvaluateStep(arm="lora", weights="lora"),
    EvaluateStep(arm="rag", retrieval=True),
    EvaluateStep(arm="classifier"),
    EvaluateStep(arm="prompting"),
    EvaluateStep(arm="few-shot", shots=3),
    EvaluateStep(arm="long-context"),
    EvaluateStep(arm="something-new"),
)
TOKENS = {"prompting": 90.0, "few-shot": 400.0, "long-context": 6000.0, "something-new": 200.0, "rag": 700.0}


def test_arms_are_sorted_by_what_they_need_and_then_by_tokens() -> None:
    known = upkeep_costs(STEPS, TOKENS)
    assert sorted(known, key=lambda name: known[name]) == [
        "prompting",
        "something-new",
        "few-shot",
        "long-context",
        "classifier",
        "rag",
        "lora",
        "full",
        "naive-stack",
        "hybrid",
    ]


def test_without_measured_tokens_the_plans_order_decides() -> None:
    known = upkeep_costs(STEPS)
    order = sorted(known, key=lambda name: known[name])
    assert order[:4] == ["prompting", "few-shot", "long-context", "something-new"]


def test_an_arm_that_is_not_in_the_plan_comes_last() -> None:
    known = upkeep_costs(STEPS, {**TOKENS, "left-over": 1.0})
    assert max(known, key=lambda name: known[name]) == "left-over"


def test_the_gate_is_every_cheaper_arm_that_is_meant_to_be_used() -> None:
    prompts = {"prompting", "few-shot", "long-context", "something-new", "classifier"}
    assert set(_gate("hybrid", STEPS).must_beat) == prompts | {"rag", "lora", "full"}
    assert set(_gate("lora", STEPS).must_beat) == prompts | {"rag"}
    assert _gate("few-shot", STEPS).must_beat == ("prompting",)
    assert _gate("prompting", STEPS).must_beat == ()
    assert "naive-stack" in cheaper_arms(STEPS, "hybrid")

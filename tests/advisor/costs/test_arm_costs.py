"""Order of arms by upkeep cost."""

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


def test_upkeep_costs_order_by_parts_then_tokens() -> None:
    costs = upkeep_costs(STEPS, TOKENS)
    assert sorted(costs, key=lambda name: costs[name]) == [
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


def test_upkeep_costs_without_tokens_keep_plan_order() -> None:
    costs = upkeep_costs(STEPS)
    order = sorted(costs, key=lambda name: costs[name])
    assert order[:4] == ["prompting", "few-shot", "long-context", "something-new"]


def test_upkeep_costs_put_unplanned_arm_last() -> None:
    costs = upkeep_costs(STEPS, {**TOKENS, "left-over": 1.0})
    assert max(costs, key=lambda name: costs[name]) == "left-over"


def test_gate_holds_every_cheaper_arm_but_comparison_arms() -> None:
    prompts = {"prompting", "few-shot", "long-context", "something-new", "classifier"}
    assert set(_gate("hybrid", STEPS).must_beat) == prompts | {"rag", "lora", "full"}
    assert set(_gate("lora", STEPS).must_beat) == prompts | {"rag"}
    assert _gate("few-shot", STEPS).must_beat == ("prompting",)
    assert _gate("prompting", STEPS).must_beat == ()
    assert "naive-stack" in cheaper_arms(STEPS, "hybrid")

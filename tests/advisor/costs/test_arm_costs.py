"""Order of arms by upkeep cost."""

from __future__ import annotations

import pytest

from advisor.costs.arm_costs import cheaper_arms, cost_per_1000, measured_ranks, routed_answers, upkeep_costs
from advisor.drafting.draft import _gate
from runners.plan.schema import Step, parse_plan
from runners.plan.steps import EvaluateStep, IndexStep, Route, TrainStep
from runners.trial.trial import ArmScores

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


NEAREST = EvaluateStep(arm="nearest-reply", nearest_reply=True)
ROUTER = EvaluateStep(arm="router", route=Route(first="nearest-reply", otherwise="few-shot"))


def test_nearest_replies_are_the_cheapest_arm_and_a_router_costs_more_than_both_of_its_own() -> None:
    """So every other arm has to beat nearest replies; a router keeps the parts of both."""
    steps = [*STEPS, NEAREST, ROUTER]
    costs = upkeep_costs(steps)
    assert min(costs, key=lambda name: costs[name]) == "nearest-reply"
    assert costs["router"] > costs["few-shot"] > costs["nearest-reply"]
    assert _gate("few-shot", steps).must_beat == ("prompting", "nearest-reply")
    assert "nearest-reply" in _gate("full", steps).must_beat
    both = EvaluateStep(arm="both", route=Route(first="classifier", otherwise="hybrid"))
    assert upkeep_costs([*STEPS, both])["both"][:2] == (costs["hybrid"][0] + 1, costs["hybrid"][1])


def test_price_of_a_router_is_that_of_the_answers_that_a_model_gave() -> None:
    """Forty answers, thirty without a model: a quarter of the price, with an interval over the questions."""
    steps = [EvaluateStep(arm="few-shot"), NEAREST, ROUTER]
    body = {
        "name": "p",
        "choice": "few-shot",
        "model": {"name": "openai:gpt-4o-mini@https://api.openai.com/v1"},
        "data": {"examples": "e", "questions": "q"},
        "steps": [step.model_dump(mode="json") for step in steps],
        "weights": {"exact_match": 1},
    }
    plan = parse_plan(body)
    tokens = {"few-shot": [400] * 40, "nearest-reply": [9] * 40, "router": [0] * 30 + [400] * 10}
    arms = {
        name: ArmScores(
            name,
            tuple(f"q{n}" for n in range(40)),
            ({"right": 1.0},) * 40,
            (1.0,) * 40,
            tuple(0.5 if n else 0.01 for n in own),
            tuple(own),
            (0,) * 40,
        )
        for name, own in tokens.items()
    }
    rows = [
        {
            "arm": name,
            "prompt_tokens": own[n],
            "completion_tokens": 0,
            "seconds": 0.5,
            **({"answered_by": "few-shot" if n >= 30 else "nearest-reply"} if name == "router" else {}),
        }
        for name, own in tokens.items()
        for n in range(40)
    ]
    whole, blended = (cost_per_1000(arms[name], plan).usd for name in ("few-shot", "router"))
    assert whole is not None
    assert blended is not None
    assert blended == pytest.approx(whole / 4, rel=0.01)
    routed = routed_answers(arms["router"], plan, rows, 0.6)
    assert routed is not None
    assert routed.usd_low is not None
    assert routed.usd_high is not None
    assert routed.usd_low < blended < routed.usd_high < whole
    assert (routed.hits, routed.n, routed.usd_otherwise) == (30, 40, whole)
    assert routed.low < 0.75 < routed.high
    assert routed_answers(arms["few-shot"], plan, rows, None) is None
    assert cost_per_1000(arms["nearest-reply"], plan).basis == "the reply of an example asks no model"
    ranks = measured_ranks(plan, list(arms.values()))
    assert sorted(ranks, key=lambda name: ranks[name]) == ["nearest-reply", "router", "few-shot"]

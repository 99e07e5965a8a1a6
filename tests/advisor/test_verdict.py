"""The verdict, on made-up scores whose answer is known."""

from __future__ import annotations

import random

import pytest

from advisor.facts import prices
from advisor.percall import per_1000
from advisor.verdict import judge
from runners.plan import Plan, parse_plan
from runners.trial import ArmScores

ARMS = ("prompting", "rag", "lora", "hybrid")


def plan(choice: str = "hybrid", beat: tuple[str, ...] = ("rag", "lora"), **changes: object) -> Plan:
    return parse_plan(
        {
            "name": "p",
            "choice": choice,
            "model": {"name": "smollm2-135m-instruct"},
            "data": {"documents": "d", "examples": "e", "questions": "q"},
            "steps": [{"kind": "index"}, *({"kind": "evaluate", "arm": arm} for arm in ARMS)],
            "weights": {"style": 1},
            "gate": {"must_beat": list(beat)},
            **changes,
        }
    )


def arms(count: int, **means: float) -> list[ArmScores]:
    draw = random.Random(4)
    noise = [draw.uniform(-0.2, 0.2) for _ in range(count)]
    own = random.Random(9)
    return [
        ArmScores(
            name,
            tuple(f"q{n}" for n in range(count)),
            ({},) * count,
            tuple(mean + x + own.uniform(-0.15, 0.15) for x in noise),
            (0.1,) * count,
            (10,) * count,
            (5,) * count,
        )
        for name, mean in means.items()
    ]


def test_a_clear_win_confirms() -> None:
    verdict, pairs = judge(plan(), arms(60, prompting=0.2, rag=0.4, lora=0.5, hybrid=0.8), "m")
    assert (verdict.outcome, verdict.winner, verdict.strength) == ("confirmed", "hybrid", "measured")
    assert verdict.gate_met is True
    assert {p.b for p in pairs} == {"prompting", "rag", "lora"}
    assert "m" in verdict.text
    assert verdict.more_questions_needed is None


def test_losing_to_a_single_arm_overturns() -> None:
    verdict, _ = judge(plan(), arms(60, prompting=0.2, rag=0.8, lora=0.5, hybrid=0.6), "m")
    assert (verdict.outcome, verdict.winner, verdict.gate_met) == ("overturned", "rag", False)
    assert "use rag" in verdict.text


def test_a_lead_within_noise_is_undecided_and_says_how_many_questions_would_do() -> None:
    verdict, _ = judge(plan(), arms(35, prompting=0.2, rag=0.50, lora=0.3, hybrid=0.53), "m")
    assert verdict.outcome == "undecided"
    assert verdict.winner == "rag", "the cheapest arm within noise"
    assert verdict.gate_met is None
    assert verdict.more_questions_needed
    assert verdict.more_questions_needed > 0


def test_few_questions_only_lean() -> None:
    verdict, _ = judge(plan(), arms(20, prompting=0.2, rag=0.4, lora=0.4, hybrid=0.9), "m")
    assert verdict.strength == "leaning"


def test_a_laptop_trial_of_a_sibling_is_a_proxy() -> None:
    wanted = {"answers": {"model": {"value": "llama-3.1-8b", "source": "asked"}}}
    verdict, _ = judge(plan(**wanted), arms(60, prompting=0.2, rag=0.4, lora=0.5, hybrid=0.8), "m")
    assert verdict.strength == "proxy"


def test_the_cheap_choice_is_confirmed_against_costly_arms_within_noise() -> None:
    verdict, _ = judge(
        plan("rag", ("prompting",)), arms(60, prompting=0.2, rag=0.60, lora=0.3, hybrid=0.605), "m"
    )
    assert (verdict.outcome, verdict.winner) == ("confirmed", "rag")


def test_a_choice_that_was_not_measured_has_no_verdict() -> None:
    with pytest.raises(ValueError, match="hybrid"):
        judge(plan(), arms(30, prompting=0.2, rag=0.4), "m")


def test_answers_of_a_hosted_model_are_priced_and_those_of_a_server_here_are_not() -> None:
    price = prices.PRICES[0]
    arm = ArmScores("prompting", ("a", "b"), ({}, {}), (1.0, 0.0), (1.0, 1.0), (100, 300), (10, 30))
    costs = {}
    for host in ("https://api.example.com/v1", "http://127.0.0.1:8000/v1"):
        body = {
            "name": "desk", "choice": "prompting", "model": {"name": f"openai:{price.model}@{host}"},
            "data": {"questions": "q.jsonl"}, "steps": [{"kind": "evaluate", "arm": "prompting"}],
            "weights": {"token_f1": 1},
        }  # fmt: skip
        costs[host] = per_1000(arm, parse_plan(body)).usd
    expected = (200 * price.input + 20 * price.output) / 1e6 * 1000
    assert list(costs.values()) == [pytest.approx(expected, abs=1e-4), None]

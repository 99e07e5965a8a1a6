"""The verdict, on synthetic scores with a known answer."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from advisor.catalog import prices
from advisor.costs.arm_costs import cost_per_1000
from advisor.verdict.comparison import ArmComparison, compare_arms, signed_number
from advisor.verdict.sentences import rounded_up
from advisor.verdict.verdict import judge_trial
from rag.evaluation.statistics import PairedDifference
from runners.plan.schema import Plan, parse_plan
from runners.trial.trial import ArmScores
from tests.support.worded import repeat_in_wordings

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


def test_no_verdict_on_an_arm_that_lost_its_rows() -> None:
    """The other arms are compared among themselves: prompting is surely worse than rag, lora costs more."""
    lost = {"hybrid": "hybrid trains on 1 of 150 examples"}
    verdict, pairs = judge_trial(plan(), arms(60, prompting=0.2, rag=0.6, lora=0.6, hybrid=0.1), "m", lost)
    assert (verdict.outcome, verdict.winner, verdict.gate_met) == ("undecided", "rag", None)
    assert verdict.text.startswith(
        "No verdict on hybrid with m: it was not trained as planned: hybrid trains on 1 of 150"
    )
    assert pairs == ()


def test_other_arm_that_lost_its_rows_is_left_out_of_the_comparison() -> None:
    measured = arms(60, prompting=0.2, rag=0.4, lora=0.9, hybrid=0.8)
    assert judge_trial(plan(), measured, "m")[0].outcome == "overturned"
    verdict, pairs = judge_trial(plan(), measured, "m", {"lora": "lora trains on 3 of 150 examples"})
    assert (verdict.outcome, verdict.winner, verdict.gate_met) == ("undecided", "hybrid", None)
    assert "lora, which hybrid must beat, was not compared" in verdict.text
    assert "lora was not trained as planned and is not compared: lora trains on 3 of" in verdict.text
    assert {pair.b for pair in pairs} == {"prompting", "rag"}


def test_clear_win_is_confirmed() -> None:
    verdict, pairs = judge_trial(plan(), arms(60, prompting=0.2, rag=0.4, lora=0.5, hybrid=0.8), "m")
    assert (verdict.outcome, verdict.winner, verdict.strength) == ("confirmed", "hybrid", "measured")
    assert verdict.gate_met is True
    assert {p.b for p in pairs} == {"prompting", "rag", "lora"}
    assert "m" in verdict.text
    assert verdict.more_questions_needed is None


def test_losing_to_one_arm_is_overturned() -> None:
    verdict, _ = judge_trial(plan(), arms(60, prompting=0.2, rag=0.8, lora=0.5, hybrid=0.6), "m")
    assert (verdict.outcome, verdict.winner, verdict.gate_met) == ("overturned", "rag", False)
    assert "use rag" in verdict.text


def test_lead_within_noise_is_undecided_with_questions_needed() -> None:
    verdict, _ = judge_trial(plan(), arms(35, prompting=0.2, rag=0.50, lora=0.3, hybrid=0.53), "m")
    assert verdict.outcome == "undecided"
    assert verdict.winner == "hybrid", "the best one: that rag, within noise, is not worse was not shown"
    assert verdict.cheaper
    assert verdict.cheaper.arm == "rag"
    assert verdict.gate_met is None
    assert verdict.more_questions_needed
    assert verdict.more_questions_needed > 0


def test_few_questions_give_leaning_strength() -> None:
    verdict, _ = judge_trial(plan(), arms(20, prompting=0.2, rag=0.4, lora=0.4, hybrid=0.9), "m")
    assert verdict.strength == "leaning"


def test_trial_of_another_model_is_a_proxy() -> None:
    wanted = {"model": {"value": "llama-3.1-8b", "source": "asked"}}
    verdict, _ = judge_trial(
        plan(answers=wanted), arms(60, prompting=0.2, rag=0.4, lora=0.5, hybrid=0.8), "m"
    )
    assert verdict.strength == "proxy"


def test_cheap_choice_is_confirmed_within_noise_of_costly_arms() -> None:
    verdict, _ = judge_trial(
        plan("rag", ("prompting",)), arms(60, prompting=0.2, rag=0.60, lora=0.3, hybrid=0.605), "m"
    )
    assert (verdict.outcome, verdict.winner) == ("confirmed", "rag")


def test_unmeasured_choice_raises_value_error() -> None:
    with pytest.raises(ValueError, match="hybrid"):
        judge_trial(plan(), arms(30, prompting=0.2, rag=0.4), "m")


def scored(name: str, values: list[float], **more: Any) -> ArmScores:
    """Return an arm with these combined scores."""
    count = len(values)
    ids = tuple(f"q{n}" for n in range(count))
    return ArmScores(
        name, ids, ({},) * count, tuple(values), (0.1,) * count, (9,) * count, (9,) * count, **more
    )


def steady(mean: float, count: int = 40) -> list[float]:
    """Return scores with this mean that differ a little between questions."""
    return [mean + (n % 5 - 2) / 50 for n in range(count)]


@pytest.mark.parametrize("seed", range(12))
def test_verdict_text_outcome_winner_and_gate_agree(seed: int) -> None:
    """Close or identical arms, few and many questions, gates with and without a margin."""
    draw = random.Random(seed)
    count = draw.choice([1, 2, 5, 6, 12, 40])
    values = {arm: [draw.choice([0.0, 0.5, 1.0]) for _ in range(count)] for arm in ARMS}
    for arm in ARMS:
        if draw.random() < 0.4:
            values[arm] = list(values[draw.choice(ARMS)])
        if draw.random() < 0.4:
            values[arm] = [min(1.0, x + 0.3) for x in values[arm]]
    gate = {"must_beat": ["prompting", "rag", "lora"], "by": draw.choice([0.0, 0.0, 0.1])}
    verdict, _ = judge_trial(plan(gate=gate), [scored(arm, row) for arm, row in values.items()], "m")
    if verdict.outcome == "confirmed":
        assert (verdict.gate_met, verdict.winner) == (True, "hybrid")
        assert "is confirmed" in verdict.text
    elif verdict.outcome == "overturned":
        assert verdict.winner != "hybrid"
        assert f"use {verdict.use}" in verdict.text
    else:
        assert verdict.gate_met is not False
        assert "Not decided" in verdict.text
        assert (
            "stay with " in verdict.text
            if verdict.use == "hybrid"
            else f"until then use {verdict.use}" in verdict.text
        )
    assert verdict.outcome == "overturned" or verdict.gate_met is not False
    assert verdict.outcome == "undecided" or verdict.more_questions_needed is None
    assert verdict.margin is not None
    assert verdict.margin.against in verdict.text


def test_interval_touching_the_margin_decides_nothing() -> None:
    touching = PairedDifference(
        a="a", b="b", difference=0.2, low=0.1, high=0.3, p=0.001, units=40, p_holm=0.001
    )
    assert not ArmComparison(touching, by=0.1).above
    assert not ArmComparison(touching, by=0.3).below
    assert ArmComparison(touching, by=0.09).above
    assert ArmComparison(touching, by=0.31).below
    assert not ArmComparison(replace(touching, p_holm=0.051), by=0.0).above, (
        "the interval alone is too sure of itself"
    )
    assert signed_number(0.004) == "+0.004"
    assert signed_number(-0.00004) == "-4e-05"
    assert (signed_number(0), signed_number(-0.126)) == ("+0.00", "-0.13")


def test_rounded_up() -> None:
    assert [rounded_up(n) for n in (1, 99, 101, 538, 1041, 12905)] == [
        "1",
        "99",
        "110",
        "540",
        "1,100",
        "13,000",
    ]


def test_identical_arms_give_the_cheapest_winner() -> None:
    values = steady(0.5)
    verdict, _ = judge_trial(plan(), [scored(arm, values) for arm in ARMS], "m")
    assert (verdict.outcome, verdict.winner, verdict.gate_met) == ("overturned", "prompting", False)
    few, _ = judge_trial(plan(), [scored(arm, values[:5]) for arm in ARMS], "m")
    assert (few.outcome, few.winner, few.gate_met) == ("undecided", "prompting", None)


def test_deficit_within_noise_is_not_a_failed_gate() -> None:
    draw = random.Random(1)
    base = [draw.random() for _ in range(40)]
    near = [x + draw.uniform(-0.3, 0.29) for x in base]
    verdict, _ = judge_trial(
        plan("rag", ("prompting",)), [scored("prompting", base), scored("rag", near)], "m"
    )
    assert (verdict.outcome, verdict.gate_met) == ("undecided", None)
    assert verdict.winner == "rag", "ahead, and that prompting is not worse was not shown"
    assert verdict.more_questions_needed


def test_gate_margin_must_be_exceeded() -> None:
    rows = [scored("prompting", steady(0.2)), scored("rag", steady(0.4)), scored("lora", steady(0.45))]
    rows.append(scored("hybrid", [x + (n % 3) / 40 for n, x in enumerate(steady(0.5))]))
    beats = {"must_beat": ["rag", "lora"]}
    assert judge_trial(plan(gate={**beats, "by": 0.05}), rows, "m")[0].outcome == "confirmed"
    verdict, _ = judge_trial(plan(gate={**beats, "by": 0.2}), rows, "m")
    assert (verdict.outcome, verdict.gate_met) == ("overturned", False)
    assert "more than 0.2 better than lora" in verdict.text
    assert verdict.winner in ("rag", "lora")


def test_better_costlier_arm_overturns_despite_met_gate() -> None:
    verdict, pairs = judge_trial(
        plan("rag", ("prompting",)), arms(60, prompting=0.2, rag=0.5, lora=0.3, hybrid=0.8), "m"
    )
    assert (verdict.outcome, verdict.winner, verdict.gate_met) == ("overturned", "hybrid", True)
    assert verdict.margin
    assert verdict.margin.against == "hybrid"
    assert verdict.margin.high < 0
    assert "against hybrid" in verdict.text
    assert {p.b: p.p_holm >= p.p for p in pairs} == dict.fromkeys(("prompting", "lora", "hybrid"), True)


def test_gate_with_unmeasured_arm_cannot_be_met() -> None:
    verdict, _ = judge_trial(plan(beat=("rag", "full")), arms(60, rag=0.4, hybrid=0.9), "m")
    assert (verdict.outcome, verdict.gate_met) == ("undecided", None)
    assert "full, which hybrid must beat, was not measured" in verdict.text


def test_single_arm_is_undecided() -> None:
    verdict, pairs = judge_trial(plan(beat=()), arms(60, hybrid=0.9), "m")
    assert (verdict.outcome, pairs, verdict.margin) == ("undecided", (), None)
    assert "Only hybrid was measured" in verdict.text


def test_proxy_with_few_questions_states_both_limits() -> None:
    wanted = {"model": {"value": "llama-3.1-8b", "source": "asked"}}
    verdict, _ = judge_trial(
        plan(answers=wanted), arms(20, prompting=0.2, rag=0.4, lora=0.5, hybrid=0.8), "m"
    )
    assert verdict.strength == "proxy"
    assert "a tendency only" in verdict.text
    assert "in place of llama-3.1-8b" in verdict.text


def test_verdict_clusters_questions_by_document() -> None:
    few, many = ({"documents": tuple(f"{n % count}.md" for n in range(60))} for count in (3, 12))
    draw = random.Random(3)
    rows = {arm: [draw.random() for _ in range(60)] for arm in ("prompting", "rag")}
    few_documents, _ = judge_trial(
        plan("rag", ("prompting",)), [scored(a, v, **few) for a, v in rows.items()], "m"
    )
    assert "come from 3 documents" in few_documents.text
    many_documents, pairs = judge_trial(
        plan("rag", ("prompting",)), [scored(a, v, **many) for a, v in rows.items()], "m"
    )
    assert "documents, too few" not in many_documents.text
    assert (pairs[0].units, pairs[0].questions) == (12, 60)
    assert many_documents.more_questions_needed
    assert many_documents.more_documents_needed
    assert f"about {rounded_up(many_documents.more_documents_needed)} more documents" in many_documents.text


def test_verdict_notes_lead_within_seed_spread() -> None:
    apart = {"seeds": ((0, 0.5), (1, 0.7))}
    rows = [
        scored("prompting", steady(0.4)),
        scored("lora", [x + 0.1 + x / 50 for x in steady(0.4)], **apart),
    ]
    verdict, _ = judge_trial(plan("lora", ("prompting",)), rows, "m")
    assert verdict.outcome == "confirmed"
    assert "smaller than the spread between training seeds (0.20)" in verdict.text


def test_hosted_answers_are_priced_but_not_private_ones() -> None:
    price = prices.PRICES[0]
    arm = ArmScores("prompting", ("a", "b"), ({}, {}), (1.0, 0.0), (1.0, 1.0), (100, 300), (10, 30))
    costs = {}
    for host in ("https://api.example.com/v1", "http://127.0.0.1:8000/v1"):
        body = {
            "name": "desk",
            "choice": "prompting",
            "model": {"name": f"openai:{price.model}@{host}"},
            "data": {"questions": "q.jsonl"},
            "steps": [{"kind": "evaluate", "arm": "prompting"}],
            "weights": {"token_f1": 1},
        }
        costs[host] = cost_per_1000(arm, parse_plan(body)).usd
    expected = (200 * price.input + 20 * price.output) / 1e6 * 1000
    assert list(costs.values()) == [pytest.approx(expected, abs=1e-4), None]


def test_wordings_with_the_same_result_decide_nothing_more() -> None:
    """As many questions are needed, and the intervals are as wide, as if each were asked once."""
    for count, means in ((60, {"hybrid": 0.55}), (20, {"hybrid": 0.8}), (5, {"hybrid": 0.9})):
        measured = arms(count, prompting=0.2, rag=0.5, lora=0.5, **means)
        verdict, pairs = judge_trial(plan(), measured, "m")
        worded, worded_pairs = judge_trial(plan(), [repeat_in_wordings(arm, 2) for arm in measured], "m")
        for pair, other in zip(pairs, worded_pairs, strict=True):
            assert (other.questions, other.units) == (pair.questions, pair.units) == (count, count)
            assert (other.difference, other.low, other.high) == pytest.approx(
                (pair.difference, pair.low, pair.high), abs=0.01
            )
            assert other.p == pytest.approx(pair.p, abs=0.01)
        assert worded.strength == verdict.strength == ("leaning" if count < 30 else "measured")
        assert worded.outcome == verdict.outcome
        assert worded.more_questions_needed == verdict.more_questions_needed


def test_every_wording_counts_in_the_difference() -> None:
    first, second = arms(40, rag=0.5, hybrid=0.5)
    counts = [n % 3 for n in range(40)]
    first, second = (repeat_in_wordings(arm, counts) for arm in (first, second))
    assert first.question_count == 40
    pair = compare_arms(second, first, 0)
    apart = [x - y for x, y in zip(second.combined, first.combined, strict=True)]
    assert (pair.difference, pair.questions) == (pytest.approx(sum(apart) / len(apart)), 40)
    assert sum(second.shown("combined")) / 40 == pytest.approx(second.mean_score)


def test_wordings_of_a_question_stay_together_where_documents_are_too_few() -> None:
    """Of two documents nothing is sure, and intervals are over questions, each with all its wordings."""
    measured = [
        replace(arm, documents=("a", "b") * 20)
        for arm in arms(40, prompting=0.2, rag=0.4, lora=0.5, hybrid=0.6)
    ]
    worded = [repeat_in_wordings(arm, 2) for arm in measured]
    verdict, pairs = judge_trial(plan(), worded, "m")
    once = judge_trial(plan(), [replace(arm, documents=()) for arm in measured], "m")[1]
    assert [(pair.questions, pair.units, pair.p) for pair in pairs] == [(40, 2, 1.0)] * 3
    assert [pair.low for pair in pairs] == pytest.approx([pair.low for pair in once], abs=0.01)
    assert "The questions come from 2 documents" in verdict.text
    assert (verdict.outcome, verdict.strength, verdict.gate_met) == ("undecided", "leaning", None)
    apart = [replace(arm, documents=tuple(f"d{n // 4}" for n in range(40))) for arm in measured]
    worded = [repeat_in_wordings(arm, 2) for arm in apart]
    assert [pair.units for pair in judge_trial(plan(), worded, "m")[1]] == [10] * 3

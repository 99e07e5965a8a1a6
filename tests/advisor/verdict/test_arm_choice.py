"""The arm to use, on planted scores: what was said in the answers decides which arms can be taken at all."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from advisor.verdict.right_answers import right_answers
from advisor.verdict.verdict import judge_trial
from runners.report.json_records import to_json
from runners.report.records import Verdict
from runners.trial.trial import ArmScores
from tests.support.planted_arms import ARMS, arm, cited, first, plan

PRINT_SHOP = {"must_cite": "yes", "wrong_answer_cost": "high"}
"""What was said in the trial of a print shop's help desk."""
PRINT_SHOP_RIGHT = {"hybrid": 13, "rag": 10, "naive-stack": 9, "lora": 2, "few-shot": 1, "prompting": 1}
"""Right answers of its 24 questions."""


def print_shop(**changes: ArmScores) -> list[ArmScores]:
    """Return the arms of the print shop; questions that a weaker arm answers, the better ones answer too."""
    arms = {
        name: arm(name, first(n), citation=cited(0.8 if ARMS[name].get("retrieval") else 0.0))
        for name, n in PRINT_SHOP_RIGHT.items()
    }
    return list((arms | changes).values())


def judged(
    answers: Mapping[str, Any], arms: list[ArmScores], choice: str = "hybrid", **changes: Any
) -> Verdict:
    """Return the verdict; without a floor, which has its own tests, where the answers state none."""
    return judge_trial(plan({"usable_from": 0} | dict(answers), choice, **changes), arms, "m")[0]


def test_print_shop_uses_an_arm_that_cites_and_answers() -> None:
    """Few-shot, with 1 of 24 right and no sources, was "the cheapest within noise" of what style had lifted to .52."""
    parrot = arm("few-shot", first(1), citation=cited(0.0))
    lifted = ArmScores(
        parrot.arm,
        parrot.questions,
        parrot.scores,
        (0.52,) * 24,
        parrot.seconds,
        parrot.prompt_tokens,
        parrot.completion_tokens,
    )
    for arms in (print_shop(), print_shop(**{"few-shot": lifted})):
        verdict = judged(PRINT_SHOP, arms)
        assert verdict.use in ("hybrid", "rag")
        assert set(verdict.excluded) >= {"few-shot", "lora", "prompting"}
        assert verdict.excluded["few-shot"] == "names no sources"
        assert verdict.use_reason
        assert verdict.text.startswith("hybrid answers 13 of 24 right with m, ")


@pytest.mark.parametrize("seed", range(8))
def test_print_shop_in_any_order_of_questions(seed: int) -> None:
    draw = random.Random(seed)
    arms = []
    for name, n in PRINT_SHOP_RIGHT.items():
        row = first(n)
        draw.shuffle(row)
        arms.append(arm(name, row, citation=cited(0.8 if ARMS[name].get("retrieval") else 0.0)))
    assert judged(PRINT_SHOP, arms).use in ("hybrid", "rag")
    assert judged({}, arms).use in ("hybrid", "rag"), (
        "without must_cite an arm with 1 or 2 right is out as well"
    )


def test_without_must_cite_a_tuned_arm_without_sources_can_be_used() -> None:
    arms = print_shop(lora=arm("lora", first(20), citation=cited(0.0)))
    assert judged({"wrong_answer_cost": "high"}, arms).use == "lora"
    verdict = judged(PRINT_SHOP, arms)
    assert verdict.use in ("hybrid", "rag")
    assert (verdict.winner, verdict.outcome) == (verdict.use, "overturned")
    assert f"use {verdict.use} (lora names no sources)" in verdict.text


def test_of_two_equal_arms_the_cheaper_one_is_used() -> None:
    equal = [
        arm("rag", first(30, 60), citation=cited(1.0, 60)),
        arm("hybrid", first(30, 60), citation=cited(1.0, 60)),
    ]
    assert judged(PRINT_SHOP, equal).use == "rag"
    few = [arm("rag", first(12), citation=cited(1.0)), arm("hybrid", first(12), citation=cited(1.0))]
    assert judged(PRINT_SHOP, few).use == "rag"


@pytest.mark.parametrize("behind", [1, 2, 3])
def test_with_few_questions_a_cheaper_arm_is_not_taken_for_as_good(behind: int) -> None:
    """With 24 questions three fewer are within noise, and one fewer is no evidence either: the cheaper arm is only named."""
    arms = [arm("rag", first(12 - behind)), arm("hybrid", first(12))]
    verdict = judged({}, arms, gate={"must_beat": ["rag"]})
    assert verdict.use == "hybrid"
    assert verdict.cheaper
    assert (verdict.cheaper.arm, verdict.cheaper.than, verdict.cheaper.by) == ("rag", "hybrid", 0.1)
    assert verdict.cheaper.more_questions_needed is None, (
        "of so many more it would lose clearly: it wins on none of these"
    )


def test_within_noise_is_not_shown_to_be_as_good() -> None:
    """60 questions leave open whether the cheaper arm is a tenth worse; 240 show that it is not."""
    draw = random.Random(1)
    for count, use in ((60, "hybrid"), (240, "rag")):
        hard = [draw.random() for _ in range(count)]
        arms = [
            arm("rag", [x + draw.uniform(-0.3, 0.3) < 0.52 for x in hard]),
            arm("hybrid", [x + draw.uniform(-0.3, 0.3) < 0.53 for x in hard]),
        ]
        verdict = judged({}, arms, gate={"must_beat": ["rag"]})
        assert verdict.use == verdict.winner == use
        assert bool(verdict.cheaper) == (use == "hybrid")


def test_no_arm_retrieves_although_sources_are_demanded() -> None:
    arms = [arm(name, first(n)) for name, n in (("prompting", 4), ("few-shot", 6), ("lora", 20))]
    verdict = judged(PRINT_SHOP, arms, "lora", gate={"must_beat": ["prompting", "few-shot"]})
    assert verdict.use is None
    assert verdict.winner is None
    assert verdict.use_reason.startswith(
        "answers must name their source, and no arm of this run does that: give the"
    )
    assert set(verdict.excluded) == {"prompting", "few-shot", "lora"}
    assert compared_arms(verdict) == (None, None)
    assert "none of these can be used yet" in verdict.text


def test_retrieval_whose_answers_cite_nothing_names_no_source() -> None:
    arms = print_shop(rag=arm("rag", first(13), citation=cited(0.0)))
    verdict = judged(PRINT_SHOP, arms)
    assert verdict.use == "hybrid"
    assert verdict.excluded["rag"] == "names a source that supports it in none of 24 answers"


def test_never_refusing_arm_is_out_where_wrong_answers_are_expensive() -> None:
    """Both answer the same 30 questions right; one of them also invents an answer to the ten that have none."""
    answers = first(20, 30)
    arms = [
        arm("rag", [*answers, *first(0, 10)], unanswerable=10),
        arm("hybrid", [*first(18, 30), *first(9, 10)], unanswerable=10),
    ]
    verdict = judged({"wrong_answer_cost": "high"}, arms, gate={"must_beat": ["rag"]})
    assert verdict.use == "hybrid"
    assert verdict.excluded == {"rag": "refuses 0 of 10 questions without an answer, hybrid 9"}
    assert judged({}, arms, gate={"must_beat": ["rag"]}).excluded == {}


def test_nobody_is_out_for_never_refusing_when_none_refuses() -> None:
    arms = [
        arm(name, [*first(n, 30), *first(0, 10)], unanswerable=10)
        for name, n in (("rag", 20), ("hybrid", 22))
    ]
    assert judged({"wrong_answer_cost": "high"}, arms, gate={"must_beat": ["rag"]}).excluded == {}


def test_always_refusing_arm_never_is_used() -> None:
    arms = [
        arm("rag", [*first(0, 30), *first(10, 10)], unanswerable=10),
        arm("hybrid", [*first(24, 30), *first(7, 10)], unanswerable=10),
    ]
    for answers in ({}, {"wrong_answer_cost": "high"}):
        assert judged(answers, arms, gate={"must_beat": ["rag"]}).use == "hybrid"


def test_no_right_answer_at_all_gives_no_arm() -> None:
    arms = [arm("rag", first(0)), arm("hybrid", first(0))]
    verdict = judged({}, arms, gate={"must_beat": ["rag"]})
    assert verdict.use is None
    assert verdict.use_reason.startswith(
        "at least one question with an answer must be right, and the best, rag, answers 0 of 24"
    )


def test_runs_without_judged_answers_go_by_the_combined_score() -> None:
    def unjudged(name: str, mean: float) -> ArmScores:
        scores = tuple(mean + (n % 5 - 2) / 50 for n in range(40))
        return ArmScores(
            name, tuple(f"q{n}" for n in range(40)), ({},) * 40, scores, (0.1,) * 40, (9,) * 40, (9,) * 40
        )

    assert right_answers(unjudged("rag", 0.5)) is None
    arms = [unjudged("prompting", 0.2), unjudged("rag", 0.5), unjudged("hybrid", 0.8)]
    assert judged({}, arms, gate={"must_beat": ["rag"]}).use == "hybrid"
    today = judged({}, arms, gate={"must_beat": ["rag"]}).compared.today
    assert today is not None
    assert today.right is None


def compared_arms(verdict: Verdict) -> tuple[str | None, str | None]:
    """Return the arms that the used one is compared with: today's prompt and the alternative."""
    today, other = verdict.compared.today, verdict.compared.alternative
    return today.arm if today else None, other.arm if other else None


def test_explaining_arm_is_neither_rival_nor_used_unless_surely_better() -> None:
    equal = [
        arm(name, first(n, 60))
        for name, n in (("prompting", 5), ("rag", 20), ("naive-stack", 41), ("hybrid", 40))
    ]
    verdict = judged({}, equal, gate={"must_beat": ["prompting", "rag"]})
    assert (verdict.outcome, verdict.winner, verdict.use) == ("confirmed", "hybrid", "hybrid")
    assert verdict.margin
    assert verdict.margin.against == "rag"
    assert "naive-stack" not in verdict.text
    assert compared_arms(verdict) == ("prompting", "rag")
    better = [*equal[:2], arm("naive-stack", first(58, 60)), equal[3]]
    verdict = judged({}, better, gate={"must_beat": ["prompting", "rag"]})
    assert (verdict.outcome, verdict.use) == ("overturned", "naive-stack")


def test_inventing_arm_is_out_where_absence_is_legal() -> None:
    arms = [
        arm("rag", first(30, 40), spurious=[1.0] * 20 + [0.0] * 20),
        arm("hybrid", first(28, 40), spurious=[0.0] * 38 + [1.0] * 2),
    ]
    verdict = judged({"absence_is_legal": "yes"}, arms, gate={"must_beat": ["rag"]})
    assert verdict.use == "hybrid"
    assert verdict.excluded == {"rag": "invents values where none are: 50% of them, hybrid 5%"}
    assert judged({"absence_is_legal": "no"}, arms, gate={"must_beat": ["rag"]}).use == "rag"


def test_arm_whose_answers_lack_the_demanded_form_is_out() -> None:
    checks = [{"kind": "json_schema", "value": {"type": "object"}}]
    arms = [
        arm("rag", first(20, 40), valid_json=[1.0] * 10 + [0.0] * 30),
        arm("hybrid", first(19, 40), valid_json=[1.0] * 40),
    ]
    verdict = judged({"output_format": "json"}, arms, checks=checks, gate={"must_beat": ["rag"]})
    assert verdict.use == "hybrid"
    assert verdict.excluded == {"rag": "has the required form in 10 of 40 answers"}
    assert judged({"output_format": "free"}, arms, gate={"must_beat": ["rag"]}).use == "rag"


def test_hosted_arm_is_out_where_data_must_stay_local() -> None:
    hosted = {"rag": {"retrieval": True, "model": {"name": "openai:gpt@https://api.example.com/v1"}}}
    arms = [arm("rag", first(40, 60)), arm("hybrid", first(20, 60))]
    for key, value in (("data_must_stay_local", True), ("hosted_api_allowed", False)):
        verdict = judged({key: value}, arms, settings=hosted, gate={"must_beat": []})
        assert verdict.use == "hybrid"
        assert verdict.excluded == {"rag": "sends the data to https://api.example.com/v1"}
    private = {"rag": {"retrieval": True, "model": {"name": "openai:gpt@http://127.0.0.1:8000/v1"}}}
    assert judged({"data_must_stay_local": True}, arms, settings=private).use == "rag"


def test_slow_arm_is_out_where_it_was_timed_alone() -> None:
    arms = [arm("rag", first(30, 60)), arm("hybrid", first(40, 60))]
    asked = plan({"latency_p95_ms": 2000, "usable_from": 0}, gate={"must_beat": []})
    assert judge_trial(asked, arms, "m")[0].excluded == {}, "nothing was timed alone"
    verdict, _ = judge_trial(asked, arms, "m", seconds_alone={"rag": 1.4, "hybrid": 8.25})
    assert verdict.use == "rag"
    assert verdict.excluded == {"hybrid": "takes 8.2 s for an answer alone, and 2 s is the most"}


def test_arm_that_was_not_trained_as_planned_is_not_used() -> None:
    verdict, _ = judge_trial(
        plan(PRINT_SHOP | {"usable_from": 0}),
        print_shop(),
        "m",
        {"hybrid": "hybrid trains on 1 of 150 examples"},
    )
    assert verdict.use == "rag"
    assert verdict.excluded["hybrid"] == "was not trained as planned: hybrid trains on 1 of 150 examples"
    assert "Until then use rag, which answers 10 of 24 right." in verdict.text


def test_different_requirements_that_no_arm_meets_together_are_all_named() -> None:
    arms = [
        arm("lora", first(20, 40), valid_json=[1.0] * 40),
        arm("rag", first(20, 40), valid_json=[0.0] * 40),
    ]
    answers = {"must_cite": "yes", "output_format": "json"}
    verdict = judged(answers, arms, "lora", gate={"must_beat": []})
    assert verdict.use is None
    assert verdict.use_reason.startswith(
        "no arm meets all requirements of your answers: answers must name their source (not met by lora); "
        "answers must have the required form (not met by rag): "
    )


def test_alternative_is_the_cheapest_useful_arm() -> None:
    """The demo: few-shot and lora have 3 and 2 of 65 right, which is no alternative to 48."""
    counts = {"prompting": 2, "few-shot": 3, "rag": 35, "lora": 2, "naive-stack": 21, "hybrid": 48}
    arms = [arm(name, first(n, 65), citation=cited(0.9, 65)) for name, n in counts.items()]
    verdict = judged({}, arms)
    assert verdict.use == "hybrid"
    assert compared_arms(verdict) == ("prompting", "rag")
    today, other = verdict.compared.today, verdict.compared.alternative
    assert today is not None
    assert other is not None
    assert (today.right and today.right.n, other.right and other.right.n) == (2, 35)
    assert today.difference > other.difference > 0
    strict = judged(PRINT_SHOP, arms)
    assert "rag" in strict.excluded, "surely fewer right where a wrong answer is expensive"
    assert compared_arms(strict)[1] == "rag", "it cites, and stays the alternative"
    weak = [row for row in arms if row.arm not in ("rag", "naive-stack")]
    verdict = judged({}, weak, gate={"must_beat": ["prompting", "few-shot", "lora"]})
    assert compared_arms(verdict)[1] == "few-shot", "without a useful one, that with most right answers"


def test_right_answers_are_counted_with_both_parts_and_an_interval() -> None:
    row = right_answers(arm("hybrid", [*first(37, 53), *first(11, 12)], unanswerable=12))
    assert row
    assert to_json(row) | {"low": 0, "high": 0} == {
        "n": 48,
        "of": 65,
        "low": 0,
        "high": 0,
        "answered": {"n": 37, "of": 53},
        "refused": {"n": 11, "of": 12},
    }
    assert row.low < 48 / 65 < row.high
    nothing = right_answers(arm("lora", first(0, 24)))
    assert nothing
    assert (nothing.low, round(nothing.high, 3)) == (0.0, 0.138)


def test_counts_of_several_seeds_add_up() -> None:
    seeds = ArmScores(
        "hybrid",
        ("a", "b", "c", "d"),
        (
            {"right": 0.5},
            {"right": 1.0},
            {"right": 0.5, "correct_refusal": 0.5},
            {"right": 0.0, "correct_refusal": 0.0},
        ),
        (0.4, 0.9, 0.4, 0.0),
        (0.1,) * 4,
        (9,) * 4,
        (9,) * 4,
    )
    row = right_answers(seeds)
    assert row
    assert (row.n, row.answered.n + row.refused.n) == (2, 2)


def test_shared_documents_widen_the_interval_of_right_answers() -> None:
    apart = arm("rag", [n % 2 == 0 for n in range(60)])
    together = arm("rag", [n // 5 % 2 == 0 for n in range(60)])
    shared = replace(together, documents=tuple(f"{n // 5}.md" for n in range(60)))
    narrow, wide = right_answers(apart), right_answers(shared)
    assert narrow
    assert wide
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


@pytest.mark.parametrize("advised", ["hybrid", "rag"])
def test_substitute_for_the_recommended_arm_is_never_confirmed(advised: str) -> None:
    """The plan was recommended an arm that it cannot measure: the verdict on another one is not about it."""
    arms = [arm(name, first(n, 60)) for name, n in (("prompting", 5), ("few-shot", 8), ("lora", 40))]
    steps = [
        {"kind": "train", "arm": "lora", "method": "lora"},
        *({"kind": "evaluate", "arm": name, **ARMS[name]} for name in ("prompting", "few-shot", "lora")),
    ]
    changes = {
        "steps": steps,
        "data": {"examples": "e", "questions": "q"},
        "gate": {"must_beat": ["prompting", "few-shot"]},
    }
    assert judged({}, arms, "lora", **changes).outcome == "confirmed"
    verdict = judged({}, arms, "lora", **changes, predicted={"choice": advised})
    assert (verdict.outcome, verdict.recommended, verdict.advised, verdict.use) == (
        "undecided",
        "lora",
        advised,
        "lora",
    )
    assert f"{advised} was recommended but not measured, because the plan has no documents." in verdict.text
    assert (
        "Of the arms measured: lora is clearly better than the arms it must beat; use lora." in verdict.text
    )
    assert "is confirmed" not in verdict.text
    assert (verdict.more_questions_needed, verdict.gate_met) == (None, True)

"""The verdict on a trial of several models: names METHOD@ALIAS, one family of comparisons, prices, incomplete arms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from advisor.costs.arm_costs import cost_per_1000, measured_ranks, only_explains, upkeep_costs
from advisor.methods.arm_titles import arm_title, arms_in_words
from advisor.report.question_browser import arm_letters
from advisor.verdict.arm_choice import Trial
from advisor.verdict.comparison import SIGNIFICANCE_LEVEL, all_pairs, questions_needed
from advisor.verdict.sentences import Conclusion
from advisor.verdict.verdict import gains_by_score, judge_trial, substitute_sentence, today_arm
from benchmarks.simulated_grids import ARMS, CHOICE, grid_plan, grid_row
from rag.evaluation.statistics import holm_correction
from runners.data.questions import Question
from runners.plan.schema import Plan, parse_plan
from runners.report.records import Verdict
from runners.report.refusal_drift import refusal_drift
from runners.trial.trial import ArmScores
from tests.support.reports import report_from

COUNT = 60


def arm_of(name: str, share: float, seed: int = 0, tokens: int = 100) -> ArmScores:
    """Return an arm that answers this share of sixty questions right, each of a document of its own."""
    right = np.random.default_rng([seed, sum(map(ord, name))]).permutation(COUNT) < share * COUNT
    values = tuple(map(float, right))
    ids = tuple(f"q{n}" for n in range(COUNT))
    rows = tuple({"right": value} for value in values)
    return ArmScores(name, ids, rows, values, (0.1,) * COUNT, (tokens,) * COUNT, (tokens,) * COUNT)


def scores(**shares: float) -> list[ArmScores]:
    """Return all arms of a grid: those of ``METHOD_ALIAS`` have these shares of right answers, the others half."""
    named = {name.replace("__", "-").replace("_", "@"): share for name, share in shares.items()}
    return [arm_of(arm, named.get(arm, 0.5)) for arm in ARMS]


def judged(plan: Plan, arms: list[ArmScores], **others: Any) -> Verdict:
    return judge_trial(plan, arms, "m", **others)[0]


def test_arms_are_read_by_method_and_compared_within_their_model() -> None:
    plan = grid_plan()
    arms = {arm.arm: arm for arm in scores(hybrid_small=0.95, rag_small=0.3)}
    graded = {
        name: replace(arm, scores=tuple({**row, "style": 0.0} for row in arm.scores))
        for name, arm in arms.items()
    }
    weighed = plan.model_copy(update={"weights": {"right": 1.0, "style": 1.0}})
    text = gains_by_score(weighed, graded)
    assert "over rag@small" in text
    assert today_arm(plan, ARMS) == "prompting@small"
    assert today_arm(plan, ["rag@small", "prompting@big"]) == "prompting@big", "the first that was measured"
    assert today_arm(grid_plan().model_copy(update={"models": {}}), ["prompting"]) == "prompting"
    assert only_explains("naive-stack@big")
    assert not only_explains("hybrid@big")
    assert arm_title("hybrid@small") == arm_title("hybrid")
    assert arms_in_words(["rag@small", "rag@big"]).count("search in") == 1
    assert arm_letters(["rag@small", "rag@big", "hybrid@big", "classifier"]) == {
        "rag@small": "R1",
        "rag@big": "R2",
        "hybrid@big": "H2",
        "classifier": "C",
    }
    assert arm_letters(["rag", "rag-tuned"]) == {"rag": "R", "rag-tuned": "A"}
    without = plan.model_copy(
        update={
            "predicted": {"choice": "hybrid@big"},
            "data": plan.data.model_copy(update={"documents": None}),
        }
    )
    assert "because the plan has no documents" in substitute_sentence(without, [])
    assert upkeep_costs(plan.steps)["prompting@small"][0] == 0


def test_todays_prompt_and_the_model_of_the_choice_are_named() -> None:
    plan = grid_plan()
    verdict = judged(plan, scores(hybrid_small=0.95))
    assert verdict.model == "openai:small@http://127.0.0.1:1/v1"
    assert verdict.compared.today
    assert verdict.compared.today.arm == "prompting@small"
    own = judged(plan, scores(prompting_small=0.95))
    report = report_from({"arms": [{"arm": "prompting@small", "right": {"n": 57, "of": 60}}]})
    said = Conclusion(report=report, verdict=own, prompt_in_use=True, today="prompting@small").sentences
    assert own.use == "prompting@small"
    assert said[0].startswith("Stay with your prompt, prompting@small")
    other = Conclusion(report=report, verdict=own, prompt_in_use=True, today="prompting@big").sentences
    assert other[0].startswith("Use prompting@small")


def test_refusals_drift_against_the_untuned_arm_of_the_same_model() -> None:
    questions = [Question(f"q{n}", "?") for n in range(20)]
    rows = [
        {"arm": arm, "id": question.id, "refused": arm == "hybrid@big"}
        for arm in ARMS
        for question in questions
    ]
    drift = {row["arm"]: row["against"] for row in refusal_drift(grid_plan(), questions, rows)}
    assert drift == {f"hybrid@{alias}": f"rag@{alias}" for alias in ("small", "middle", "big")}


def test_all_pairs_of_arms_are_one_family() -> None:
    plan, arms = grid_plan(), scores(hybrid_small=0.8)
    _, pairs = judge_trial(plan, arms, "m")
    family = all_pairs(len(ARMS))
    assert family == 66
    adjusted = holm_correction([*(pair.p for pair in pairs), *[1.0] * (family - len(pairs))])
    assert [pair.p_holm for pair in pairs] == adjusted[: len(pairs)]
    assert min(pair.p_holm for pair in pairs) >= 66 * min(pair.p for pair in pairs) - 1e-12
    trial = Trial.of(plan, {arm.arm: arm for arm in arms}, {})
    assert trial.only(["rag@big", "rag@small"]).family == family, (
        "what was measured counts, and not what is left"
    )
    one = plan.model_copy(update={"models": {"small": plan.model}})
    assert Trial.of(one, {arm.arm: arm for arm in arms[:4]}, {}).family == 0


def test_the_best_is_used_and_the_cheapest_that_is_not_worse_is_named() -> None:
    same = arm_of("x", 0.8)
    arms = [replace(same, arm=arm) if arm in ("rag@small", "rag@big") else arm_of(arm, 0.3) for arm in ARMS]
    better = list(same.combined)
    better[better.index(0.0)] = 1.0
    rows = tuple({"right": value} for value in better)
    arms = [
        replace(arm, combined=tuple(better), scores=rows) if arm.arm == "rag@big" else arm for arm in arms
    ]
    grid = grid_plan().model_copy(update={"gate": grid_plan().gate.model_copy(update={"not_worse_by": 0.2})})
    best = judged(grid, arms)
    assert (best.use, best.in_place_of, best.not_worse) == ("rag@big", None, "rag@small")
    assert (
        "rag@small is not worse than rag@big by 0.2 or more, and costs less: 1,000 answers" in best.use_reason
    )
    cheap = judged(
        grid.model_copy(update={"gate": grid.gate.model_copy(update={"prefer": "cheapest"})}), arms
    )
    assert (cheap.use, cheap.in_place_of, cheap.not_worse) == ("rag@small", "rag@big", None)
    report = report_from({"arms": [{"arm": "rag@big", "right": {"n": 49, "of": 60}}]})
    said = Conclusion(report=report, verdict=best, prompt_in_use=True).sentences
    assert any(
        line.endswith("To use the cheaper one, set prefer: cheapest in the plan's gate.") for line in said
    )


def test_plans_of_one_model_prefer_the_cheapest() -> None:
    names = ("prompting", "rag")
    steps = [
        {"kind": "index"},
        *({"kind": "evaluate", "arm": arm, "retrieval": arm == "rag"} for arm in names),
    ]
    plan = parse_plan(
        {
            "name": "p",
            "choice": "rag",
            "model": {"name": "m"},
            "data": {"documents": "d", "questions": "q"},
            "steps": steps,
            "weights": {"right": 1},
        }
    )
    trial = Trial.of(plan, {arm: arm_of(arm, 0.5) for arm in names}, {}, "NVIDIA H100 80GB HBM3")
    assert (trial.prefers_best, trial.family, trial.gpu, trial.in_usd) == (False, 0, "", {})
    best = plan.model_copy(update={"gate": plan.gate.model_copy(update={"prefer": "best"})})
    assert Trial.of(best, trial.arms, {}).prefers_best
    assert not Trial.of(grid_plan("cheapest"), {arm.arm: arm for arm in scores()}, {}).prefers_best


def test_a_recommendation_is_confirmed_where_it_is_the_best() -> None:
    """A cheaper arm within noise does not stand against it, as it does where the cheapest is preferred."""
    plan = grid_plan()
    arms = scores(hybrid_small=0.95, prompting_small=0.2, few__shot_small=0.2, rag_small=0.2)
    arms = [arm_of(arm.arm, 0.9, 3) if arm.arm == "hybrid@middle" else arm for arm in arms]
    assert judged(plan, arms).outcome == "confirmed"
    cheap = {"small": (50.0, 50.0)}  # then hybrid@middle costs less and is as good within noise
    dear = plan.models["small"].model_copy(
        update={"usd_per_million_input": cheap["small"][0], "usd_per_million_output": cheap["small"][1]}
    )
    plan = plan.model_copy(update={"models": {**plan.models, "small": dear}, "model": dear})
    assert judged(plan, arms).outcome == "confirmed"
    cheapest = plan.model_copy(update={"gate": plan.gate.model_copy(update={"prefer": "cheapest"})})
    assert judged(cheapest, arms).outcome == "undecided"


def test_an_open_verdict_needs_more_questions_in_a_larger_family() -> None:
    _, pairs = judge_trial(grid_plan(), scores(hybrid_small=0.6), "m")
    from advisor.verdict.comparison import ArmComparison

    one = [ArmComparison(next(pair for pair in pairs if pair.difference > 0.05))]
    few, many = questions_needed(one), questions_needed(one, 66)
    assert few
    assert many
    assert many.questions > few.questions


def test_prices_of_the_plan_come_first() -> None:
    plan = grid_plan()
    arm = arm_of("rag@big", 0.5, tokens=1000)
    cost = cost_per_1000(arm, plan)
    assert cost.usd == pytest.approx(5.0 + 20.0)
    assert cost.basis == "tokens at 5 USD a million read and 20 written, set in the plan"

    def with_big(**changes: Any) -> Plan:
        none = {"usd_per_million_input": None, "usd_per_million_output": None}
        big = plan.models["big"].model_copy(update={**none, **changes})
        return plan.model_copy(update={"models": {**plan.models, "big": big}})

    hourly = cost_per_1000(arm, with_big(usd_hour=7.2, at_once=4))
    assert hourly.usd == pytest.approx(0.1 / 4 * 1000 / 3600 * 7.2)
    assert hourly.basis == "seconds measured, 4 requests at once, at 7.2 USD an hour, set in the plan"
    local = cost_per_1000(arm, with_big(usd_hour=7.2, at_once=4, name="gemma-3-270m"))
    assert local.usd == pytest.approx(0.1 * 1000 / 3600 * 7.2)
    assert cost_per_1000(arm, with_big()).usd is None
    free = cost_per_1000(arm, with_big(usd_hour=0.0))
    assert free.usd == 0.0


def test_arms_in_time_and_in_money_are_not_compared() -> None:
    plan = grid_plan()
    none = {"usd_per_million_input": None, "usd_per_million_output": None}
    small = plan.models["small"].model_copy(update=none)
    plan = plan.model_copy(update={"models": {**plan.models, "small": small}, "model": small})
    arms = scores()
    ranks = measured_ranks(plan, arms)
    assert sorted(ranks.values()) == list(range(len(ARMS)))
    assert max(ranks[name] for name in ranks if name.endswith("@small")) == 3
    trial = Trial.of(plan, {arm.arm: arm for arm in arms}, {})
    assert not trial.comparable("rag@small", "rag@big")
    assert all(name.endswith("@middle") or name.endswith("@big") for name in trial.cheaper_than("hybrid@big"))
    verdict = judged(plan, scores(rag_big=0.95, hybrid_small=0.9))
    assert verdict.not_worse is None
    assert verdict.cheaper is None or not verdict.cheaper.arm.endswith("@small")


def test_incomplete_arms_are_left_out_of_everything() -> None:
    plan, arms = grid_plan(), scores(hybrid_small=0.95)
    gone = {"rag@small": "the money ended (12 of 60 questions answered)"}
    verdict, pairs = judge_trial(plan, arms, "m", incomplete=gone)
    assert "rag@small" not in [pair.b for pair in pairs], "scores of an earlier state do not count"
    assert verdict.excluded["rag@small"].startswith("is incomplete: the money ended")
    assert verdict.outcome == "undecided"
    assert "rag@small, which hybrid@small must beat, was not finished; until then" in verdict.text
    assert "rag@small is incomplete and is not compared: the money ended" in verdict.text
    held = judged(plan, arms, incomplete={CHOICE: "HOST did not answer (3 of 60 questions answered)"})
    assert held.outcome == "undecided"
    assert held.use not in (None, CHOICE)
    assert held.text.startswith(
        f"No verdict on {CHOICE} with openai:small@http://127.0.0.1:1/v1: it is incomplete: HOST"
    )
    with pytest.raises(ValueError, match="was not measured"):
        judge_trial(plan, [arm for arm in arms if arm.arm != CHOICE], "m")


@pytest.mark.parametrize("part", ["equal", "unequal", "boundary", "copies", "sure"])
def test_simulated_grids_seldom_err(part: str) -> None:
    """Few of the 2,000 grids of benchmarks/LOG.md, with another seed."""
    grids = 5
    row = grid_row(part, 20, grids, seed=1)
    assert row["wrong"] * grids <= stats.binom.ppf(0.9999, grids, SIGNIFICANCE_LEVEL)
    assert row["held"] * grids * len(ARMS) >= stats.binom.ppf(1e-4, grids * len(ARMS), 0.93)

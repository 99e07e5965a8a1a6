"""A case of another trade than the shipped example: its stored answers, scored and judged again.

The answers are those of a real `tunewise run --quick` on benchmarks/desk_case, whose README says how. The practice wants
sources and cannot afford wrong answers, so an arm that knows nothing but the house's phrases must not be the one to use.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from advisor.verdict.verdict import judge_trial
from runners.plan.schema import Plan, RecordedAnswer, read_plan
from runners.runs.dataset import read_data
from runners.trial.trial import ArmScores, score_trial

CASE = Path(__file__).parents[2] / "benchmarks" / "desk_case"
WITHOUT_DOCUMENTS = ("prompting", "few-shot", "lora")
RETRIEVES = ("rag", "hybrid")


@pytest.fixture(scope="module")
def plan() -> Plan:
    """The plan of the stored answers."""
    return read_plan(CASE / "run_plan.yaml")


@pytest.fixture(scope="module")
def arms(plan: Plan) -> dict[str, ArmScores]:
    """The arms by name, scored on the stored answers to the test questions of the plan's own split."""
    rows = [json.loads(line) for line in (CASE / "answers.jsonl").read_text("utf-8").splitlines()]
    questions = read_data(plan).split.test
    asked = {row["id"] for row in rows}
    assert {question.id for question in questions} == asked, "the stored answers are of another split"
    return {arm.arm: arm for arm in score_trial(plan, questions, rows, lambda question: "")}


def right_answers(arm: ArmScores) -> float:
    """How many of an arm's answers are right."""
    return sum(arm.of("right"))


def test_none_is_used_where_the_best_answers_seven_of_24(plan: Plan, arms: dict[str, ArmScores]) -> None:
    """Wrong answers are expensive, so 8 of 10 are asked for; what comes closest searches."""
    verdict, _ = judge_trial(plan, list(arms.values()), plan.model.name)
    assert verdict.use is None
    assert verdict.unusable
    assert verdict.unusable.arm == verdict.unusable.split == "rag"


def test_arm_to_use_retrieves_and_answers_most_right(plan: Plan, arms: dict[str, ArmScores]) -> None:
    """The practice is content with 2 of 10."""
    content = {"usable_from": RecordedAnswer(value=0.2, source="asked")}
    content_plan = plan.model_copy(update={"answers": plan.answers | content})
    verdict, _ = judge_trial(content_plan, list(arms.values()), plan.model.name)
    assert verdict.use in RETRIEVES, verdict.text
    for name in WITHOUT_DOCUMENTS:
        assert right_answers(arms[verdict.use]) > right_answers(arms[name]), name


def test_house_phrases_without_facts_do_not_score_near_facts(arms: dict[str, ArmScores]) -> None:
    """lora closes every answer as the house does and knows nothing; rag has facts and no manners."""
    assert arms["lora"].mean_score < arms["rag"].mean_score
    assert right_answers(arms["lora"]) < right_answers(arms["rag"])


def test_every_answer_can_be_judged(arms: dict[str, ArmScores]) -> None:
    for arm in arms.values():
        assert len(arm.of("right")) == len(arm.questions), arm.arm

"""The teacher of a plan: its arms, its aliases, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rag.errors import BadInput
from runners.plan.named_models import reference_arms, teacher_arms
from runners.plan.schema import Plan, parse_plan, read_plan, write_plan

BIG = "openai:big@https://api.example.com/v1"
STEPS = [
    {"kind": "index"},
    {"kind": "train", "arm": "lora"},
    {"kind": "evaluate", "arm": "prompting"},
    {"kind": "evaluate", "arm": "lora", "weights": "lora"},
]


def plan(**changes: Any) -> Plan:
    """Return a plan of one model and its teacher, with changes."""
    body: dict[str, Any] = {
        "name": "desk",
        "choice": "lora",
        "model": {"name": "smollm2-135m-instruct"},
        "teacher": BIG,
        "data": {"documents": "docs", "examples": "e.jsonl", "questions": "q.jsonl"},
        "steps": STEPS,
        "weights": {"style": 1},
    }
    return parse_plan({key: value for key, value in {**body, **changes}.items() if value is not None})


def test_teacher_is_asked_by_the_prompt_and_with_passages(tmp_path: Path) -> None:
    made = plan()
    assert reference_arms(made) == teacher_arms(made) == ("prompting@teacher", "rag@teacher")
    arm = made.arms[-1]
    assert (arm.retrieval, made.model_of(arm).name) == (True, BIG)
    assert [model.name for model in made.base_models] == ["smollm2-135m-instruct", BIG]
    write_plan(made, tmp_path / "plan.yaml")
    again = read_plan(tmp_path / "plan.yaml")
    assert (again.teacher, again.steps) == (made.teacher, made.steps), "the arms are not added twice"
    assert teacher_arms(plan(steps=STEPS[1:])) == ("prompting@teacher",)
    own = {"kind": "evaluate", "arm": "few-shot@teacher", "shots": 2}
    assert teacher_arms(plan(steps=[*STEPS, own])) == ("few-shot@teacher",)
    priced = plan(teacher={"name": BIG, "usd_per_million_input": 1, "usd_per_million_output": 4})
    assert priced.model_of(priced.arms[-1]).usd_per_million_output == 4


def test_plan_without_a_teacher_keeps_its_digest() -> None:
    plain = plan(teacher=None)
    assert teacher_arms(plain) == reference_arms(plain) == ()
    assert plain.digest() == parse_plan(plain.model_dump(mode="json", by_alias=True)).digest()
    assert "teacher" not in plain.model_dump(mode="json")


def test_teacher_that_is_one_of_the_models_is_compared() -> None:
    both = plan(
        models={"small": "smollm2-135m-instruct", "big": BIG},
        model=None,
        teacher="big",
        choice="lora@small",
        steps=[
            {"kind": "train", "arm": "lora@small"},
            {"kind": "evaluate", "arm": "lora@small", "weights": "lora@small"},
        ],
    )
    assert (teacher_arms(both), reference_arms(both)) == (("prompting@big",), ())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"choice": "rag@teacher"}, "which is no key of models"),
        ({"gate": {"must_beat": ["rag@teacher"]}}, "rag@teacher is only a reference"),
        ({"steps": [*STEPS, {"kind": "train", "arm": "full@teacher"}]}, "which is no key of models"),
        ({"models": {"small": "smollm2-135m-instruct", "teacher": "x"}}, "the alias of the plan's teacher"),
        ({"models": {"small": "smollm2-135m-instruct", "big": BIG}}, "name its alias, teacher: big"),
        ({"teacher": "smollm2-135m-instruct"}, "is the plan's model itself"),
        ({"teacher": 3}, "teacher"),
    ],
)
def test_what_a_teacher_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        plan(**changes)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({"a": "m", "A": "n"}, "the aliases a and A differ in case alone"),
        ({"a": "m", "b": "./m/"}, "a and b are the same model"),
    ],
)
def test_models_that_could_be_taken_for_another_are_refused(models: dict[str, str], message: str) -> None:
    arms = [{"kind": "evaluate", "arm": f"prompting@{alias}"} for alias in models]
    with pytest.raises(BadInput, match=message):
        plan(model=None, teacher=None, choice="prompting@a", models=models, steps=arms)

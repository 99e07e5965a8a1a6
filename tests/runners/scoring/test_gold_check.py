"""References of the user's own questions, judged by the rule before a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rag.errors import BadInput
from runners.plan.schema import Plan, PlanData
from runners.runs.dataset import read_data
from runners.scoring.gold_check import FailingGold, GoldCheck, check_gold, require_gold
from runners.trial.execute import run

GOOD = {"question": "How much does entry cost?", "answers": ["12 euros"], "reference": "Entry costs €12."}
FAILING: list[tuple[dict[str, Any], str]] = [
    (
        {
            "question": "How long may I keep a book?",
            "answers": ["14 days"],
            "reference": "You may keep it for three weeks.",
        },
        "it lacks '14'",
    ),
    ({"question": "Are dogs allowed?", "answers": ["no"], "reference": "Yes, dogs are allowed."}, "says yes"),
    (
        {"question": "Who dives?", "answers": ["Gunnar"], "reference": "I could not find that."},
        "it is a refusal",
    ),
    (
        {"question": "Who cooks?", "answerable": False, "reference": "The cook is Mina Holt."},
        "answerable: false",
    ),
    (
        {"question": "When and where?", "all_of": ["7 pm", "room 12"], "reference": "At 7 pm, downstairs."},
        "of the part 'room 12'",
    ),
]


def plan_of(folder: Path, rows: list[dict[str, Any]], base: Plan) -> Plan:
    """Return the plan with these questions."""
    file = folder / "questions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return base.model_copy(update={"data": PlanData(questions=file)})


def checked(plan: Plan) -> GoldCheck:
    return check_gold(plan, read_data(plan).split)


@pytest.fixture
def base(root: Path) -> Plan:
    """A plan of two arms that no training precedes."""
    from runners.plan.schema import read_plan

    return read_plan(root / "benchmarks" / "desk_case" / "run_plan.yaml")


def test_every_kind_of_reference_that_fails_is_named_with_its_place(tmp_path: Path, base: Plan) -> None:
    rows = [{**GOOD, "question": f"How much does entry to hall {n} cost?"} for n in range(7)]
    plan = plan_of(tmp_path, [*rows, *(row for row, _ in FAILING)], base)
    check = checked(plan)
    assert check.checked == 12
    assert [each.line for each in check.failing] == [8, 9, 10, 11, 12]
    for each, (row, reason) in zip(check.failing, FAILING, strict=True):
        assert reason in each.reason
        assert each.text == row["reference"]
        assert each.file == str(tmp_path / "questions.jsonl")
    assert check.headline == "5 of 12 questions have a reference that would not count as a right answer"
    assert len(check.rows) == 3
    assert check.rows[0].startswith(f"{tmp_path / 'questions.jsonl'}:8: 'You may keep it for three weeks.'")
    assert check.rows[-1].endswith("(and 2 more)")


def test_a_run_stops_over_two_percent_before_anything_is_made(tmp_path: Path, base: Plan) -> None:
    plan = plan_of(tmp_path, [GOOD, *(row for row, _ in FAILING)], base)
    with pytest.raises(FailingGold, match="5 of 6 questions") as problem:
        run(plan, tmp_path / "run")
    assert "--accept-failing-gold" in problem.value.hint
    assert not (tmp_path / "run").exists()
    require_gold(GoldCheck(checked=100, failing=checked(plan).failing[:2]))
    with pytest.raises(BadInput, match="3 of 100 questions"):
        require_gold(GoldCheck(checked=100, failing=checked(plan).failing[:3]))


def test_questions_that_agree_with_themselves_pass(tmp_path: Path, base: Plan) -> None:
    rows: list[dict[str, Any]] = [
        GOOD,
        {"question": "When and where?", "all_of": ["7 pm", "room 12"]},
        {"question": "When and where, and how much?", "all_of": ["7 pm", "room 12"], "answers": ["€5", "5 euros"]},
        {"question": "Does the sausage roll have mustard in it?", "answers": ["mustard"], "reference": "Yes, it has."},
        {"question": "Is there a pool?", "answerable": False},
        {"question": "How long is a half-day hire?", "answers": ["4 hours"], "reference": "A half-day is four hours."},
    ]  # fmt: skip
    check = checked(plan_of(tmp_path, rows, base))
    assert (check.checked, check.failing) == (5, ())
    require_gold(check)

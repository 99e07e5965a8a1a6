"""The decision record: one page, the same for the same day, with a row for every role."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from advisor.catalog import prices
from advisor.questionnaire.gather import Situation, complete_situation, flag_answers
from advisor.recommendation.recommend import recommend_for_profile
from advisor.report.decision_record import RECORD_WIDTH, decision_record
from runners.resources.machine import Machine

DAY = prices.reference_price().day + timedelta(days=10)
SECTIONS = [
    "Who decides what",
    "Why",
    "What it rests on",
    "What would change it",
    "What it takes",
    "Ask again when",
]


@pytest.fixture
def desk_situation(task_files: Any, laptop: Machine) -> Situation:
    """A typical case: all files, most answers."""
    answers = [
        "goal=Answer guests",
        "behaviour_gap=high",
        "must_cite=yes",
        "facts_change=slow",
        "call_volume=low",
    ]
    flags = {key: getattr(task_files, key) for key in ("documents", "examples", "questions", "prompt")}
    return complete_situation(flag_answers(answers, **flags), laptop)


def page(situation: Situation, day: date = DAY) -> str:
    """Return the record of a situation."""
    return decision_record(recommend_for_profile(situation.profile, day).to_json(), situation.answers, day)


def test_record_is_one_page_with_sections_in_order(desk_situation: Situation) -> None:
    """At most 60 lines of limited length, with the choice, the roles and the evidence."""
    text = page(desk_situation)
    lines = text.splitlines()
    assert len(lines) <= 60
    assert all(len(line) <= RECORD_WIDTH for line in lines if not line.startswith("|"))
    assert lines[0] == "# Decision: Answer guests"
    assert [line[3:] for line in lines if line.startswith("## ")] == SECTIONS
    assert f"Recommended: **{recommend_for_profile(desk_situation.profile).choice}**" in text
    for role in ("tunewise, by rules", "the trial", "decision owner", "data owner", "reviewer"):
        assert f"| {role} |" in text
    for part in (
        "**A reason against it:**",
        "**Second best:**",
        "**you said:**",
        "**measured:**",
        "arXiv",
        "Decided on ____",
    ):
        assert part in text


def test_record_is_deterministic_for_a_day(desk_situation: Situation) -> None:
    """Its review date is the day on which the prices are 90 days old."""
    text = page(desk_situation)
    assert text == page(desk_situation)
    until = prices.reference_price().day + timedelta(days=prices.STALE_DAYS)
    assert f"- {until.isoformat()}: the prices" in text
    assert "which is past" not in text
    assert "which is past" in page(desk_situation, until + timedelta(days=1))


def test_record_with_few_answers_lists_unknowns(laptop: Machine) -> None:
    """Unknown answers are listed, and Markdown's special characters are escaped."""
    situation = complete_situation(flag_answers(["goal=a|b <i> \n# c"]), laptop)
    text = page(situation)
    assert text.splitlines()[0] == "# Decision: a\\|b &lt;i> # c"
    assert "**unknown:**" in text
    assert len(text.splitlines()) <= 60


def test_plan_record_flag_writes_the_file(tunewise: Any, task_files: Any) -> None:
    """Beside the plan, or without one."""
    done = tunewise("plan", "--set", "task_needs_facts=new", "--record", "decision.md", "--json")
    assert done.returncode == 0, done.stderr
    assert "wrote the decision record decision.md" in done.stderr
    assert "# Decision: no goal was named" in (task_files.folder / "decision.md").read_text("utf-8")

"""The lines after each answer: within the terminal's width, with leader, changes, and what is not possible."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.questionnaire.answers import Answers
from advisor.questionnaire.profile import Profile
from advisor.recommendation.ranking import Ranking, rank_methods
from advisor.wizard.leader_line import leader_lines
from advisor.wizard.model_choices import missing_packages

HERE = {
    "gpu_kind": "none",
    "gpu_count": 0,
    "gpu_memory_gib": 0,
    "ram_gib": 16,
    "cpu_cores": 4,
    "model": "smollm2-135m-instruct",
    "model_params_b": 0.1345,
}


def ranked(**answers: Any) -> Ranking:
    """Rank these answers on a laptop."""
    return rank_methods(Profile.of({**HERE, **answers}))


def lines(
    before: Ranking | None, after: Ranking, lacking: dict[str, str] | None = None, width: int = 79
) -> list[str]:
    """Return the lines as plain text."""
    return ["".join(text for _, text in line) for line in leader_lines(before, after, lacking or {}, width)]


@pytest.mark.parametrize("width", [40, 60, 79, 110])
def test_leader_lines_fit_the_width(width: int) -> None:
    """No line is longer, whatever changed; what does not fit is counted."""
    states = [ranked(), ranked(task_needs_facts="new"), ranked(task_needs_facts="new", labelled_examples=4)]
    for before in (None, *states):
        for after in states:
            assert all(len(line) <= width for line in lines(before, after, width=width))
    assert "more" in lines(None, states[0], width=40)[0]


def test_leader_comes_first_with_previous_leader() -> None:
    """With an arrow up for what rose."""
    line = lines(ranked(), ranked(task_needs_facts="new"))[0]
    assert line.strip().startswith("fit:  rag .")
    assert "▲" in line
    assert line.endswith("(was prompting)")


def test_unchanged_ranking_is_one_dim_line() -> None:
    """No arrows, and reasons are not repeated."""
    shown = leader_lines(ranked(), ranked(goal="x"), {}, 79)
    assert len(shown) == 1
    assert {style for style, _ in shown[0]} == {"class:why"}
    assert shown[0][-1][1].strip() == "(unchanged)"


def test_impossible_methods_share_one_reason() -> None:
    """Four methods, one reason; they are not among the scores."""
    scores, *reasons = lines(
        ranked(task_needs_facts="new"), ranked(task_needs_facts="new", labelled_examples=4)
    )
    text = " ".join(part.strip() for part in reasons)
    assert "lora, qlora, full (needs at least 10 examples, you have 4)" in text.replace("hybrid, ", "")
    assert "lora" not in scores


def test_missing_package_is_a_reason() -> None:
    """But not when the answers describe another machine."""
    lacking = missing_packages(Answers(), lambda package: package != "bitsandbytes")
    assert lacking == {"qlora": "needs bitsandbytes, missing"}
    scores, *reasons = lines(None, ranked(behaviour_gap="high", task_needs_facts="new"), lacking)
    assert "qlora" not in scores
    assert any("qlora (needs bitsandbytes, missing)" in line for line in reasons)
    other_machine = Answers().put("flag", {"gpu_kind": "cuda"})
    assert missing_packages(other_machine, lambda package: False) == {}

"""Two training seeds where the second costs little, one where it does not, and why."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from advisor.drafting.draft import draft_with_notes
from advisor.drafting.seeds import MAX_SECOND_SEED_MINUTES, second_seed_minutes, with_second_seed
from advisor.questionnaire.gather import complete_situation, flag_answers
from advisor.recommendation.recommend import recommend_for_profile
from advisor.workflows.demo import DEMO_ANSWERS
from advisor.workflows.dry_run import step_estimates
from rag.errors import CannotRun
from runners.plan.schema import Plan, with_seeds
from runners.plan.steps import TrainStep
from runners.resources.machine import Machine
from runners.runs.requirements import check_disk
from runners.trial.execute import quick_plan


def plan(machine: Machine, folder: Path, *sets: str, **files: Any) -> tuple[Plan, Any]:
    """The plan drafted from answers and files, and its profile."""
    situation = complete_situation(flag_answers(["behaviour_gap=high", *sets], **files), machine)
    return draft_with_notes(
        recommend_for_profile(situation.profile), situation, folder
    ).plan, situation.profile


@dataclasses.dataclass(frozen=True)
class Usage:
    """A disk with so many bytes left."""

    free: int


def told(drafted: Plan) -> set[tuple[tuple[int, ...], str]]:
    """The seeds of the train steps, with the reason."""
    return {(s.seeds, s.reasons.get("seeds", "")) for s in drafted.steps if isinstance(s, TrainStep)}


@pytest.fixture
def small(desk: Any, laptop: Machine) -> tuple[Plan, Any]:
    """The plan of sixty short examples and a few documents."""
    files = {"documents": desk.documents, "examples": desk.examples, "questions": desk.questions}
    return plan(laptop, desk.folder, **files)


def test_a_second_seed_that_costs_little_is_planned_and_says_what_it_takes(small: tuple[Plan, Any]) -> None:
    drafted, profile = small
    ((seeds, why),) = told(drafted)
    minutes = second_seed_minutes(drafted, profile, 60, 8)
    assert minutes is not None
    assert 0 < minutes < MAX_SECOND_SEED_MINUTES
    assert seeds == (0, 1)
    assert why.startswith("2 because training itself varies")
    assert f"about {minutes:.1f} minutes more" in why
    assert [arm.arm for arm in drafted.arms if arm.weights] == ["lora", "naive-stack", "hybrid"]


def test_the_shipped_example_keeps_one_seed_on_two_cores(example: Path, laptop: Machine) -> None:
    """A trial of it may take twelve minutes there; its hybrid alone trains for five."""
    files = {
        "documents": example / "documents",
        "examples": example / "examples.jsonl",
        "questions": example / "questions.jsonl",
        "prompt": example / "prompt.txt",
    }
    two = dataclasses.replace(laptop, cpu_cores=dataclasses.replace(laptop.cpu_cores, value=2))
    drafted, _ = plan(two, example, *(f"{k}={v}" for k, v in DEMO_ANSWERS.items()), **files)
    ((seeds, why),) = told(drafted)
    assert seeds == (0,)
    assert "above 5; tunewise run --seeds 2 trains it" in why


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (("model_params_b=1.7",), "1 because a second seed of all tuned arms would take about"),
        (
            ("model=strange",),
            "1 because the model's size is unknown, and so is what a second seed would take",
        ),
    ],
)
def test_a_larger_model_keeps_one_seed_and_so_does_one_of_unknown_size(
    small: tuple[Plan, Any], desk: Any, laptop: Machine, sets: tuple[str, ...], said: str
) -> None:
    drafted, _ = small
    _, profile = plan(laptop, desk.folder, *sets, examples=desk.examples)
    ((seeds, why),) = told(with_second_seed(with_seeds(drafted, 1), profile, 60, 8))
    assert seeds == (0,)
    assert why.startswith(said)


def test_a_plan_that_trains_nothing_is_left_alone(desk: Any, laptop: Machine) -> None:
    drafted, profile = plan(laptop, desk.folder, documents=desk.documents, questions=desk.questions)
    assert not told(drafted)
    assert with_second_seed(drafted, profile, 0, 8) is drafted


def test_quick_and_seeds_on_the_command_line_decide_over_the_draft(small: tuple[Plan, Any]) -> None:
    drafted, _ = small
    assert told(quick_plan(drafted)) == {((0,), "1 because --quick trains one seed")}
    assert told(with_seeds(drafted, 3)) == {((0, 1, 2), "")}
    assert with_seeds(drafted, 2) == drafted


def test_times_and_disk_count_the_second_seed(
    small: tuple[Plan, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafted, _ = small
    two, one = (
        {row.step: row.estimated for row in step_estimates(p, 60, 8)[0]}
        for p in (drafted, with_seeds(drafted, 1))
    )
    more = {step for step in two if two[step] > one[step]}
    tuned = {"train:lora", "train:hybrid", "evaluate:lora", "evaluate:naive-stack", "evaluate:hybrid"}
    assert more == tuned | {"forgetting"}
    free = 60 + 3 * 60  # an index and three adapters, in MiB
    monkeypatch.setattr("shutil.disk_usage", lambda folder: Usage(free * 2**20))
    check_disk(with_seeds(drafted, 1), None, tmp_path)
    with pytest.raises(CannotRun, match="this run needs about 300 MiB"):
        check_disk(drafted, None, tmp_path)

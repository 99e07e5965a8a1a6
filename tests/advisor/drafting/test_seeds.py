"""When a plan trains with two seeds, when with one, and the reasons."""

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
    """Return the plan drafted from answers and files, and its profile."""
    situation = complete_situation(
        flag_answers(["model=smollm2-135m-instruct", "behaviour_gap=high", *sets], **files), machine
    )
    return draft_with_notes(
        recommend_for_profile(situation.profile), situation, folder
    ).plan, situation.profile


@dataclasses.dataclass(frozen=True)
class Usage:
    """Disk usage with this many free bytes."""

    free: int


def seeds_with_reason(drafted: Plan) -> set[tuple[tuple[int, ...], str]]:
    """Return the seeds of the train steps, with the reason."""
    return {(s.seeds, s.reasons.get("seeds", "")) for s in drafted.steps if isinstance(s, TrainStep)}


@pytest.fixture
def small_plan(task_files: Any, laptop: Machine) -> tuple[Plan, Any]:
    """Return the plan of sixty short examples and a few documents, and its profile."""
    files = {
        "documents": task_files.documents,
        "examples": task_files.examples,
        "questions": task_files.questions,
    }
    return plan(laptop, task_files.folder, **files)


def test_cheap_second_seed_is_planned_with_reason(small_plan: tuple[Plan, Any]) -> None:
    drafted, profile = small_plan
    ((seeds, why),) = seeds_with_reason(drafted)
    minutes = second_seed_minutes(drafted, profile, 60, 8)
    assert minutes is not None
    assert 0 < minutes < MAX_SECOND_SEED_MINUTES
    assert seeds == (0, 1)
    assert why.startswith("2 because training itself varies")
    assert f"about {minutes:.1f} minutes more" in why
    assert [arm.arm for arm in drafted.arms if arm.weights] == ["lora", "naive-stack", "hybrid"]


def test_shipped_example_keeps_one_seed_on_two_cores(example: Path, laptop: Machine) -> None:
    """A trial of it takes about twelve minutes there; its hybrid alone trains for five."""
    files = {
        "documents": example / "documents",
        "examples": example / "examples.jsonl",
        "questions": example / "questions.jsonl",
        "prompt": example / "prompt.txt",
    }
    two = dataclasses.replace(laptop, cpu_cores=dataclasses.replace(laptop.cpu_cores, value=2))
    drafted, _ = plan(two, example, *(f"{k}={v}" for k, v in DEMO_ANSWERS.items()), **files)
    ((seeds, why),) = seeds_with_reason(drafted)
    assert seeds == (0,)
    assert "above 5; tunewise run --seeds 2 trains it" in why


@pytest.mark.parametrize(
    ("sets", "reason"),
    [
        (("model_params_b=1.7",), "1 because a second seed of all tuned arms would take about"),
        (
            ("model=strange",),
            "1 because the model's size is unknown, and so is what a second seed would take",
        ),
    ],
)
def test_large_or_unknown_model_keeps_one_seed(
    small_plan: tuple[Plan, Any], task_files: Any, laptop: Machine, sets: tuple[str, ...], reason: str
) -> None:
    drafted, _ = small_plan
    _, profile = plan(laptop, task_files.folder, *sets, examples=task_files.examples)
    ((seeds, why),) = seeds_with_reason(with_second_seed(with_seeds(drafted, 1), profile, 60, 8))
    assert seeds == (0,)
    assert why.startswith(reason)


def test_plan_without_training_keeps_its_seeds(task_files: Any, laptop: Machine) -> None:
    drafted, profile = plan(
        laptop, task_files.folder, documents=task_files.documents, questions=task_files.questions
    )
    assert not seeds_with_reason(drafted)
    assert with_second_seed(drafted, profile, 0, 8) is drafted


def test_quick_and_seeds_flags_override_drafted_seeds(small_plan: tuple[Plan, Any]) -> None:
    drafted, _ = small_plan
    assert seeds_with_reason(quick_plan(drafted)) == {((0,), "1 because --quick trains one seed")}
    assert seeds_with_reason(with_seeds(drafted, 3)) == {((0, 1, 2), "")}
    assert with_seeds(drafted, 2) == drafted


def test_time_and_disk_estimates_count_the_second_seed(
    small_plan: tuple[Plan, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafted, _ = small_plan
    two, one = (
        {row.step: row.estimated for row in step_estimates(p, 60, 8)[0]}
        for p in (drafted, with_seeds(drafted, 1))
    )
    more = {step for step in two if two[step] > one[step]}
    tuned = {"train:lora", "train:hybrid", "evaluate:lora", "evaluate:naive-stack", "evaluate:hybrid"}
    assert more == tuned | {"forgetting"}
    free = 60 + 3 * 60  # an index and three adapters, in MiB
    monkeypatch.setattr("shutil.disk_usage", lambda folder: Usage(free * 2**20))
    check_disk(with_seeds(drafted, 1), {}, tmp_path)
    with pytest.raises(CannotRun, match="this run needs about 300 MiB"):
        check_disk(drafted, {}, tmp_path)

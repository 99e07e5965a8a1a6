"""A recheck of a run with a model of this machine: what is trained again, and what is asked again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from advisor.report.report import write_report
from runners.data.examples import Example
from runners.models.resolve import Model
from runners.plan.schema import parse_plan, write_plan
from runners.recheck.recheck import Recheck, RecheckRequest, recheck
from runners.run_folder import open_run_folder
from runners.runs.dataset import read_data
from runners.trial.execute import run_plan


def write_examples(file: Path, examples: Sequence[Example]) -> Path:
    """Write examples as chats."""
    rows = [json.dumps({"messages": list(example.messages)}) for example in examples]
    file.write_text("\n".join(rows) + "\n", "utf-8")
    return file


@pytest.fixture(scope="module")
def run(tiny: Model, examples: Sequence[Example], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a tiny model: the bare prompt, two examples shown, a LoRA."""
    folder = tmp_path_factory.mktemp("recheck")
    questions = [{"question": f"Is berth {n} free at noon?", "answers": [f"berth {n}"]} for n in range(9)]
    (folder / "questions.jsonl").write_text("".join(json.dumps(q) + "\n" for q in questions), "utf-8")
    plan = parse_plan(
        {
            "name": "p",
            "choice": "lora",
            "model": {"name": str(tiny.folder)},
            "data": {
                "examples": str(write_examples(folder / "examples.jsonl", examples[:16])),
                "questions": str(folder / "questions.jsonl"),
            },
            "weights": {"fact_recall": 1},
            "steps": [
                {"kind": "train", "arm": "lora", "epochs": 1, "rank": 2},
                {"kind": "evaluate", "arm": "prompting"},
                {"kind": "evaluate", "arm": "few-shot", "shots": 2},
                {"kind": "evaluate", "arm": "lora", "weights": "lora"},
            ],
            "max_new_tokens": 4,
            "forgetting": {"prompts": 0},
        }
    )
    run_plan(plan, folder / "run")
    write_report(open_run_folder(folder / "run"), plan, read_data(plan).split.test)
    return folder / "run"


def asked(result: Recheck) -> dict[str, int]:
    """Return how many answers of each arm were asked again."""
    return {arm.arm: len(arm.asked) for arm in result.arms}


def measure(run: Path, out: Path, **given: Any) -> tuple[Recheck, list[str]]:
    """Recheck all arms; return the result and the arms that were trained again."""
    trained: list[str] = []
    request = replace(RecheckRequest(all_arms=True, out=out), **given)
    result = recheck(run, request, lambda steps, _: trained.extend(step.arm for step in steps))
    return result, trained


def test_asking_again_gives_the_same_answers(run: Path, tmp_path: Path) -> None:
    """The state that taking answers over rests on: the same prompt and greedy decoding give the same answer."""
    result, trained = measure(run, tmp_path / "out", ask_all=True)
    assert (asked(result), trained) == ({"prompting": 6, "few-shot": 6, "lora": 6}, [])
    texts = [
        {
            (row["arm"], row["id"]): row["answer"]
            for row in map(json.loads, path.read_text("utf-8").splitlines())
        }
        for path in (run / "trial" / "answers.jsonl", tmp_path / "out" / "trial" / "answers.jsonl")
    ]
    assert texts[0] == texts[1]


def test_changed_examples_train_and_show_again(
    run: Path, tmp_path: Path, examples: Sequence[Example]
) -> None:
    other = write_examples(tmp_path / "other.jsonl", examples[18:34])
    result, trained = measure(run, tmp_path / "out", examples=other)
    assert trained == ["lora"]
    assert [change.kind for change in result.changes] == ["examples"]
    assert set(result.changes[0].arms) == {"few-shot", "lora"}
    assert asked(result) == {"prompting": 0, "few-shot": 6, "lora": 6}
    assert (tmp_path / "out" / "adapters" / "lora-s0").is_dir()
    again, _ = measure(run, tmp_path / "out", examples=other)
    assert asked(again) == asked(result), "a finished recheck is read again"


def test_changed_prompt_trains_nothing(run: Path, tmp_path: Path) -> None:
    result, trained = measure(run, tmp_path / "out", prompt="Be kind.")
    assert (trained, asked(result)) == ([], {"prompting": 6, "few-shot": 6, "lora": 6})
    assert not (tmp_path / "out" / "adapters").exists()


def test_other_model_is_asked_and_trained(run: Path, tmp_path: Path, other: Model) -> None:
    result, trained = measure(run, tmp_path / "out", models=(str(other.folder),), arms=("prompting",))
    assert ([change.kind for change in result.changes], trained) == (["model"], [])
    assert (asked(result), result.stale) == ({"prompting": 6}, ("few-shot", "lora"))


def test_settings_of_a_training_train_that_arm(run: Path, tmp_path: Path) -> None:
    plan = yaml.safe_load((run / "plan.yaml").read_text("utf-8"))
    plan["steps"][0]["epochs"] = 2
    write_plan(parse_plan(plan), tmp_path / "plan.yaml")
    result, trained = measure(run, tmp_path / "out", plan=tmp_path / "plan.yaml")
    assert (trained, asked(result)) == (["lora"], {"prompting": 0, "few-shot": 0, "lora": 6})

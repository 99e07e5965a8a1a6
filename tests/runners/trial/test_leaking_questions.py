"""A whole run with its guards: leakage is counted at the start, forgetting is measured once at the end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rag.errors import BadInput
from runners.data.examples import Example
from runners.models.resolve import Model
from runners.plan.schema import Plan, parse_plan, read_plan, write_plan
from runners.trial.execute import QUICK_PROMPTS, quick_plan, run_plan


@pytest.fixture
def plan(tiny: Model, examples: Sequence[Example], tmp_path: Path) -> Plan:
    """A plan with one tuned arm, over files."""
    rows = [{"messages": list(e.messages)} for e in examples[:8]]
    asked = [
        {"question": f"Is gate number {n} shut when the fog horn sounds?", "answers": ["no"]}
        for n in range(6)
    ]
    files: dict[str, Any] = {}
    for name, body in (("examples", rows), ("questions", asked)):
        files[name] = str(tmp_path / f"{name}.jsonl")
        Path(files[name]).write_text("".join(json.dumps(row) + "\n" for row in body), "utf-8")
    return parse_plan(
        {
            "name": "p",
            "choice": "lora",
            "model": {"name": str(tiny.folder)},
            "data": files,
            "max_new_tokens": 4,
            "steps": [
                {"kind": "train", "arm": "lora", "epochs": 1, "rank": 2, "batch_tokens": 512},
                {"kind": "evaluate", "arm": "prompting"},
                {"kind": "evaluate", "arm": "lora", "weights": "lora"},
            ],
            "weights": {"token_f1": 1},
            "forgetting": {"prompts": 3, "max_new_tokens": 4},
        }
    )


def test_guards_are_measured_once_and_not_again_on_resume(plan: Plan, tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    run = run_plan(plan, tmp_path / "run", on_event=events.append)
    start = next(e for e in events if e["event"] == "run.start")
    assert (start["overlap"], start["leakage"]["withheld"], start["leakage"]["rows"]) == (0, False, 8)
    steps = [(e["step"], e["number"], e["total"]) for e in events if e["event"] == "step.start"]
    assert steps[-1] == ("forgetting", 4, 4)
    done = next(e for e in run.events() if e["event"] == "step.done" and e["step"] == "forgetting")
    assert [row["arm"] for row in done["result"]["arms"]] == ["lora"]
    journal, scores = run.path / "trial" / "forgetting.jsonl", run.path / "trial" / "scores.json"
    before = journal.read_bytes(), scores.read_bytes()
    events.clear()
    run_plan(plan, tmp_path / "run", resume=True, on_event=events.append)
    assert [e["step"] for e in events if e["event"] == "step.skip"][-1] == "forgetting"
    assert (journal.read_bytes(), scores.read_bytes()) == before


def test_answers_are_judged_again_where_gold_was_corrected(plan: Plan, tmp_path: Path) -> None:
    """Every step is finished then, and the numbers of the old gold would stand beside the new one."""
    plan = plan.model_copy(update={"choice": "prompting", "steps": list(plan.arms)[:1]})
    run = run_plan(plan, tmp_path / "run")
    answers = (run.path / "trial" / "answers.jsonl").read_bytes()
    assert plan.data.questions is not None
    text = plan.data.questions.read_text("utf-8").replace('["no"]', '["yes"]')
    plan.data.questions.write_text(text, "utf-8")
    events: list[dict[str, Any]] = []
    before = (run.path / "trial" / "scores.json").read_bytes()
    run_plan(plan, run.path, on_event=events.append, resume=True)
    assert [e["event"] for e in events].count("trial.judged_again") == 1
    assert (run.path / "trial" / "answers.jsonl").read_bytes() == answers
    assert (run.path / "trial" / "scores.json").read_bytes() != before
    events.clear()
    run_plan(plan, run.path, on_event=events.append, resume=True)
    assert "trial.judged_again" not in [e["event"] for e in events]


def test_leak_is_refused_before_run_folder_exists(
    plan: Plan, examples: Sequence[Example], tmp_path: Path
) -> None:
    assert plan.data.questions is not None
    with plan.data.questions.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"question": examples[0].question.upper()}) + "\n")
    with pytest.raises(BadInput, match="question line 7 = example line 1"):
        run_plan(plan, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_quick_run_asks_fewer_prompts_from_file_next_to_plan(plan: Plan, tmp_path: Path) -> None:
    many = plan.model_copy(update={"forgetting": plan.forgetting.model_copy(update={"prompts": 40})})
    assert quick_plan(many).forgetting.prompts == QUICK_PROMPTS
    assert quick_plan(plan).forgetting.prompts == 3
    own = plan.forgetting.model_copy(update={"file": Path("own.jsonl")})
    write_plan(plan.model_copy(update={"forgetting": own}), tmp_path / "plan.yaml")
    assert read_plan(tmp_path / "plan.yaml").forgetting.file == tmp_path / "own.jsonl"

"""A judge of this machine: held to its words, alone in memory, and calibrated like any other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rag.errors import BadInput, CannotRun
from runners.judging.judge import passages_of
from runners.plan.named_models import local_judge
from runners.plan.schema import Plan, parse_plan
from runners.resources.machine import Detected, detect_machine
from runners.run_folder import RunFolder, read_journal, read_run_plan
from runners.runs.opened import OpenRun
from runners.runs.plan_models import named_models
from runners.runs.requirements import check_memory
from runners.trial.execute import run_plan
from tests.support.labelled_run import plant_run, question_rows

JUDGE = "smollm2-135m-instruct"


def plan_of(url: str, folder: Path, name: str = JUDGE) -> Plan:
    """Return a plan of two arms of an endpoint, judged by a model of this machine."""
    rows = [
        {"question": f"How many berths has pier {n}?", "answers": [f"{n} berths"], "id": f"q{n}"}
        for n in range(3)
    ]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (folder / "pairs.jsonl").write_text('{"prompt": "Hello", "completion": "Ahoy."}\n', "utf-8")
    return parse_plan(
        {
            "name": "piers",
            "choice": "few-shot",
            "model": {"name": f"openai:tern-2@{url}"},
            "judge": {"name": name, "counts": True},
            "data": {"examples": str(folder / "pairs.jsonl"), "test_questions": str(folder / "test.jsonl")},
            "steps": [
                {"kind": "evaluate", "arm": "prompting"},
                {"kind": "evaluate", "arm": "few-shot", "shots": 1},
            ],
            "weights": {"fact_recall": 1},
        }
    )


def test_local_judge_grades_and_compares_in_the_words_that_it_may_say(server: Any, tmp_path: Path) -> None:
    server.answer = lambda body: f"It has {len(body['messages'])} berths."
    plan = plan_of(server.url, tmp_path)
    assert [judge.name for judge in local_judge(plan)] == [JUDGE]
    run = run_plan(plan, tmp_path / "run")
    grades, pairs = (read_journal(run.path / "trial" / f"{name}.jsonl") for name in ("grades", "judge"))
    own = [row for row in grades if not row.get("check")]
    assert (len(own), len(pairs)) == (6, 6)
    assert {row["said"] for row in grades} <= {"right", "partly", "wrong"}
    assert {row["said"] for row in pairs} <= {"A", "B", "TIE"}
    (start,) = [event for event in run.events() if event.get("event") == "run.start"]
    assert JUDGE in start["models"]
    assert named_models(plan)[-1] == {"model": JUDGE, "as": "judge"}
    asked = len(server.seen)
    run_plan(plan, tmp_path / "run", resume=True)
    assert len(server.seen) == asked
    assert read_journal(run.path / "trial" / "grades.jsonl") == grades


def test_judge_that_is_no_known_model_is_refused_before_anything_runs(server: Any, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="big-judge"):
        run_plan(plan_of(server.url, tmp_path, "big-judge"), tmp_path / "run")
    assert not server.seen


def test_judge_that_does_not_fit_is_refused_with_what_helps(server: Any, tmp_path: Path) -> None:
    folder = tmp_path / "judge"
    folder.mkdir()
    config = {
        "model_type": "llama",
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "intermediate_size": 11008,
        "vocab_size": 32000,
    }
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    machine = replace(detect_machine(tmp_path), ram_gib=Detected(4.0, "test"))
    with pytest.raises(CannotRun, match=f"judging with {JUDGE} takes at least") as refused:
        check_memory(plan_of(server.url, tmp_path), None, machine, {JUDGE: folder})
    assert "name a smaller judge" in str(refused.value.hint)


def test_judge_reads_the_passages_that_an_arm_was_shown(piers: Path, words: Any, tmp_path: Path) -> None:
    arms = {"rag": lambda n: f"It has {n} berths.", "prompting": lambda n: "I do not know."}
    planted = plant_run(tmp_path, question_rows(4), arms, documents=piers, encoder=words)
    rows = read_journal(planted.run / "trial" / "answers.jsonl")
    run = OpenRun(RunFolder(planted.run), read_run_plan(planted.run), embedder=words)
    shown = passages_of(run, rows[1])
    assert len(shown) == 1
    assert shown[0] == next(iter(piers.glob("pier01*"))).read_text("utf-8")[:60]

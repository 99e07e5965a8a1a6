"""What a plan's options change in the rows of a train step and in the inputs of a step."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from runners.arms.retriever import index_settings
from runners.data.examples import load_examples
from runners.models.resolve import Model, RemoteModel, resolve_model
from runners.plan.schema import parse_plan
from runners.plan.steps import EvaluateStep, IndexStep, TrainStep
from runners.run_folder import RunFolder
from runners.runs.dataset import read_data
from runners.trial.step_runner import step_inputs, with_replay
from tests.support.opened import opened_run


def write(path: Path, rows: list[dict[str, str]]) -> str:
    """Write JSON lines and return the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def plan(**data: Any) -> Any:
    """Return a plan over these files."""
    steps = [{"kind": "train", "arm": "lora"}]
    model, weights = {"name": "smollm2-135m-instruct"}, {"style": 1}
    body = {"schema": 1, "name": "p", "choice": "lora", "model": model, "steps": steps, "weights": weights}
    return parse_plan({**body, "data": data})


def test_replay_rows_are_mixed_in_and_reported(tmp_path: Path) -> None:
    own = write(tmp_path / "own.jsonl", [{"prompt": f"own {n}", "completion": "a"} for n in range(9)])
    general = write(tmp_path / "general.csv", [])
    Path(general).write_text("prompt,completion\n" + "general,b\n" * 20, "utf-8")
    rows = load_examples(own).rows
    events: list[dict[str, Any]] = []
    replay_plan = plan(examples=own, replay=general)
    mixed = with_replay(replay_plan, TrainStep(arm="lora", replay=0.1), rows, 0, events.append)
    assert [row.question for row in mixed] == [*(f"own {n}" for n in range(9)), "general"]
    assert events == [{"event": "rows.replayed", "arm": "lora", "rows": 10, "replayed": 1}]
    assert with_replay(replay_plan, TrainStep(arm="lora"), rows, 0, events.append) == rows


def test_answers_depend_on_the_gate_before_them(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    write(log, [{"question": "when do we sail?"}])
    steps = [
        {"kind": "index"},
        {"kind": "evaluate", "arm": "prompting"},
        {"kind": "evaluate", "arm": "rag", "retrieval": True},
    ]
    model, weights = {"name": "openai:m@http://127.0.0.1:9/v1"}, {"style": 1}
    body = {"name": "p", "choice": "rag", "model": model, "steps": steps, "weights": weights}

    def inputs(data: dict[str, str], **more: Any) -> list[dict[str, Any]]:
        asked = parse_plan({**body, "data": {"documents": str(tmp_path / "none"), **data}, **more})
        remote = RemoteModel("m", "http://127.0.0.1:9/v1")
        context = opened_run(asked, RunFolder(tmp_path), remote)
        return [step_inputs(context, step) for step in asked.arms]

    plain, of_log = inputs({}), inputs({"wordings": str(log)})
    lenient = inputs({}, refusal={"gate": "lenient"})
    assert plain[0] == of_log[0] == lenient[0]
    assert plain[1] != of_log[1] != lenient[1] != plain[1]
    assert inputs({}, refusal={"reasons": {"gate": "as it was"}}) == plain


def test_plan_names_columns_and_reading_is_reported(tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    rows = [{"prompt": "x", "question": f"q {n}", "answer": "a"} for n in range(30)]
    write(folder / "a.jsonl", [*rows, {"prompt": "x", "question": "q", "answer": ""}])
    (folder / "notes.txt").write_text("...", "utf-8")
    events: list[dict[str, Any]] = []
    columns = {"prompt": "question", "reply": "answer"}
    examples = read_data(plan(examples=str(folder), columns=columns), events.append).examples
    assert [row.question for row in examples] == [f"q {n}" for n in range(30)]
    assert [event["event"] for event in events] == ["examples.read", "file.skipped", "row.rejected"]
    assert events[0]["columns"] == columns
    assert (events[1]["file"], events[2]["line"]) == ("notes.txt", 31)


def test_index_step_determines_index_settings() -> None:
    step = IndexStep(max_chunk_tokens=64, overlap=0.5, fusion="rrf", lexical_weight=0.7)
    settings = index_settings(step)
    assert (settings.max_tokens, settings.overlap, settings.fusion, settings.lexical_weight) == (
        64,
        0.5,
        "rrf",
        0.7,
    )


@pytest.mark.parametrize(
    ("text", "recorded"),
    [
        ("{% if enable_thinking %}{% endif %}", True),
        ("{% set content = content.split('</think>') %}", True),
        ("{% set effort = reasoning_effort %}", True),
        ("", False),
    ],
)
def test_finished_steps_of_models_that_reason_are_repeated(
    tiny: Model, tmp_path: Path, text: str, recorded: bool
) -> None:
    """Earlier versions asked them without room, and did not cut their reasoning."""
    folder = Path(shutil.copytree(tiny.folder, tmp_path / "model"))
    file = folder / "chat_template.jinja"
    file.write_text(text + file.read_text("utf-8"), "utf-8")
    asked = plan(examples="rows", questions="questions").model_copy(
        update={"steps": (EvaluateStep(arm="prompting"),)}
    )
    run = RunFolder.create(tmp_path / "run", asked)
    context = opened_run(asked, run, resolve_model(str(folder)))
    assert ("reasons" in step_inputs(context, asked.steps[0])) == recorded


@pytest.mark.parametrize(
    ("name", "text", "key"),
    [
        ("chat_template.jinja", "{{ strftime_now('%d') }}", "chat_encoding"),
        ("generation_config.json", '{"repetition_penalty": 1.1, "eos_token_id": 2}', "generation_rules"),
        ("generation_config.json", '{"temperature": 0.7, "do_sample": true, "eos_token_id": 2}', ""),
    ],
)
def test_finished_steps_are_repeated_where_earlier_versions_asked_otherwise(
    tiny: Model, tmp_path: Path, name: str, text: str, key: str
) -> None:
    folder = Path(shutil.copytree(tiny.folder, tmp_path / "model"))
    file = folder / name
    file.write_text(text + (file.read_text("utf-8") if file.suffix == ".jinja" else ""), "utf-8")
    asked = plan(examples="rows", questions="questions").model_copy(
        update={"steps": (EvaluateStep(arm="prompting"),)}
    )
    run = RunFolder.create(tmp_path / "run", asked)
    inputs = step_inputs(opened_run(asked, run, resolve_model(str(folder))), asked.steps[0])
    assert {"chat_encoding", "generation_rules"} & inputs.keys() == ({key} if key else set())

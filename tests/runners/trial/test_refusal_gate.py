"""The refusals of a run belong to the answerability model that they were fitted with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rag.errors import BadInput
from runners.models.answer_reader import answerability_weights
from runners.plan.schema import parse_plan
from runners.runs.run import load
from runners.trial.execute import run_plan


@pytest.fixture
def plan(tmp_path: Path, server: Any) -> Any:
    """An index over three documents and one arm behind a server."""
    server.answer = lambda body: "At noon [1]."
    folder = tmp_path / "documents"
    folder.mkdir()
    for name, hour in (("tern", "noon"), ("gull", "dusk"), ("heron", "dawn")):
        (folder / f"{name}.md").write_text(f"# The {name}\n\nThe {name} sails at {hour}.\n", "utf-8")
    rows = [
        {
            "question": f"When does the {name} {word}?",
            "reference": "At noon.",
            "gold_doc": f"{name}.md",
            "answerable": True,
        }
        for name in ("tern", "gull", "heron")
        for word in ("sail", "leave")
    ]
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return parse_plan(
        {
            "name": "boats",
            "choice": "rag",
            "model": {"name": f"openai:tern-2@{server.url}"},
            "data": {"documents": str(folder), "questions": str(questions)},
            "steps": [{"kind": "index"}, {"kind": "evaluate", "arm": "rag", "retrieval": True}],
            "weights": {"token_f1": 1},
        }
    )


def test_refusals_of_other_weights_are_fitted_again(plan: Any, tmp_path: Path) -> None:
    """As after an update that brings another answerability model: no answer before, and every step after it again."""
    run = run_plan(plan, tmp_path / "run")
    file = run.path / "refusal.json"
    fitted = json.loads(file.read_text("utf-8"))
    assert fitted["read"]
    assert fitted["reader"] == answerability_weights()

    file.write_text(json.dumps({**fitted, "reader": "0" * 64}), "utf-8")
    with pytest.raises(BadInput, match="fitted with another answerability model") as problem:
        load(run.path).ask("When does the tern sail?")
    assert "tunewise run RUN --resume" in str(problem.value.hint)

    events: list[dict[str, Any]] = []
    run_plan(plan, tmp_path / "run", resume=True, on_event=events.append)
    assert {e["step"] for e in events if e["event"] == "step.end"} >= {"index"}
    assert any("fitted with another" in e.get("reason", "") for e in events if e["event"] == "plan.note")
    assert json.loads(file.read_text("utf-8")) == fitted
    assert load(run.path).ask("When does the tern sail?").text

    events.clear()
    run_plan(plan, tmp_path / "run", resume=True, on_event=events.append)
    assert {e["step"] for e in events if e["event"] == "step.skip"} == {"index", "evaluate:rag"}


@pytest.mark.parametrize("content", [None, "{", "{}", "[1]"])
def test_lost_or_damaged_refusals_are_fitted_again(plan: Any, tmp_path: Path, content: str | None) -> None:
    run = run_plan(plan, tmp_path / "run")
    file = run.path / "refusal.json"
    fitted = file.read_bytes()
    file.unlink()
    if content is not None:
        file.write_text(content, "utf-8")
    run_plan(plan, tmp_path / "run", resume=True)
    assert file.read_bytes() == fitted


def test_scores_are_those_of_the_answers_after_single_steps(plan: Any, server: Any, tmp_path: Path) -> None:
    """An arm that is asked again by itself, with other answers, and then a resume for which all steps are finished."""
    run = run_plan(plan, tmp_path / "run")
    scores = run.path / "trial" / "scores.json"
    before = json.loads(scores.read_text("utf-8"))["arms"]["rag"]
    file = run.path / "refusal.json"
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), "reader": "0" * 64}), "utf-8")
    # as after another version: the arm's answers were made by another threshold
    made_from = run.path / "trial" / "made_from.json"
    made_from.write_text(json.dumps({"rag": "0" * 64}), "utf-8")
    log = run.path / "events.jsonl"
    log.write_text(
        "".join(row + "\n" for row in log.read_text("utf-8").split("\n") if '"evaluate:rag"' not in row)
    )
    server.answer = lambda body: "Never, says the harbour master."
    for step in ("index", "evaluate:rag"):
        run_plan(plan, tmp_path / "run", resume=True, only=step)
    assert not scores.exists()
    run_plan(plan, tmp_path / "run", resume=True)
    after = json.loads(scores.read_text("utf-8"))["arms"]["rag"]
    assert before.keys() == after.keys()
    assert sum(row["right"] for row in after.values()) < sum(row["right"] for row in before.values())


def test_refusals_by_signals_of_the_search_belong_to_no_model(plan: Any, tmp_path: Path) -> None:
    off = plan.model_copy(update={"refusal": plan.refusal.model_copy(update={"gate": "off"})})
    run = run_plan(off, tmp_path / "run")
    assert json.loads((run.path / "refusal.json").read_text("utf-8"))["reader"] == ""
    assert load(run.path).ask("When does the tern sail?").text

"""The run folder: finished steps are kept, and two runs never share one."""

from __future__ import annotations

from pathlib import Path

import pytest

from rag.errors import BadInput, UsageProblem
from runners.plan.schema import Plan, parse_plan, write_plan
from runners.report.report_file import read_report
from runners.run_folder import EVENTS, RunFolder, is_run, open_run_folder, read_journal, read_run_plan
from runners.runs import listing


def plan(**changes: object) -> Plan:
    body = {
        "name": "p",
        "choice": "prompting",
        "model": {"name": "m"},
        "data": {"questions": "q.jsonl"},
        "steps": [{"kind": "evaluate", "arm": "prompting"}],
        "weights": {"style": 1},
    }
    return parse_plan({**body, **changes})


def test_existing_run_needs_resume_or_overwrite(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", plan())
    with pytest.raises(UsageProblem, match="exists"):
        RunFolder.create(tmp_path / "run", plan())
    RunFolder.create(tmp_path / "run", plan(), resume=True)


def test_resuming_with_another_plan_names_the_keys(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", plan())
    with pytest.raises(BadInput, match="seed"):
        RunFolder.create(tmp_path / "run", plan(seed=4), resume=True)


def test_overwrite_removes_only_runs(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work", "utf-8")
    with pytest.raises(UsageProblem, match="not a run folder"):
        RunFolder.create(precious, plan(), overwrite=True)
    assert (precious / "thesis.txt").exists()
    run = RunFolder.create(tmp_path / "run", plan())
    run.write({"event": "x"})
    assert RunFolder.create(tmp_path / "run", plan(seed=2), overwrite=True).events() == []
    assert read_run_plan(tmp_path / "run").seed == 2


def test_document_folder_with_a_plan_is_no_run(tmp_path: Path) -> None:
    """`tunewise plan` leaves plan.yaml beside the documents: nothing may take that folder for a run and remove it."""
    project = tmp_path / "project"
    project.mkdir()
    write_plan(plan(), project / "plan.yaml")
    (project / "thesis.txt").write_text("years of work", "utf-8")
    with pytest.raises(UsageProblem, match="not a run folder") as refused:
        RunFolder.create(project, plan(), overwrite=True)
    assert "--overwrite" not in refused.value.hint
    for resume in (False, True):
        with pytest.raises(UsageProblem, match="not a run folder"):
            RunFolder.create(project, plan(), resume=resume)
    assert listing.find_runs(tmp_path) == []
    with pytest.raises(BadInput, match="not a run folder"):
        listing.remove_run(project)
    assert (project / "thesis.txt").read_text("utf-8") == "years of work"


def test_run_that_contains_input_of_a_plan_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder.create(tmp_path / "run", plan()).path
    (run / "q.jsonl").write_text("{}", "utf-8")
    with pytest.raises(UsageProblem, match=r"contains .*q\.jsonl"):
        RunFolder.create(run, plan(data={"questions": str(run / "q.jsonl")}), overwrite=True)
    kept = RunFolder.create(
        tmp_path / "kept", plan(data={"questions": str(tmp_path / "kept" / "q.jsonl")})
    ).path
    with pytest.raises(UsageProblem, match=r"contains .*q\.jsonl"):
        RunFolder.create(kept, plan(), overwrite=True)
    (tmp_path / "link").symlink_to(run)
    with pytest.raises(UsageProblem, match="is a link"):
        RunFolder.create(tmp_path / "link", plan(), overwrite=True)
    (tmp_path / "current").mkdir()
    monkeypatch.chdir(tmp_path / "current")
    RunFolder.create(Path(), plan(data={"questions": "/q.jsonl"}))
    with pytest.raises(UsageProblem, match="the current folder"):
        RunFolder.create(Path(), plan(data={"questions": "/q.jsonl"}), overwrite=True)
    assert is_run(Path())


def test_run_interrupted_before_its_plan_starts_again(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "events.jsonl").touch()
    assert is_run(RunFolder.create(tmp_path / "run", plan()).path)


def test_run_interrupted_between_forecast_and_plan_starts_again(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "events.jsonl").touch()
    (tmp_path / "run" / "plan.forecast.json").write_text("{}", "utf-8")
    assert is_run(RunFolder.create(tmp_path / "run", plan()).path)


def test_run_holds_plan_and_forecast_and_resumes_with_reworded_reasons(tmp_path: Path) -> None:
    """Reasons, answers and the prediction only record something: a plan that differs in them alone is the same."""
    steps = [{"kind": "train", "arm": "lora", "reasons": {"rank": "16 because"}}]
    data = {"questions": "q.jsonl", "examples": "e.jsonl"}
    first = plan(steps=steps, data=data, predicted={"choice": "lora"})
    folder = RunFolder.create(tmp_path / "run", first).path
    assert read_run_plan(folder) == first
    assert "predicted" not in (folder / "plan.yaml").read_text("utf-8")
    steps[0]["reasons"] = {"rank": "16, as always"}
    again = RunFolder.create(
        folder, plan(steps=steps, data=data, weight_reasons={"style": "x"}), resume=True
    ).path
    assert read_run_plan(again) == first
    run = open_run_folder(folder)
    run.seal({})
    run.check()
    (folder / "plan.forecast.json").write_text("{}", "utf-8")
    with pytest.raises(BadInput, match=r"plan\.forecast\.json"):
        run.check()


def test_finished_step_is_reused_until_inputs_change(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", plan()).finish("index", {"docs": "a"}, {"chunks": 3})
    again = open_run_folder(tmp_path / "run")
    assert again.finished("index", {"docs": "a"}) == {"chunks": 3}
    assert again.finished("index", {"docs": "b"}) is None
    assert again.finished("train:lora", {"docs": "a"}) is None


def test_incomplete_last_line_is_no_event(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", plan())
    run.write({"event": "whole"})
    with (tmp_path / "run" / "events.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"event": "torn')
    assert [e["event"] for e in open_run_folder(tmp_path / "run").events()] == ["whole"]
    run.write({"event": "next"})
    assert [e["event"] for e in read_journal(tmp_path / "run" / "events.jsonl")] == ["whole", "next"]


@pytest.mark.parametrize("end", ["\u0085", "\u2028", "\u2029"])
def test_row_with_another_line_end_in_its_text_is_read(tmp_path: Path, end: str) -> None:
    run = RunFolder.create(tmp_path / "run", plan())
    run.write({"event": "answer", "text": f"one{end}two"})
    assert [event["text"] for event in open_run_folder(tmp_path / "run").events()] == [f"one{end}two"]


def test_files_that_are_nested_too_deep_are_damaged(tmp_path: Path) -> None:
    """A bundle may bring them."""
    deep = "[" * 100_000 + "]" * 100_000
    run = RunFolder.create(tmp_path / "run", plan())
    run.write({"event": "x"})
    with (run.path / "events.jsonl").open("a", encoding="utf-8") as log:
        log.write(f"{deep}\n")
    assert [event["event"] for event in run.events()] == ["x"]
    for name in ("report.json", "manifest.json"):
        (run.path / name).write_text(deep, "utf-8")
    with pytest.raises(BadInput, match="is damaged"):
        read_report(run.path)
    with pytest.raises(BadInput, match="is damaged"):
        run.check()


def test_second_run_in_same_folder_is_refused(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", plan())
    with run.writing(), pytest.raises(BadInput, match="pid"), open_run_folder(tmp_path / "run").writing():
        pass


def test_folder_without_run_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(BadInput):
            open_run_folder(path)


def test_edited_card_is_no_damage_and_missing_weights_offer_their_training(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", plan())
    weights = run.adapter("hybrid", 0)
    weights.mkdir(parents=True)
    (weights / "README.md").write_text("card", "utf-8")
    (weights / "adapter_model.safetensors").write_text("weights", "utf-8")
    (run.path / "report.json").write_text("{}", "utf-8")
    run.seal({})
    (weights / "README.md").write_text("card with a note of our own", "utf-8")
    run.check()
    (weights / "README.md").unlink()
    run.check()
    (weights / "adapter_model.safetensors").unlink()
    with pytest.raises(BadInput, match="adapter_model") as refused:
        run.check()
    assert "--resume --only train:hybrid" in refused.value.hint
    assert "--overwrite" not in refused.value.hint
    (weights / "adapter_model.safetensors").write_text("weights", "utf-8")
    (run.path / "report.json").write_text("{ }", "utf-8")
    with pytest.raises(BadInput, match=r"report\.json") as refused:
        run.check()
    assert "--overwrite" in refused.value.hint


def test_log_is_parsed_again_only_where_it_has_grown(tmp_path: Path) -> None:
    """The texts of an event may hold line ends of Unicode, which do not end the line of the log."""
    folder = RunFolder(tmp_path)
    assert folder.events() == []
    folder.write({"event": "plan.note", "reason": "one\u2028two\x85three"})
    (first,) = folder.events()
    assert first["reason"] == "one\u2028two\x85three"
    assert folder.events()[0] is first
    folder.events().clear()
    folder.write({"event": "plan.note", "reason": "four"})
    with (tmp_path / EVENTS).open("a", encoding="utf-8") as log:
        log.write('{"event": "cut')
    assert [event["reason"][:4] for event in folder.events()] == ["one\u2028", "four"]

"""`run --dry-run` on the tiny model: real steps in a child process, an unchanged run folder, the stored ratio."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from advisor import cli, history
from advisor.workflows.dry_run import dry_run as show_dry_run
from advisor.workflows.dry_run import show_steps
from runners.data.examples import Example
from runners.models.resolve import Model
from runners.plan.schema import parse_plan, read_plan, read_plan_file, write_plan
from runners.plan.steps import TrainStep
from runners.resources import usage
from runners.run_folder import RunFolder
from runners.runs.dataset import read_data
from runners.trial import dry_run
from tests.support.opened import opened_run

ESTIMATE = {"hours": {"likely": 0.01}, "memory_gib": {"likely": 1.0}}


@pytest.fixture
def folder(tmp_path: Path, tiny: Model, examples: Sequence[Example], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a plan of one tuned arm on the tiny model, and a history of its own."""
    rows = [{"messages": list(e.messages)} for e in examples]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    asked = [{"question": f"Where is boat {n}?", "answers": [str(n)]} for n in range(12)]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked), "utf-8")
    body = {
        "schema": 1,
        "name": "dry",
        "choice": "lora",
        "model": {"name": str(tiny.folder)},
        "data": {"examples": "rows.jsonl", "questions": "questions.jsonl"},
        "steps": [
            {"kind": "evaluate", "arm": "prompting"},
            {"kind": "train", "arm": "lora", "rank": 4, "alpha": 8, "max_tokens": 256},
            {"kind": "evaluate", "arm": "lora", "weights": "lora"},
            {
                "kind": "evaluate",
                "arm": "few-shot",
                "shots": 2,
                "model": {"name": "openai:tern@http://127.0.0.1:9/v1"},
            },
        ],
        "weights": {"style": 1},
        "max_new_tokens": 4,
        "predicted": {"ranked": [{"method": "lora", "estimate": ESTIMATE}]},
    }
    write_plan(parse_plan(body), tmp_path / "plan.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(history.ENV, str(tmp_path / "history.jsonl"))
    return tmp_path


def test_dry_run_measures_steps_and_stores_ratio_without_run(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """However busy this machine is now."""
    plan = read_plan(folder / "plan.yaml")
    show_dry_run(plan, folder / "runs" / "dry", as_json=True, max_seconds=1e9, max_contention=1.0)
    output = json.loads(capsys.readouterr().out)
    steps = {row["step"]: row for row in output["steps"]}
    assert list(steps) == [
        "evaluate:prompting",
        "train:lora",
        "evaluate:lora",
        "evaluate:few-shot",
        "forgetting",
    ]
    assert steps["train:lora"]["measured"] > 0
    trained = steps["train:lora"]
    assert 0.01 < trained["measured_gib"] < trained["process_gib"]
    assert 0 < trained["estimated_gib"] < 0.3  # compiled kernels and a tiny model, no library in it
    assert steps["train:lora"]["how"].startswith("3 steps, the last of ")
    assert steps["evaluate:lora"]["measured"] == steps["evaluate:prompting"]["measured"] > 0
    assert steps["evaluate:few-shot"]["measured"] is None
    assert "sends nothing" in steps["evaluate:few-shot"]["how"]
    assert (output["examples"], output["dev"] + output["test"], output["corrections"]) == (36, 12, {})
    assert not (folder / "runs").exists()
    (recorded,) = history.read_history().runs
    assert (recorded.label, recorded.model, recorded.outcome, [s.arm for s in recorded.steps]) == (
        "dry-run",
        "model",
        None,
        ["lora"],
    )
    assert recorded.hours is not None
    pair = history.PredictedMeasured(predicted=trained["estimated_gib"], measured=trained["measured_gib"])
    assert (recorded.memory_gib, recorded.memory_of, recorded.memory_ratio) == (pair, "training", pair.ratio)

    shown = CliRunner().invoke(cli.app, ["history"], env={"COLUMNS": "200"})
    assert "dry-run" in shown.output
    assert history.time_correction([recorded], recorded.machine, "train", "model").runs == 1
    show_steps(plan)


def test_finished_run_records_prediction_and_measurement(folder: Path) -> None:
    plan = read_plan_file(folder / "plan.yaml")
    write_plan(plan.model_copy(update={"steps": plan.steps[:3]}), folder / "plan.yaml")
    done = CliRunner().invoke(cli.app, ["run", "plan.yaml", "--out", "run"])
    assert done.exit_code in (0, 5), done.output
    measured = json.loads((folder / "run" / "report.json").read_text("utf-8"))["measured"]
    (trained,) = measured["training"]["lora"]
    assert (trained["own_gib"], trained["peak_gib"]) == (measured["memory_gib"], measured["process_gib"])
    assert trained["expected_gib"] == measured["memory_expected_gib"] > 0
    assert measured["ratios"]["time"] == pytest.approx(measured["hours"] / 0.01, rel=0.1, abs=0.001)
    assert {step["kind"] for step in measured["steps"]} == {"train", "evaluate"}
    if measured["memory_gib"] is not None:
        assert measured["memory_gib"] < measured["process_gib"]
        assert measured["ratios"]["memory"] == pytest.approx(
            measured["memory_gib"] / measured["memory_expected_gib"], abs=0.001
        )
        assert "memory of training: estimated 0.2 GiB" in done.output
        assert "the whole process used" in done.output
        assert "the plan estimated 1 GiB" in done.output
    CliRunner().invoke(cli.app, ["run", "plan.yaml", "--out", "run", "--resume"])
    (recorded,) = history.read_history().runs
    assert (recorded.label, recorded.choice, recorded.questions, recorded.quick) == ("run", "lora", 8, False)
    assert recorded.outcome in ("confirmed", "overturned", "undecided")


def test_times_of_busy_machine_are_reported_not_stored(folder: Path) -> None:
    from advisor.workflows.dry_run import StepEstimate, contention_notes, keep_measurements
    from runners.plan.schema import read_plan

    plan = read_plan(folder / "plan.yaml")
    lines = [
        StepEstimate("train:lora", 10.0, 10.0, 30.0, 0.5, 0.6, 1.1, 0.4),
        StepEstimate("evaluate:lora", 5.0, 5.0, 6.0),
    ]
    (note,) = contention_notes(lines)
    assert note.startswith("train:lora: the machine was busy: other programs took 40% of the processor time")
    assert "not kept" in note
    measured = {
        "lora": [{"peak_gib": 1.1, "own_gib": 0.6, "expected_gib": 0.5, "seconds": None, "method": "lora"}]
    }
    assert keep_measurements(plan, lines, measured, folder) == ""
    (recorded,) = history.read_history().runs
    assert (recorded.steps, recorded.hours) == ((), None)
    assert recorded.memory_ratio == pytest.approx(1.2)
    assert history.time_correction([recorded], recorded.machine, "train", "model") == history.NO_CORRECTION
    assert contention_notes([StepEstimate("train:lora", 10.0, 10.0, 30.0, lost=usage.MAX_CONTENTION)]) == []


def test_contention_is_lost_time_only_without_free_core() -> None:
    assert usage.lost_share(threads=2, cores=2, others=0.0) == 0.0
    assert usage.lost_share(threads=2, cores=2, others=1.0) == 0.5
    assert usage.lost_share(threads=2, cores=16, others=13.0) == 0.0
    assert usage.lost_share(threads=8, cores=8, others=8.0) == 1.0
    with usage.measure_contention() as contention:
        pass  # too short to tell
    assert contention.lost == 0.0
    assert usage.contention_note(usage.MAX_CONTENTION) == ""


def test_history_corrects_next_estimate_and_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from advisor.workflows.dry_run import show_steps, step_estimates
    from runners.plan.schema import read_plan
    from runners.resources.machine import detect_machine

    step = {"kind": "train", "arm": "lora", "predicted": 10.0, "measured": 40.0}
    history.append_to_history(
        history.PastRun.model_validate(
            {
                "id": "a",
                "day": "2026-11-25",
                "machine": history.machine_mark(detect_machine()).model_dump(),
                "model": "model",
                "choice": "lora",
                "plan": "p",
                "steps": [step],
            }
        )
    )
    rows, corrections = step_estimates(read_plan(folder / "plan.yaml"), 36, 8)
    assert corrections["train"].factor == pytest.approx(2.0)
    assert [row.corrected / row.estimated for row in rows] == pytest.approx([1.0, 2.0, 1.0, 1.0, 1.0])
    show_steps(read_plan(folder / "plan.yaml"))
    assert "train: corrected by 2 from 1 earlier run here" in capsys.readouterr().out


def test_large_corpus_is_not_indexed_in_dry_run(tiny: Model, piers: Path, tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text("".join(f'{{"question": "q {n}?"}}\n' for n in range(6)), "utf-8")
    plan = parse_plan(
        {
            "name": "p",
            "choice": "rag",
            "model": {"name": "tiny"},
            "weights": {"style": 1},
            "data": {"documents": str(piers), "questions": str(tmp_path / "q.jsonl")},
            "steps": [{"kind": "index"}, {"kind": "evaluate", "arm": "rag", "retrieval": True}],
        }
    )
    context = opened_run(plan, RunFolder(tmp_path / "work"), tiny, read_data(plan))
    times = [step_time for _, step_time in dry_run.DryRun(context, max_bytes=10).measure()]
    assert [step_time.seconds for step_time in times] == [None, None]
    assert all("too long to index" in step_time.how for step_time in times)


def test_train_step_is_measured_with_its_own_settings() -> None:
    config = TrainStep(arm="full", method="full", epochs=3, learning_rate=1e-5, seeds=(7,)).config(7)
    assert (config.method, config.epochs, config.learning_rate, config.seed) == ("full", 3, 1e-5, 7)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a system that resets a process's peak")
def test_peak_covers_only_work_inside_the_block() -> None:
    import numpy as np

    with usage.measure_peak() as before:
        pass
    with usage.measure_peak() as most:
        np.ones(40_000_000).sum()  # 0.3 GiB
    with usage.measure_peak() as after:
        pass
    assert before.gib is not None
    assert most.gib is not None
    assert after.gib is not None
    assert after.own_gib is not None
    assert most.gib - before.gib == pytest.approx(0.298, abs=0.05)
    assert most.own_gib == pytest.approx(0.298, abs=0.05)
    assert most.held_gib == pytest.approx(before.gib, abs=0.05)
    assert after.gib < most.gib
    assert after.own_gib < 0.05


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux hands a parent's peak on")
def test_child_process_does_not_inherit_peak_of_parent() -> None:
    import subprocess

    import numpy as np

    held = np.ones(60_000_000)  # 0.45 GiB
    line = "from runners.resources import usage; print(usage.highest_resident_gib())"
    packages = str(Path(usage.__file__).parents[2])
    child = subprocess.run(
        [sys.executable, "-c", line], capture_output=True, text=True, check=True, cwd=packages
    )
    assert 0 < float(child.stdout) < 0.2 < held.nbytes / 2**30

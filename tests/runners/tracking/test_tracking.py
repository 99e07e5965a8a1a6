"""`--track`: real trainings whose metrics are read back from TensorBoard's and wandb's own files, resumes and failures."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from runners.export.bundle import _file_names
from runners.run_folder import open_run_folder, read_journal, read_run_plan
from runners.tracking.records import TRACK_ENV, Begin, End, MetricRow, Note, Summary, TrackedRun, Tracker
from runners.tracking.sender import TrackerSender
from runners.tracking.tracking import cut_paths, public_facts, public_model_name
from tests.runners.tracking.conftest import Run, invoke
from tests.runners.tracking.readers import offline_runs, scalars, texts
from tests.support.limits import HANG_S

STEP_METRICS = ("loss", "grad_norm", "learning_rate", "tokens", "tokens_per_s")


def expected_rows(log: Path, name: str) -> list[tuple[int, Any]]:
    """Return the steps and values of a metric in training.jsonl, as float32."""
    return [
        (row["step"], pytest.approx(row[name], rel=1e-6))
        for row in map(json.loads, log.read_text("utf-8").splitlines())
        if name in row
    ]


def test_training_is_tracked_by_two_trackers_to_the_same_weights(train: Run, tmp_path: Path) -> None:
    done = train("--out", "tracked", "--track", "tensorboard", "--track", "wandb")
    assert done.exit_code == 0, done.output
    os.environ[TRACK_ENV] = ""
    plain = train("--out", "plain")
    assert plain.exit_code == 0, plain.output
    weights = "adapter_model.safetensors"
    assert (tmp_path / "tracked" / weights).read_bytes() == (tmp_path / "plain" / weights).read_bytes()
    assert not (tmp_path / "plain.tracking").exists(), "nothing is written without --track"

    folder, log = tmp_path / "tracked.tracking", tmp_path / "tracked" / "training.jsonl"
    shown = scalars(folder / "tensorboard" / "tracked")
    for name in ("loss", "grad_norm", "learning_rate"):
        assert shown[f"train/{name}"] == expected_rows(log, name)
    assert {f"train/{name}" for name in STEP_METRICS} <= set(shown)
    assert shown["eval/loss"] == expected_rows(log, "valid_loss")
    assert texts(folder / "tensorboard" / "tracked")["state"] == ["finished"]

    (run,) = offline_runs(folder / "wandb")
    history = [(row["_step"], row["train/loss"]) for row in run.history if "train/loss" in row]
    assert history == expected_rows(log, "loss")
    assert run.history[-1]["eval/loss"] == expected_rows(log, "valid_loss")[-1][1]
    assert (run.exit_code, run.run.display_name, run.run.project) == (0, "tracked", "tunewise")
    assert (run.config["method"], run.config["rank"], run.config["model"]) == ("lora", 16, "model")
    assert run.summary["result/last_loss"] > 0
    for text in (json.dumps(run.config), texts(folder / "tensorboard" / "tracked")["settings"][0]):
        assert str(tmp_path) not in text
    assert "tracked by tensorboard: tensorboard --logdir" in done.stderr
    assert "tracked by wandb: kept offline; send it with: wandb sync" in done.stderr


def test_resumed_training_goes_on_in_the_same_run_without_doubled_steps(
    stop_and_resume: Run, tmp_path: Path
) -> None:
    """Stopped hard at step 5 with a checkpoint of step 3: steps 4 and 5 are taken twice and shown once."""
    out = stop_and_resume("tensorboard", "wandb")
    folder = tmp_path / "out.tracking"
    assert [path.name for path in (folder / "tensorboard").iterdir()] == ["out"], "one run"
    shown = scalars(folder / "tensorboard" / "out")
    log = expected_rows(out / "training.jsonl", "loss")
    assert shown["train/loss"] == log
    assert [step for step, _ in log] == list(range(1, len(log) + 1))
    notes = texts(folder / "tensorboard" / "out")
    assert notes["state"] == ["failed", "killed", "finished"]
    assert notes["notes/memory"] == ["halved, see x"] * 2
    first, second, third = offline_runs(folder / "wandb")
    assert first.id == second.id == third.id
    steps = [row["_step"] for run in (first, second, third) for row in run.history if "train/loss" in row]
    assert steps == list(range(1, len(log) + 1))
    assert (first.exit_code, second.exit_code, third.exit_code) == (1, 130, 0)
    assert (first.notes, first.tags) == ("step 1: halved, see x", ["memory"])


def test_run_is_a_group_with_a_run_for_each_training_and_the_scores(plan_file: Path, tmp_path: Path) -> None:
    done = invoke(
        "run", plan_file, "--out", "out", "--track", "tensorboard", "--track", "wandb", "--only", "train:lora"
    )
    assert done.exit_code == 0, done.output
    done = invoke("run", plan_file, "--out", "out", "--resume", "--track", "tensorboard", "--track", "wandb")
    assert done.exit_code in (0, 5), done.output
    out = tmp_path / "out"
    board = out / "tracking" / "tensorboard"
    assert sorted(path.name for path in board.iterdir()) == ["lora-s3", "lora-s4", "out"]
    events = [event for event in read_journal(out / "events.jsonl") if event["event"] == "train.step"]
    for seed in (3, 4):
        losses = [(event["step"], pytest.approx(event["loss"])) for event in events if event["seed"] == seed]
        assert scalars(board / f"lora-s{seed}")["train/loss"] == losses
    report = json.loads((out / "report.json").read_text("utf-8"))
    shown = scalars(board / "out")
    for arm in report["arms"]:
        for name, key in (("score", "mean"), ("score_low", "low"), ("score_high", "high")):
            assert shown[f"{arm['arm']}/{name}"][-1][1] == pytest.approx(arm["score"][key])
    runs = offline_runs(out / "tracking" / "wandb")
    whole = [run for run in runs if run.run.job_type == "run"]
    trainings = [run for run in runs if run.run.job_type == "training"]
    assert [run.run.display_name for run in trainings] == ["out/lora-s3", "out/lora-s4"]
    assert {run.run.run_group for run in runs} == {"out"}
    assert [run.id for run in whole] == [whole[0].id] * 2, "the resumed run is the same one"
    assert whole[-1].summary["outcome"] == report["verdict"]["outcome"]
    assert whole[-1].summary["lora/score"] == pytest.approx(report["arms"][0]["score"]["mean"], abs=1)
    assert whole[-1].config["plan_sha256"] == read_run_plan(out).digest()
    assert {run.config["seed"] for run in trainings} == {3, 4}
    assert all(str(tmp_path) not in json.dumps([run.config, run.summary]) for run in runs)
    open_run_folder(out).check()
    (out / "tracking" / "later").write_text("a tracker writes when it wants", "utf-8")
    open_run_folder(out).check()
    assert not [name for name in _file_names(out) if name.startswith("tracking")], (
        "none of it goes into a bundle"
    )


def test_tracker_that_cannot_write_does_not_end_the_training(train: Run, tmp_path: Path) -> None:
    (tmp_path / "out.tracking").write_text("a file where the folder should be", "utf-8")
    done = train("--out", "out", "--track", "tensorboard")
    assert done.exit_code == 0, done.output
    lines = [line for line in done.stderr.splitlines() if "tracking by tensorboard" in line]
    assert len(lines) == 2, done.stderr
    assert "fails: " in lines[0]
    assert "the run continues" in lines[0]
    assert "records were not sent" in lines[1]
    assert (tmp_path / "out" / "training.jsonl").is_file()


def test_unknown_or_missing_tracker_is_refused_before_anything_is_read(
    train: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = train("--out", "out", "--track", "comet")
    assert done.exit_code == 2
    assert "there is no tracker 'comet'" in done.stderr
    assert "choose one of mlflow, wandb, tensorboard, trackio" in done.stderr
    for name in ("mlflow", "wandb", "tensorboard", "trackio"):
        monkeypatch.setitem(sys.modules, name, None)
        done = train("--out", "out", "--track", name)
        assert done.exit_code == 4
        assert f'pip install "tunewise[{name}]"' in done.stderr
        assert "rows of" not in done.stderr


class Unsteady(Tracker):
    """A client whose server is away for some calls, does not answer until it may, or refuses a row."""

    def __init__(self, away: int = 0, silent: bool = False, repeats: bool = True) -> None:
        super().__init__(Path())
        self.away, self.silent, self.repeats = away, silent, repeats
        self.may_answer = threading.Event()
        self.sent: list[int] = []
        self.status = ""

    def begin(self, run: TrackedRun, earlier: str, sent: int, parent: str) -> str:
        return earlier or "id"

    def log(self, rows: Sequence[MetricRow]) -> None:
        assert not self.silent or self.may_answer.wait(HANG_S)
        if self.away:
            self.away -= 1
            raise ConnectionError("https://user:secret@host refused")
        self.sent += [row.step for row in rows]

    def summarise(self, summary: Summary) -> None:
        """Nothing."""

    def note(self, note: Note) -> None:
        """Nothing."""

    def end(self, end: End) -> None:
        self.status = end.status

    def may_repeat(self, error: Exception) -> bool:
        return self.repeats

    def location(self) -> str:
        return ""


def send(client: Unsteady, folder: Path, count: int, resume: bool = False) -> tuple[int, list[str]]:
    """Send rows to a client, which may answer then; return how many were not sent, and the warnings."""
    lines: list[str] = []
    sender = TrackerSender("mlflow", client, folder / "state.json", resume, lines.append, interval=0.01)
    sender.put(Begin(TrackedRun("", "run", {})))
    for step in range(1, count + 1):
        sender.put(MetricRow("", "train", step, {"train/loss": 1.0}))
    client.may_answer.set()
    sender.put(End("", "killed"))
    return sender.close("killed"), lines


def test_rows_that_failed_are_sent_again_where_that_doubles_nothing(tmp_path: Path) -> None:
    client = Unsteady(away=2)
    unsent, lines = send(client, tmp_path, 50)
    assert unsent == len(lines) - 1 == 0
    assert client.sent == list(range(1, 51))
    assert lines == [
        "tracking by mlflow fails: https://***@host refused; the run continues, what is not sent is counted"
    ]
    again = Unsteady()
    assert send(again, tmp_path, 53, resume=True)[0] == 0
    assert again.sent == [51, 52, 53], "what was sent before is not sent again"
    assert again.status == "killed"
    (tmp_path / "state.json").write_text("{", "utf-8")
    _, lines = send(Unsteady(), tmp_path, 1, resume=True)
    assert "begins a new run" in lines[0]


def test_rows_that_may_be_doubled_are_counted(tmp_path: Path) -> None:
    client = Unsteady(away=1, repeats=False)
    unsent, _ = send(client, tmp_path, 50)
    assert unsent > 0
    assert unsent + len(client.sent) == 50


def test_slow_tracker_does_not_hold_up_a_step(tmp_path: Path) -> None:
    """All rows are taken while the client is still in its first call."""
    client = Unsteady(silent=True)
    assert send(client, tmp_path, 1_000) == (0, [])
    assert client.sent == list(range(1, 1_001))


def test_names_and_texts_hold_no_paths_and_no_secrets() -> None:
    assert public_model_name("openai:big@https://me:pw@host:8000/v1?key=k") == "openai:big@host"
    assert public_model_name("HuggingFaceTB/SmolLM2-135M-Instruct") == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert public_model_name("/srv/models/own") == "own"
    assert public_facts({"a": "/srv/data/x", "t": ["q", "v"], "n": 1, "w": "C:\\me\\y"}) == {
        "a": "x",
        "t": "q, v",
        "n": 1,
        "w": "y",
    }
    assert cut_paths("'/a/b/c.bin' is damaged; see ../d/e and https://host/x/y") == (
        "'c.bin' is damaged; see e and https://host/x/y"
    )
    assert cut_paths("0.5 and/or 2/3") == "0.5 and/or 2/3"


def test_nothing_is_tracked_without_the_flag(plan_file: Path, tmp_path: Path) -> None:
    done = invoke("run", plan_file, "--out", "out", "--only", "evaluate:prompting")
    assert done.exit_code == 0, done.output
    assert not (tmp_path / "out" / "tracking").exists()
    shutil.rmtree(tmp_path / "out")

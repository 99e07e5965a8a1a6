"""`--track` with the clients that the ordinary run does not install, and with servers that do not answer; under --deep.

They need the extras mlflow and trackio; without them these tests fail, and say so.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.runners.tracking.conftest import Run, invoke

pytestmark = pytest.mark.slow


def logged_losses(out: Path) -> list[tuple[int, Any]]:
    """Return the steps and losses of training.jsonl."""
    rows = [json.loads(line) for line in (out / "training.jsonl").read_text("utf-8").splitlines()]
    return [(row["step"], pytest.approx(row["loss"])) for row in rows if "loss" in row]


def mlflow_runs(folder: Path) -> tuple[Any, list[Any]]:
    """Return a client of the database below a folder, and its runs, oldest first."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder.resolve() / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tunewise")
    return client, client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])


def history(client: Any, run: Any, name: str) -> list[tuple[int, float]]:
    """Return the steps and values of a metric."""
    return sorted((metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name))


def test_mlflow_goes_on_in_the_same_run(stop_and_resume: Run, tmp_path: Path) -> None:
    out = stop_and_resume("mlflow")
    client, runs = mlflow_runs(tmp_path / "out.tracking")
    (run,) = runs
    assert (run.info.status, run.info.run_name) == ("FINISHED", "out")
    assert history(client, run, "train/loss") == logged_losses(out)
    assert (run.data.params["rank"], run.data.params["model"]) == ("4", "model")
    assert run.data.tags["tunewise.memory"] == "halved, see x"
    assert "step 1: halved" in run.data.tags["mlflow.note.content"]
    assert str(tmp_path) not in json.dumps([run.data.params, run.data.tags])
    assert not (tmp_path / "mlruns").exists()


def test_run_is_a_parent_with_nested_trainings_in_mlflow(plan_file: Path, tmp_path: Path) -> None:
    done = invoke("run", plan_file, "--out", "out", "--track", "mlflow", "--track", "trackio", "--json")
    assert done.exit_code in (0, 5), done.output
    report = json.loads(done.stdout)
    _, runs = mlflow_runs(tmp_path / "out" / "tracking")
    parent, *trainings = runs
    assert [run.info.run_name for run in trainings] == ["out/lora-s3", "out/lora-s4"]
    assert {run.data.tags["mlflow.parentRunId"] for run in trainings} == {parent.info.run_id}
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert parent.data.tags["tunewise.outcome"] == report["verdict"]["outcome"]
    for arm in report["arms"]:
        assert parent.data.metrics[f"{arm['arm']}/score_low"] == pytest.approx(arm["score"]["low"])
    assert "mlflow ui --backend-store-uri sqlite:" in done.stderr
    rows = trackio_rows(tmp_path / "out" / "tracking")
    assert {name for name, _, _ in rows} == {"out", "out/lora-s3", "out/lora-s4"}


def trackio_rows(folder: Path) -> list[tuple[str, int, dict[str, Any]]]:
    """Return the run's name, step and metrics of every row in the database below a folder."""
    with closing(sqlite3.connect(folder / "trackio" / "tunewise.db")) as database:
        rows = database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id").fetchall()
    return [(name, step, json.loads(metrics)) for name, step, metrics in rows]


def test_trackio_goes_on_in_the_same_run(
    stop_and_resume: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trackio import sqlite_storage, utils

    # The folder is read when trackio is imported, which a test before this one may have done.
    place = tmp_path / "out.tracking" / "trackio"
    monkeypatch.setattr(utils, "TRACKIO_DIR", place)
    monkeypatch.setattr(sqlite_storage, "TRACKIO_DIR", place)
    out = stop_and_resume("trackio")
    rows = trackio_rows(tmp_path / "out.tracking")
    assert {name for name, _, _ in rows} == {"out"}
    losses = {step: values["train/loss"] for _, step, values in rows if "train/loss" in values}
    assert list(losses.items()) == logged_losses(out)
    assert [values["state"] for _, _, values in rows if "state" in values] == ["failed", "killed", "finished"]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("mlflow", {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}),
        (
            "wandb",
            {"WANDB_MODE": "online", "WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "a" * 40},
        ),
    ],
)
def test_server_that_does_not_answer_does_not_end_the_training(
    train: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    settings: dict[str, str],
) -> None:
    for variable, value in settings.items():
        monkeypatch.setenv(variable, value)
    done = train("--out", "out", "--track", name)
    assert done.exit_code == 0, done.output
    lines = [line for line in done.stderr.splitlines() if f"tracking by {name}" in line]
    assert [line.rsplit(" ", 3)[-3:] for line in lines[-1:]] == [["were", "not", "sent"]], done.stderr
    assert (tmp_path / "out" / "training.jsonl").is_file()

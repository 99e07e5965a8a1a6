"""What the tests of trackers share: an environment without keys, a small training, one that is stopped, a small plan."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from advisor import cli
from runners.data.examples import Example
from runners.models.resolve import Model
from runners.plan.train_config import TrainConfig
from runners.tracking.records import TRACK_ENV
from runners.tracking.tracking import track_training

Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No tracker is chosen, and wandb finds no key of a developer."""
    monkeypatch.setenv(TRACK_ENV, "")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in tuple(os.environ):
        theirs = name.startswith(("WANDB_", "MLFLOW_", "TRACKIO_")) or name == "NETRC"
        if theirs and name != "WANDB_SERVICE":  # by which wandb finds its own process again
            monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def rows(tmp_path: Path, examples: tuple[Example, ...]) -> Path:
    """The examples as a file."""
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"messages": list(row.messages)}) + "\n" for row in examples), "utf-8")
    return file


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(cli.app, [str(part) for part in arguments])


@pytest.fixture
def train(tiny: Model, rows: Path) -> Run:
    """Return a function that runs the verb: 5 steps and validation."""
    flags = ("--epochs", 1, "--batch-tokens", 400, "--valid-share", 0.2)
    return lambda *more: invoke("train", "--examples", rows, "--model", tiny.folder, *flags, *more)


@pytest.fixture
def plan_file(tmp_path: Path, tiny: Model, rows: Path) -> Path:
    """A plan that trains an arm with two seeds and asks it and the base six questions."""
    questions = [{"question": f"Is pier {n} open?", "answers": ["yes"]} for n in range(6)]
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in questions), "utf-8")
    train = {"kind": "train", "arm": "lora", "rank": 2, "alpha": 4, "epochs": 1, "seeds": [3, 4]}
    body = {
        "schema": 1,
        "name": "piers",
        "choice": "lora",
        "model": {"name": str(tiny.folder)},
        "data": {"examples": rows.name, "questions": file.name},
        "steps": [
            {"kind": "evaluate", "arm": "prompting"},
            {**train, "batch_tokens": 800},
            {"kind": "evaluate", "arm": "lora", "weights": "lora"},
        ],
        "weights": {"style": 1},
        "forgetting": {"prompts": 0},
        "max_new_tokens": 2,
    }
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(body), "utf-8")
    return tmp_path / "plan.yaml"


class StopHere(Exception):
    """Ends a training without a checkpoint, as a kill does."""


@pytest.fixture
def stop_and_resume(tiny: Model, examples: tuple[Example, ...], tmp_path: Path) -> Run:
    """Return a function that trains with trackers: stopped hard at step 5, by Ctrl-C at 7, then to the end.

    Before the end, the trackers' files of ids and steps are set back to step 5, as a kill leaves them that comes before
    they are written again.
    """
    from runners.train import fit

    config = TrainConfig(epochs=2.0, rank=4, alpha=8.0, batch_tokens=500, checkpoint_steps=3)
    out = tmp_path / "out"

    def once(trackers: tuple[str, ...], stop_at: int, error: type[BaseException], resume: bool) -> None:
        with track_training(config, str(tiny.folder), out, resume, trackers) as tracking:

            def on_event(event: dict[str, Any]) -> None:
                tracking.update(event)
                if event["event"] == "train.step" and event["step"] == stop_at:
                    tracking.update({"event": "train.memory", "step": 1, "reason": f"halved, see {out}/x"})
                    raise error

            fit(examples, config, tiny, out, on_event=on_event, resume=resume)

    def run(*trackers: str) -> Path:
        with pytest.raises(StopHere):
            once(trackers, 5, StopHere, False)
        files = {tmp_path / "out.tracking" / f"{name}.json": name for name in trackers if name != "wandb"}
        states = {file: file.read_bytes() for file in files}
        with pytest.raises(KeyboardInterrupt):
            once(trackers, 7, KeyboardInterrupt, True)
        for file, state in states.items():
            file.write_bytes(state)
        once(trackers, 0, StopHere, True)
        return out

    return run

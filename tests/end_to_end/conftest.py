"""Fixtures: one small real run of the whole pipeline on the shipped example, interrupted once and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import advisor
from tests.support.command_server import Command, CommandServer

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]
# Child processes import the same package as this process, from a clone or installed.
PACKAGES = Path(advisor.__file__).resolve().parent.parent


@dataclass(frozen=True)
class PipelineRun:
    """A finished run, and the two commands that made it."""

    folder: Path
    run: Path
    plan: Path
    interrupted: tuple[int, str]
    """Exit code and stderr of the command that was interrupted while it trained."""
    finished: Done
    """The command that resumed the run; it prints the report as JSON."""


def environment(**variables: str) -> dict[str, str]:
    """The environment of a child process: the same package, no colours, wide lines."""
    return {**os.environ, "PYTHONPATH": str(PACKAGES), "NO_COLOR": "1", "COLUMNS": "200", **variables}


@pytest.fixture(scope="session")
def tunewise(command_server: CommandServer) -> Run:
    """Return a function that runs the command line in a child process, without a terminal."""

    def run(*arguments: object, cwd: Path, stdin: str = "", **environ: str) -> Done:
        return command_server.run(*arguments, cwd=cwd, env=environment(**environ), stdin=stdin)

    return run


@pytest.fixture(scope="session")
def start_tunewise(command_server: CommandServer) -> Callable[..., Command]:
    """Return a function that starts the command line in a child process, which the test stops."""

    def start(*arguments: object, cwd: Path) -> Command:
        return command_server.start(*arguments, cwd=cwd, env=environment())

    return start


@pytest.fixture(scope="session")
def tiny_plan(tmp_path_factory: pytest.TempPathFactory, tunewise: Run, example: Path) -> Path:
    """The plan of `tunewise plan` for the example with every arm, reduced so that it runs in little time."""
    folder = tmp_path_factory.mktemp("pipeline")
    answers = "task_needs_facts=new facts_change=slow must_cite=yes behaviour_gap=high wrong_answer_cost=high"
    done = tunewise(
        "plan",
        "--yes",
        "--model",
        "smollm2-135m-instruct",
        "--documents",
        example / "documents",
        "--examples",
        example / "examples.jsonl",
        "--questions",
        example / "questions.jsonl",
        "--prompt",
        example / "prompt.txt",
        "--out",
        "plan.yaml",
        *(part for pair in answers.split() for part in ("--set", pair)),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return shrink_plan(folder / "plan.yaml", folder / "tiny.yaml")


@pytest.fixture(scope="session")
def pipeline(tiny_plan: Path, tunewise: Run, start_tunewise: Callable[..., Command]) -> PipelineRun:
    """Run the plan, interrupt it while it trains, and resume it to the end."""
    folder = tiny_plan.parent
    interrupted = interrupt(start_tunewise, folder, "run", tiny_plan.name, "--out", "run")
    finished = tunewise("run", tiny_plan.name, "--out", "run", "--resume", "--json", cwd=folder)
    return PipelineRun(folder, folder / "run", tiny_plan, interrupted, finished)


def shrink_plan(plan: Path, small: Path, arms: tuple[str, ...] = ()) -> Path:
    """Write a plan with few rows, few questions and short answers; with `arms`, of these arms only."""
    import yaml

    body = yaml.safe_load(plan.read_text("utf-8"))
    body["data"] |= {"max_examples": 16, "max_dev": 9, "max_test": 6}
    body["max_new_tokens"] = 20
    body["forgetting"] = {"prompts": 4, "max_new_tokens": 8}
    for step in body["steps"]:
        if step["kind"] == "train":
            step["epochs"] = 0.5 if step.get("rows") == "retrieval" else 1.0
    if arms:
        body["steps"] = [s for s in body["steps"] if s["kind"] == "index" or s["arm"] in arms]
        body |= {"choice": arms[-1], "gate": {"must_beat": []}}
    small.write_text(yaml.safe_dump(body, sort_keys=False), "utf-8")
    return small


def interrupt(start: Callable[..., Command], folder: Path, *arguments: str) -> tuple[int, str]:
    """Start a run and send SIGINT at its first training step; return its exit code and stderr."""
    child = start(*arguments, cwd=folder)
    try:
        while not has_trained(folder / "run") and child.poll() is None:
            time.sleep(0.1)
        child.send_signal(signal.SIGINT)
        _, err = child.communicate()
    finally:
        child.kill()
    assert child.returncode is not None
    return child.returncode, err


def has_trained(run: Path) -> bool:
    """Return whether a training step has been logged."""
    log = run / "events.jsonl"
    return log.exists() and '"event": "train.step"' in log.read_text("utf-8")


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file."""
    return [json.loads(text) for text in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="session")
def read_rows() -> Callable[[Path], list[dict[str, Any]]]:
    """The function that reads JSON lines."""
    return read_json_lines


@pytest.fixture(scope="session")
def shrink() -> Callable[..., Path]:
    """The function that writes reduced plans."""
    return shrink_plan

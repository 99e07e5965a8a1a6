"""The whole line at its smallest: one real run on the shipped example, interrupted once and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import advisor

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]
# The package that this process imports, from a clone or installed, is the one that the child imports.
PACKAGES = Path(advisor.__file__).resolve().parent.parent
LIMIT = 600


@dataclass(frozen=True)
class Line:
    """A finished run and how it came about."""

    folder: Path
    run: Path
    plan: Path
    interrupted: tuple[int, str]
    """Exit code and stderr of the run that got a Ctrl-C while it trained."""
    finished: Done
    """The same run gone on with, printing its report as JSON."""


def command(*arguments: object) -> list[str]:
    """The command line of this Python and this package; -P keeps the current folder off its path."""
    return [sys.executable, "-P", "-m", "advisor", *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    """The child's environment: the same package, no hub, no colours."""
    return {**os.environ, "PYTHONPATH": str(PACKAGES), "NO_COLOR": "1", "COLUMNS": "200", **more}


@pytest.fixture(scope="session")
def tunewise() -> Run:
    """Run the command line in a process of its own, without a terminal."""

    def run(*arguments: object, cwd: Path, stdin: str = "", **environ: str) -> Done:
        return subprocess.run(
            command(*arguments),
            cwd=cwd,
            env=environment(**environ),
            input=stdin,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=LIMIT,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def start_tunewise() -> Callable[..., subprocess.Popen[str]]:
    """Start the command line in a process of its own, to be stopped by the test."""

    def start(*arguments: object, cwd: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command(*arguments),
            cwd=cwd,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            preexec_fn=listen,
        )

    return start


@pytest.fixture(scope="session")
def tiny_plan(tmp_path_factory: pytest.TempPathFactory, tunewise: Run, example: Path) -> Path:
    """The plan that `tunewise plan` draws up for the example, cut down to seconds; every arm is in it."""
    folder = tmp_path_factory.mktemp("line")
    answers = "task_needs_facts=new facts_change=slow must_cite=yes behaviour_gap=high wrong_answer_cost=high"
    done = tunewise(
        "plan",
        "--yes",
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
    return shrunk(folder / "plan.yaml", folder / "tiny.yaml")


@pytest.fixture(scope="session")
def line(tiny_plan: Path, tunewise: Run) -> Line:
    """Run the plan, press Ctrl-C in the middle of training, and go on with it to the end."""
    folder = tiny_plan.parent
    interrupted = interrupt(folder, "run", tiny_plan.name, "--out", "run")
    finished = tunewise("run", tiny_plan.name, "--out", "run", "--resume", "--json", cwd=folder)
    return Line(folder, folder / "run", tiny_plan, interrupted, finished)


def shrunk(plan: Path, small: Path, arms: tuple[str, ...] = ()) -> Path:
    """Write a plan with few rows and questions and short answers, of these arms only when any are named."""
    import yaml

    body = yaml.safe_load(plan.read_text("utf-8"))
    body["data"] |= {"max_examples": 16, "max_dev": 9, "max_test": 6}
    body["max_new_tokens"] = 20
    body["forgetting"] = {"prompts": 4, "max_new_tokens": 8}
    for step in body["steps"]:
        if step["kind"] == "train":
            step["epochs"] = 1.0 if step["rows"] == "plain" else 0.5
    if arms:
        body["steps"] = [s for s in body["steps"] if s["kind"] == "index" or s["arm"] in arms]
        body |= {"choice": arms[-1], "gate": {"must_beat": []}}
    small.write_text(yaml.safe_dump(body, sort_keys=False), "utf-8")
    return small


def listen() -> None:
    """Undo an inherited "ignore Ctrl-C", which shells give to what they start in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupt(folder: Path, *arguments: str) -> tuple[int, str]:
    """Start a run and press Ctrl-C at its first training step; return its exit code and stderr."""
    child = subprocess.Popen(
        command(*arguments),
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        preexec_fn=listen,
    )
    try:
        waited = time.monotonic()
        while not trained(folder / "run") and child.poll() is None and time.monotonic() - waited < LIMIT:
            time.sleep(0.1)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=LIMIT)
    finally:
        child.kill()
    return child.returncode, said


def trained(run: Path) -> bool:
    """Whether a training step has been logged."""
    log = run / "events.jsonl"
    return log.exists() and '"event": "train.step"' in log.read_text("utf-8")


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file."""
    return [json.loads(text) for text in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="session")
def read_rows() -> Callable[[Path], list[dict[str, Any]]]:
    """Return the reader of JSON lines."""
    return rows


@pytest.fixture(scope="session")
def shrink() -> Callable[..., Path]:
    """Return the maker of small plans."""
    return shrunk

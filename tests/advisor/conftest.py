"""Fixtures of the advisor's tests: data files, a machine, and runs of the command line."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runners.resources.machine import Detected, Machine
from tests.support.command_server import CommandServer

Run = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Files:
    """A small task: documents, examples in one style, held-out questions, a prompt."""

    folder: Path
    documents: Path
    examples: Path
    questions: Path
    prompt: Path


def example(number: int) -> dict[str, Any]:
    """Return an example in the style of one statement and one closing question."""
    return {
        "messages": [
            {"role": "user", "content": f"When does boat {number} sail?"},
            {
                "role": "assistant",
                "content": f"Boat {number} sails at {number % 12 + 1} o'clock. May I book it?",
            },
        ],
        "meta": {"doc_id": f"boat{number}.md"},
    }


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture
def task_files(tmp_path: Path) -> Files:
    """Write the files of a small task: 5 documents, 60 examples, 12 questions."""
    documents = tmp_path / "documents"
    documents.mkdir()
    for number in range(5):
        (documents / f"pier{number}.md").write_text(
            f"# Pier {number}\n\nPier {number} has {number + 3} berths.\n", "utf-8"
        )
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("Answer in one statement, then offer help in one question.\n", "utf-8")
    questions = [{"question": f"How many berths has pier {n}?", "answers": [str(n + 3)]} for n in range(12)]
    return Files(
        tmp_path,
        documents,
        write_rows(tmp_path / "examples.jsonl", [example(n) for n in range(60)]),
        write_rows(tmp_path / "questions.jsonl", questions),
        prompt,
    )


@pytest.fixture
def make_rows() -> Callable[[Path, list[dict[str, Any]]], Path]:
    """Return the writer of JSON lines."""
    return write_rows


@pytest.fixture
def make_example() -> Callable[[int], dict[str, Any]]:
    """Return the maker of numbered examples."""
    return example


@pytest.fixture
def laptop() -> Machine:
    """Return a machine without a GPU, described by hand."""
    values: Mapping[str, Any] = {
        "gpu_kind": "none",
        "gpu_count": 0,
        "gpu_memory_gib": 0.0,
        "gpu_name": "",
        "ram_gib": 16.0,
        "cpu_cores": 4,
        "disk_gib": 100.0,
        "bf16": False,
    }
    return Machine(**{name: Detected(value, "described by hand") for name, value in values.items()})


@pytest.fixture
def tunewise(command_server: CommandServer, root: Path, tmp_path: Path) -> Run:
    """Return a function that runs the command line in its own process, without a terminal, in the test's
    folder.
    """

    def run(*arguments: object, cwd: Path = tmp_path, **environ: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": str(root), "COLUMNS": "100", "NO_COLOR": "1", **environ}
        return command_server.run(*arguments, cwd=cwd, env=env)

    return run


@dataclass(frozen=True)
class CommandResult:
    """Exit code and output of one command line."""

    code: int
    out: str
    err: str


@pytest.fixture
def tunewise_each(tunewise: Run) -> Callable[..., list[CommandResult]]:
    """Return a function that runs several command lines one after the other, with streams of an encoding."""

    def run(*lines: str | list[str], encoding: str = "utf-8", **environ: str) -> list[CommandResult]:
        split = [line.split() if isinstance(line, str) else line for line in lines]
        done = [tunewise(*words, PYTHONIOENCODING=encoding, **environ) for words in split]
        return [CommandResult(each.returncode, each.stdout, each.stderr) for each in done]

    return run

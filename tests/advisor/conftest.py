"""Files and situations that the advisor's tests share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runners.machine import Found, Machine

Run = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Files:
    """A little desk: documents, examples in a house style, held-out questions, a prompt."""

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
def desk(tmp_path: Path) -> Files:
    """Write the little desk: 5 documents, 60 examples, 12 questions."""
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
    """A machine without a GPU, described by hand."""
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
    return Machine(**{name: Found(value, "described by hand") for name, value in values.items()})


@pytest.fixture
def tunewise(root: Path, tmp_path: Path) -> Run:
    """Run the command line in a process of its own, without a terminal, in a folder of the test."""

    def run(*arguments: object, cwd: Path = tmp_path, **environ: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": str(root), "COLUMNS": "100", "NO_COLOR": "1", **environ}
        line = [sys.executable, "-c", "from advisor.cli import main; main()", *map(str, arguments)]
        return subprocess.run(
            line,
            cwd=cwd,
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    return run

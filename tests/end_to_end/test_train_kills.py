"""`tunewise train` on the real model, killed three times: the adapter equals that of an undisturbed run."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_server import Command
from tests.support.limits import wait_until

pytestmark = [pytest.mark.real, pytest.mark.slow]

ROWS, KILLS, SEED = 12, 3, 7
FLAGS = (
    "--method",
    "lora",
    "--epochs",
    "4",
    "--seed",
    "5",
    "--dropout",
    "0.1",
    "--batch-tokens",
    "400",
    "--micro-tokens",
    "250",
    "--checkpoint-steps",
    "1",
    "--resume",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, example: Path) -> Path:
    """A folder with a few of the shipped examples."""
    folder = tmp_path_factory.mktemp("kills")
    rows = (example / "examples.jsonl").read_text("utf-8").splitlines(keepends=True)
    (folder / "rows.jsonl").write_text("".join(rows[:ROWS]), "utf-8")
    return folder


def test_training_killed_three_times_gives_equal_bytes(
    folder: Path, tunewise: Any, start_tunewise: Callable[..., Command]
) -> None:
    flags = ("train", "--examples", "rows.jsonl", *FLAGS)
    done = tunewise(*flags, "--out", "whole", cwd=folder)
    assert done.returncode == 0, done.stderr
    rng, exit_codes = random.Random(SEED), []
    for _ in range(KILLS):
        child = start_tunewise(*flags, "--out", "killed", cwd=folder)
        try:
            wait_for_training(folder / ".killed.work", child)
            time.sleep(rng.uniform(0.5, 4.0))
        finally:
            child.kill()
            child.communicate()
        exit_codes.append(child.returncode)
    assert exit_codes == [-signal.SIGKILL] * KILLS
    assert list((folder / ".killed.work").glob("step-*")), "every kill came before the first checkpoint"
    done = tunewise(*flags, "--out", "killed", cwd=folder)
    assert done.returncode == 0, done.stderr
    for name in ("adapter_model.safetensors", "training.jsonl"):
        assert (folder / "killed" / name).read_bytes() == (folder / "whole" / name).read_bytes(), name


def wait_for_training(work: Path, child: Command) -> None:
    """Wait until a run is about to take its first step."""
    wait_until(lambda: (work / "choices.json").exists() or child.poll() is not None)
    assert child.poll() is None

"""A run killed anywhere ends as the one that nobody touched: the same adapter, byte for byte, and the same log.

Children are killed by SIGKILL at seeded points: half of them after a delay, wherever that is, and half before the
n-th operation on files, which is inside a checkpoint, a rotation, the best weights or the publishing.
"""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from runners.data.examples import Example
from runners.models.resolve import Model
from runners.train import work_folder
from runners.training import checkpoint

KILLS, DEEP_KILLS, SEED = 20, 300, 20261125
OPERATIONS, SHARE = 240, 0.6
"""A session is killed within so many operations (a whole run has about 480), or within this share of its time."""
CONFIG = {
    "epochs": 2.0,
    "rank": 4,
    "alpha": 8.0,
    "learning_rate": 1e-2,
    "dropout": 0.1,
    "batch_tokens": 400,
    "micro_tokens": 240,
    "checkpoint_steps": 1,
    "eval_steps": 2,
    "patience": 9,
}
MADE = ("adapter_model.safetensors", "training.jsonl")


@dataclass
class Bench:
    """The run that is killed again and again."""

    warm: Any
    folder: Path
    order: dict[str, Any]
    seconds: float = 0.0
    """What the whole run takes."""
    places: Counter[str] = field(default_factory=Counter)
    """Where kills fell."""

    def session(self, out: Path, kill: tuple[str, float] | None = None) -> int:
        """Begin or go on with a run, killed at a delay in seconds or at an operation; return its exit code."""
        order: dict[str, Any] = {"fit": {**self.order, "out": str(out)}, "log": str(self.folder / "log")}
        if kill and kill[0] == "operation":
            order |= {"die_at": int(kill[1]), "under": str(self.folder)}
        elif kill:
            order["die_after"] = kill[1]
        self.warm.start(**order)
        code = int(self.warm.wait())
        assert code in (0, -signal.SIGKILL), (self.folder / "log").read_text("utf-8")
        return code

    def made(self, out: Path) -> list[bytes]:
        """Return what a finished run must have in common with every other."""
        return [(out / name).read_bytes() for name in MADE]


@pytest.fixture(scope="module")
def bench(
    warm: Any, tiny: Model, examples: Sequence[Example], tmp_path_factory: pytest.TempPathFactory
) -> Bench:
    """The run's folder, with a run in it that nobody touched."""
    folder = tmp_path_factory.mktemp("kills")
    (folder / "rows.json").write_text(json.dumps([e.messages for e in examples]), "utf-8")
    order = {"rows": str(folder / "rows.json"), "valid": 6, "model": str(tiny.folder), "config": CONFIG}
    bench = Bench(warm, folder, order)
    started = time.monotonic()
    assert bench.session(folder / "whole") == 0
    bench.seconds = time.monotonic() - started
    assert [json.loads(line) for line in bench.made(folder / "whole")[1].splitlines()]
    return bench


def newest(work: Path) -> int:
    """Return the step of the newest whole checkpoint, 0 without any."""
    folder, _ = checkpoint.newest_checkpoint(work)
    return checkpoint.read_progress(folder).step if folder else 0


def place(out: Path) -> str:
    """Say what a killed process was at, from what it left."""
    work = work_folder(out)
    if out.exists():
        return "cleaning up"
    left = sorted(p.name for p in work.glob(".*") if p.is_dir()) if work.exists() else []
    if any(name.startswith(".step") and name.endswith(".tmp") for name in left):
        return "in a checkpoint"
    if any(name.startswith(".best") and name.endswith(".tmp") for name in left):
        return "in the best weights"
    if (
        any(name.endswith(".old") for name in left)
        or len(list(work.glob("step-*"))) > checkpoint.KEPT_CHECKPOINTS
    ):
        return "in rotation"
    if (work / "out").exists():
        return "in publishing"
    return "in a step" if newest(work) else "before the first checkpoint"


def kill_again_and_again(bench: Bench, kills: int, seed: int) -> None:
    """Kill runs so many times in all, comparing each one that comes to its end with the untouched one."""
    chance = random.Random(seed)
    done, number = 0, 0
    while done < kills:
        number += 1
        out, code, reached = bench.folder / f"run{number}", -1, 0
        while code != 0:
            kill = None
            if done < kills and chance.random() < 0.5:
                kill = ("delay", chance.uniform(0, SHARE * bench.seconds))
            elif done < kills:
                kill = ("operation", chance.randint(1, OPERATIONS))
            code = bench.session(out, kill)
            if code:
                done += 1
                bench.places[place(out)] += 1
                assert out.exists() or newest(work_folder(out)) >= reached, (
                    f"{kill}: a whole checkpoint was lost"
                )
                reached = newest(work_folder(out))
        assert bench.made(out) == bench.made(bench.folder / "whole"), f"seed {seed}, run {number}"
        assert not work_folder(out).exists()
    print(f"\n{kills} kills, seed {seed}, {number} runs: {dict(bench.places)}")


def test_a_run_killed_anywhere_ends_as_the_untouched_one(bench: Bench) -> None:
    kill_again_and_again(bench, KILLS, SEED)
    assert sum(bench.places.values()) == KILLS
    assert bench.places["in a checkpoint"] + bench.places["in rotation"] > 0


@pytest.mark.slow
def test_three_hundred_kills(bench: Bench) -> None:
    bench.places.clear()
    kill_again_and_again(bench, DEEP_KILLS, SEED + 1)
    assert bench.places["in rotation"] > 0

"""A run killed anywhere resumes to the result of an uninterrupted run: the same adapter, byte for byte, and log.

Children are killed by SIGKILL at seeded points: half of them after a delay, half before the n-th operation on files,
which is inside a checkpoint, a rotation, the best weights or the publishing.
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

KILLS = 6
ROUNDS = 4
"""Most draws of kills until one was killed while it wrote a checkpoint."""
SLOW_KILLS = 300
SEED = 20261125
OPERATIONS = 240
"""A session is killed within this many operations on files (a whole run has about 480)."""
SHARE = 0.6
"""Or within this share of the time of a whole run."""
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
COMPARED_FILES = ("adapter_model.safetensors", "training.jsonl")


@dataclass
class KilledRun:
    """A training run that is killed repeatedly."""

    warm: Any
    folder: Path
    order: dict[str, Any]
    seconds: float = 0.0
    """Time of the uninterrupted run."""
    kill_points: Counter[str] = field(default_factory=Counter)
    """What the run was doing when it was killed."""

    def session(self, out: Path, kill: tuple[str, float] | None = None) -> int:
        """Start or resume a run, killed after a delay in seconds or at an operation; return its exit code."""
        order: dict[str, Any] = {"fit": {**self.order, "out": str(out)}, "log": str(self.folder / "log")}
        if kill and kill[0] == "operation":
            order |= {"die_at": int(kill[1]), "under": str(self.folder)}
        elif kill:
            order["die_after"] = kill[1]
        self.warm.start(**order)
        code = int(self.warm.wait())
        assert code in (0, -signal.SIGKILL), (self.folder / "log").read_text("utf-8")
        return code

    def results(self, out: Path) -> list[bytes]:
        """Return the files that must be identical in every finished run."""
        return [(out / name).read_bytes() for name in COMPARED_FILES]


@pytest.fixture(scope="module")
def killed_run(
    warm: Any, tiny: Model, examples: Sequence[Example], tmp_path_factory: pytest.TempPathFactory
) -> KilledRun:
    """The run, with the result of an uninterrupted one in its folder."""
    folder = tmp_path_factory.mktemp("kills")
    (folder / "rows.json").write_text(json.dumps([e.messages for e in examples]), "utf-8")
    order = {"rows": str(folder / "rows.json"), "valid": 6, "model": str(tiny.folder), "config": CONFIG}
    run = KilledRun(warm, folder, order)
    started = time.monotonic()
    assert run.session(folder / "whole") == 0
    run.seconds = time.monotonic() - started
    assert [json.loads(line) for line in run.results(folder / "whole")[1].splitlines()]
    return run


def newest(work: Path) -> int:
    """Return the step of the newest undamaged checkpoint, 0 without any."""
    folder, _ = checkpoint.newest_checkpoint(work)
    return checkpoint.read_progress(folder).step if folder else 0


def kill_point(out: Path) -> str:
    """Return what a killed process was doing, from the files it left."""
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


def kill_repeatedly(run: KilledRun, kills: int, seed: int) -> None:
    """Kill runs ``kills`` times in all, and compare each one that ends with the uninterrupted one."""
    chance = random.Random(seed)
    done, number = 0, 0
    while done < kills:
        number += 1
        out, code, reached = run.folder / f"run{number}", -1, 0
        while code != 0:
            kill = None
            if done < kills and chance.random() < 0.5:
                kill = ("delay", chance.uniform(0, SHARE * run.seconds))
            elif done < kills:
                kill = ("operation", chance.randint(1, OPERATIONS))
            code = run.session(out, kill)
            if code:
                done += 1
                run.kill_points[kill_point(out)] += 1
                assert out.exists() or newest(work_folder(out)) >= reached, (
                    f"{kill}: a whole checkpoint was lost"
                )
                reached = newest(work_folder(out))
        assert run.results(out) == run.results(run.folder / "whole"), f"seed {seed}, run {number}"
        assert not work_folder(out).exists()
    print(f"\n{kills} kills, seed {seed}, {number} runs: {dict(run.kill_points)}")


def test_run_killed_anywhere_resumes_to_identical_result(killed_run: KilledRun) -> None:
    """Half of the delays follow the speed of the machine: where no kill hit a checkpoint, further runs are killed."""
    points = killed_run.kill_points
    for round_number in range(ROUNDS):
        kill_repeatedly(killed_run, KILLS, SEED + 10 * round_number)
        assert sum(points.values()) == KILLS * (round_number + 1)
        if points["in a checkpoint"] + points["in rotation"]:
            break
    assert points["in a checkpoint"] + points["in rotation"] > 0


@pytest.mark.slow
def test_three_hundred_kills_resume_to_identical_result(killed_run: KilledRun) -> None:
    killed_run.kill_points.clear()
    kill_repeatedly(killed_run, SLOW_KILLS, SEED + 1)
    assert killed_run.kill_points["in rotation"] > 0

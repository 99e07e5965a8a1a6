"""Time and memory of a trial of several models against those of a trial of each model alone.

    python -m benchmarks.model_grid PLAN OUT

PLAN is a plan with ``models``. It is run as it is, then once for each of its models with that model's arms alone, each in a
process of its own into a folder of OUT. Printed are the seconds and the largest resident memory of each process, and the
ratios of the grid: its seconds to the sum of the parts, its memory to the largest of them. An index is built in each, as a
user of single trials would have it. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from runners.plan.arm_names import split_arm
from runners.plan.schema import ArmStep, Plan, read_plan, write_plan

KIB = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRun:
    """What one run took."""

    name: str
    seconds: float
    gib: float
    """Largest resident memory of the process."""


def part_of(plan: Plan, alias: str) -> Plan:
    """Return the plan with the arms of one model alone, which the first of them is held to account for."""
    steps = tuple(
        step for step in plan.steps if not isinstance(step, ArmStep) or split_arm(step.arm)[1] == alias
    )
    part = plan.model_copy(update={"steps": steps, "name": f"{plan.name}-{alias}", "predicted": {}})
    gate = plan.gate.model_copy(update={"must_beat": ()})
    return part.model_copy(
        update={"choice": part.arms[-1].arm, "gate": gate, "models": plan.models, "model": plan.models[alias]}
    )


def run_alone(plan: Plan, folder: Path) -> MeasuredRun:
    """Run a plan in a process of its own, its output in a file beside the run, and measure it."""
    file = folder / f"{plan.name}.yaml"
    write_plan(plan, file)
    command = [sys.executable, "-m", "advisor", "run", str(file), "--out", str(folder / plan.name)]
    started = time.monotonic()
    with (folder / f"{plan.name}.log").open("wb") as log:
        process = subprocess.Popen([*command, "--accept-failing-gold"], stdout=log, stderr=log)
        _, status, used = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    if (code := os.waitstatus_to_exitcode(status)) not in (0, 5):
        raise SystemExit(f"{plan.name} ended with exit code {code}: see {log.name}")
    return MeasuredRun(name=plan.name, seconds=seconds, gib=used.ru_maxrss * KIB / 2**30)


def main() -> None:
    """Run the grid and its parts, and print what they took."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("plan", type=Path)
    arguments.add_argument("out", type=Path)
    given = arguments.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    plan = read_plan(given.plan)
    grid = run_alone(plan, given.out)
    parts = [run_alone(part_of(plan, alias), given.out) for alias in plan.models]
    for run in (grid, *parts):
        print(f"{run.name:<30} {run.seconds:7.0f} s  {run.gib:5.2f} GiB")
    seconds, memory = sum(part.seconds for part in parts), max(part.gib for part in parts)
    print(f"time of the grid to the sum of its parts: {grid.seconds / seconds:.2f}")
    print(f"memory of the grid to the largest part: {grid.gib / memory:.2f}")


if __name__ == "__main__":
    main()

"""Time and memory of a trial of several models against those of a trial of each model alone.

    python -m benchmarks.model_grid PLAN OUT

PLAN is a plan with ``models``. It is run as it is, then once for each of its models with that model's arms alone, each in a
process of its own into a folder of OUT. Printed are the seconds and the largest resident memory of each process, and the
ratios of the grid: its seconds to the sum of the parts, its memory to the largest of them. An index is built in each, as a
user of single trials would have it. Nothing else should run meanwhile.

    python -m benchmarks.model_grid --record RUN NAME

takes the arms of a finished run into model_grids.json, from which docs/accuracy.md has its table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rag.files import write_text
from runners.plan.arm_names import split_arm
from runners.plan.schema import ArmStep, Plan, read_plan, write_plan

RECORD = Path(__file__).with_name("model_grids.json")
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


def record(run: Path, name: str) -> None:
    """Write the right answers and costs of a run's arms into the record."""
    report = json.loads((run / "report.json").read_text("utf-8"))
    arms = {}
    for arm in report["arms"]:
        cost, right = arm.get("cost_per_right") or {}, arm["right"]
        arms[arm["arm"]] = {
            "right": right["n"],
            "of": right["of"],
            "in_usd": bool(cost.get("in_usd")),
            "cost": cost.get("usd") if cost.get("in_usd") else cost.get("seconds"),
            "low": cost.get("low"),
            "high": cost.get("high"),
        }
    verdict = report["verdict"]
    sets = json.loads(RECORD.read_text("utf-8")) if RECORD.exists() else {}
    sets[name] = {
        "date": str(report["environment"]["date"])[:10],
        "models": report["models"],
        "outcome": verdict["outcome"],
        "said": " ".join(verdict.get("three_answers", ())[:2])
        or f"no arm can be used: {verdict['use_reason']}.",
        "arms": arms,
    }
    write_text(RECORD, json.dumps(sets, indent=1, ensure_ascii=False) + "\n")


def main() -> None:
    """Run the grid and its parts, and print what they took; or record a finished run."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("plan", help="the plan; with --record the run")
    arguments.add_argument("out", help="the folder of the runs; with --record the name of the set")
    arguments.add_argument("--record", action="store_true")
    given = arguments.parse_args()
    if given.record:
        record(Path(given.plan), given.out)
    else:
        compare(Path(given.plan), Path(given.out))


def compare(plan_file: Path, out: Path) -> None:
    """Run the grid and its parts, and print what they took."""
    out.mkdir(parents=True, exist_ok=True)
    plan = read_plan(plan_file)
    grid = run_alone(plan, out)
    parts = [run_alone(part_of(plan, alias), out) for alias in plan.models]
    for run in (grid, *parts):
        print(f"{run.name:<30} {run.seconds:7.0f} s  {run.gib:5.2f} GiB")
    seconds, memory = sum(part.seconds for part in parts), max(part.gib for part in parts)
    print(f"time of the grid to the sum of its parts: {grid.seconds / seconds:.2f}")
    print(f"memory of the grid to the largest part: {grid.gib / memory:.2f}")


if __name__ == "__main__":
    main()

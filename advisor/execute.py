"""From a plan file to a printed verdict: what `tunewise run` and `tunewise demo` share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rag.errors import GateNotMet, UsageProblem
from runners.plan import Plan, read_plan
from runners.rundir import PLAN, RunFolder, read_run_plan


def execute(
    path: Path,
    out: Path | None,
    resume: bool,
    overwrite: bool,
    quick: bool,
    only: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run a plan file, or go on with a run folder, and print the verdict."""
    from advisor.show import show_report
    from runners.run import quick as quicker

    if resume and overwrite:
        raise UsageProblem("--resume and --overwrite exclude each other", "choose one")
    if (path / PLAN).is_file():
        plan, out, resume = read_run_plan(path), out or path, not overwrite
    else:
        plan = read_plan(path)
        plan = quicker(plan) if quick else plan
        out = out or Path("runs") / plan.name
    if dry_run:
        show_steps(plan)
        return
    with resumable(f"tunewise run {path} --out {out} --resume" + (" --quick" if quick else "")):
        run, data = run_and_report(plan, out, resume, overwrite, only, quiet=as_json)
    if data is None:
        return
    if as_json:
        print(json.dumps(data, ensure_ascii=False))
    else:
        show_report(data)
        print(f'report: {run.path / "report.html"}\nask it: tunewise ask {run.path} "..."')
    check_gate(data)


def run_and_report(
    plan: Plan, out: Path, resume: bool, overwrite: bool, only: str | None = None, quiet: bool = False
) -> tuple[RunFolder, dict[str, Any] | None]:
    """Run every step with progress on stderr, then judge and write the report; None when there is nothing to judge."""
    from advisor.progress import watching
    from advisor.report import write_report
    from advisor.running import board_of
    from runners.run import read_data, run_plan

    with watching(quiet, lambda: board_of(plan, out, only)) as watcher:
        run = run_plan(plan, out, resume, overwrite, only, watcher)
    if only is not None or plan.choice not in {arm.arm for arm in plan.arms}:
        return run, None
    return run, write_report(run, plan, read_data(plan)[1].test)


def check_gate(data: dict[str, Any]) -> None:
    """Raise GateNotMet when the recommended arm surely does not beat what the plan says it must."""
    verdict = data["verdict"]
    if verdict["gate_met"] is False:
        raise GateNotMet(
            f"the gate was not met: {verdict['recommended']} does not beat the arms it must",
            f"the results are kept; the arm to use is {verdict['winner']}",
        )


def show_steps(plan: Plan) -> None:
    """Print the plan's steps with an estimate of each one's time on this machine, after checking the data."""
    from advisor.timing import schedule
    from runners.run import read_data

    examples, split = read_data(plan)
    total = 0.0
    for name, seconds in schedule(plan, len(examples), len(split.test)):
        total += seconds
        print(f"  {name:<24} about {words(seconds)}")
    print(f"  {'together':<24} about {words(total)}")
    print(f"  {len(examples)} examples, {len(split.dev)} dev and {len(split.test)} test questions")


def words(seconds: float) -> str:
    """Seconds as a person says them."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


@contextmanager
def resumable(line: str) -> Iterator[None]:
    """When interrupted, say that progress is kept and how to go on."""
    import sys

    try:
        yield
    except KeyboardInterrupt:
        print(f"\ninterrupted; finished steps are kept. Go on with:\n  {line}", file=sys.stderr)
        raise

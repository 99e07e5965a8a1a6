"""From a plan file to a printed verdict: what `tunewise run` and `tunewise demo` share."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.errors import GateNotMet, UsageProblem
from runners.plan import Plan, read_plan
from runners.rundir import PLAN, RunFolder, read_run_plan

if TYPE_CHECKING:
    from advisor.remembering import Label


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
    from advisor.accounting import beside
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
        from advisor.rehearsing import dry_run as measure

        measure(plan, out, as_json)
        return
    with resumable(f"tunewise run {path} --out {out} --resume" + (" --quick" if quick else "")):
        run, data = run_and_report(plan, out, resume, overwrite, only, quiet=as_json)
    if data is None:
        return
    if as_json:
        print(json.dumps(data, ensure_ascii=False))
    else:
        show_report(data)
        for line in beside(data):
            print(f"  {line}")
        print(f'report: {run.path / "report.html"}\nask it: tunewise ask {run.path} "..."')
    check_gate(data)


def run_and_report(
    plan: Plan, out: Path, resume: bool, overwrite: bool, only: str | None = None, quiet: bool = False,
    label: Label = "run",
) -> tuple[RunFolder, dict[str, Any] | None]:  # fmt: skip
    """Run every step with progress on stderr, then judge and write the report; None when there is nothing to judge.

    A run that was judged is kept in the user's own history, as ``label``.
    """
    from advisor.progress import watching
    from advisor.remembering import remember
    from advisor.report import write_report
    from runners.run import read_data, run_plan

    with watching(quiet) as watcher:
        run = run_plan(plan, out, resume, overwrite, only, watcher)
    if only is not None or plan.choice not in {arm.arm for arm in plan.arms}:
        return run, None
    data = write_report(run, plan, read_data(plan)[1].test)
    if trouble := remember(run, plan, data, label):
        print(f"  {trouble}", file=sys.stderr)
    return run, data


def check_gate(data: dict[str, Any]) -> None:
    """Raise GateNotMet when the recommended arm surely does not beat what the plan says it must."""
    verdict = data["verdict"]
    if verdict["gate_met"] is False:
        raise GateNotMet(
            f"the gate was not met: {verdict['recommended']} does not beat the arms it must",
            f"the results are kept; the arm to use is {verdict['winner']}",
        )


@contextmanager
def resumable(line: str, what: str = "finished steps") -> Iterator[None]:
    """When interrupted, say that progress is kept and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\ninterrupted; {what} are kept. Go on with:\n  {line}", file=sys.stderr)
        raise

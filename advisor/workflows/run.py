"""From a plan file to a printed verdict: what `tunewise run` and `tunewise demo` share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.output import command_line, emit_result, note
from advisor.terminal import resume_hint
from rag.errors import GateNotMet, UsageProblem
from runners.plan.schema import Plan, read_plan
from runners.plan.train_config import KERNELS
from runners.run_folder import RunFolder, is_run, read_run_plan

if TYPE_CHECKING:
    from advisor.verdict.predictions import RunLabel


def execute_plan(
    path: Path,
    out: Path | None,
    resume: bool,
    overwrite: bool,
    quick: bool,
    only: str | None,
    dry_run: bool,
    as_json: bool,
    stale_test: Path | None = None,
    seeds: int | None = None,
    kernels: str | None = None,
) -> None:
    """Run a plan file, or go on with a run folder, and print the verdict; then test an update of the documents."""
    from advisor.display.trial_table import show_report
    from advisor.verdict.predictions import prediction_line
    from runners.plan.schema import with_seeds
    from runners.trial.execute import quick_plan

    if resume and overwrite:
        raise UsageProblem("--resume and --overwrite exclude each other", "choose one")
    if seeds is not None and quick:
        raise UsageProblem("--quick trains one seed", "leave out --quick, or --seeds")
    if kernels is not None:
        check_kernels(kernels, path)
    if is_run(path):
        if seeds is not None:
            raise UsageProblem(
                f"{path} keeps the seeds it was begun with", "give the plan's file with --seeds"
            )
        plan, out, resume = read_run_plan(path), out or path, not overwrite
    else:
        plan = read_plan(path)
        plan = quick_plan(plan) if quick else plan
        plan = with_seeds(plan, seeds) if seeds is not None else plan
        plan = plan.model_copy(update={"kernels": kernels}) if kernels is not None else plan
        out = out or Path("runs") / plan.name
    stale = check_stale_test(plan, stale_test, only)
    if dry_run:
        from advisor.workflows.dry_run import dry_run as measure

        measure(plan, out, as_json)
        return
    flags = [*(["--quick"] if quick else ()), *(["--seeds", seeds] if seeds is not None else ())]
    flags += ["--kernels", kernels] if kernels is not None else []
    announce_downloads(plan)
    with resume_hint(command_line("run", path, "--out", out, "--resume", *flags, *stale)):
        run, data = run_and_report(plan, out, resume, overwrite, only, quiet=as_json)
        if data is not None and stale_test is not None:
            data = report_staleness(run, plan, stale_test)
    if data is None:
        return
    if as_json:
        emit_result(data)
    else:
        show_report(data)
        for line in prediction_line(data):
            print(f"  {line}")
        print(f'report: {run.path / "report.html"}\nask it: {command_line("ask", run.path)} "..."')
    check_gate(data)


def check_kernels(kernels: str, path: Path) -> None:
    """Raise UsageProblem for a value of --kernels that is unknown, or for a run folder, whose plan is fixed."""
    if kernels not in KERNELS:
        raise UsageProblem(f"--kernels {kernels} is unknown", f"choose one of {', '.join(KERNELS)}")
    if is_run(path):
        raise UsageProblem(
            f"{path} keeps the kernels it was begun with", "give the plan's file with --kernels"
        )


def announce_downloads(plan: Plan) -> None:
    """Say what a plan would fetch first, how large and from where; CannotRun when there is no room for it."""
    from runners.models import resolve
    from runners.runs import requirements

    fetches = requirements.plan_downloads(plan)
    for fetch in fetches:
        note(f"not here yet, fetched first: {fetch.text}")
    resolve.check_cache_space(fetches)


def run_and_report(
    plan: Plan,
    out: Path,
    resume: bool,
    overwrite: bool,
    only: str | None = None,
    quiet: bool = False,
    label: RunLabel = "run",
) -> tuple[RunFolder, dict[str, Any] | None]:
    """Run every step with progress on stderr, then judge and write the report; None when there is nothing to judge.

    A run that was judged is kept in the user's own history, as ``label``.
    """
    from advisor.display.live_scores import board_for_plan
    from advisor.display.progress import watch_progress
    from advisor.report.report import judge
    from advisor.verdict.predictions import remember_run
    from runners.trial.execute import run as carry_out

    with watch_progress(quiet, lambda: board_for_plan(plan, out, only)) as watcher:
        done = carry_out(plan, out, resume=resume, overwrite=overwrite, only=only, on_event=watcher)
    run = done.folder
    if only is not None or plan.choice not in {arm.arm for arm in plan.arms}:
        return run, None
    data = dict(judge(done).data)
    if trouble := remember_run(run, plan, data, label):
        print(f"  {trouble}", file=sys.stderr)
    return run, data


def check_stale_test(plan: Plan, update: Path | None, only: str | None) -> tuple[object, ...]:
    """Check the update of --stale-test before anything is spent; return the flag as the resume line needs it."""
    if update is None:
        return ()
    from runners.trial.staleness import check_update

    if only is not None:
        raise UsageProblem("--stale-test asks finished arms, --only runs one step", "leave one of them out")
    check_update(plan, update)
    return "--stale-test", update


def report_staleness(run: RunFolder, plan: Plan, update: Path) -> dict[str, Any]:
    """Ask what an update of the documents changes, and write the report again with it."""
    from advisor.report.report import write_report
    from runners.runs.dataset import read_data
    from runners.trial.staleness import try_update

    with run.writing():
        try_update(run, update)
    return write_report(run, plan, read_data(plan)[1].test)


def check_gate(data: dict[str, Any]) -> None:
    """Raise GateNotMet when the recommended arm surely does not beat what the plan says it must."""
    verdict = data["verdict"]
    if verdict["gate_met"] is False:
        raise GateNotMet(
            f"the gate was not met: {verdict['recommended']} does not beat the arms it must",
            f"the results are kept; the arm to use is {verdict['winner']}",
        )

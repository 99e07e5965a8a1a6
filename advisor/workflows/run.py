"""The work behind ``tunewise run``: from a plan file to a printed verdict; parts are shared with ``tunewise demo``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from advisor.output import command_line, emit_result, note, print_plain
from advisor.terminal import resume_hint
from advisor.workflows.launch import GivenCommand, LaunchRequest, Work, settle_resumption, start_launcher
from rag.errors import GateNotMet, UsageProblem
from runners.plan.forecast import forecast_path
from runners.plan.schema import Plan, read_plan
from runners.plan.train_config import KERNELS
from runners.report.report_file import report_json
from runners.report.trial_report import TrialReport
from runners.run_folder import LAUNCH, RunFolder, check_run_folder, is_run, paths_read, read_run_plan
from runners.runs.listing import RUNS_FOLDER

if TYPE_CHECKING:
    from advisor.verdict.predictions import RunLabel
    from runners.runs.run import Run
    from runners.tracking.tracking import RunTracking


@dataclass(frozen=True, slots=True)
class FullRun:
    """The plan that a quick run shortened, and the command that carries it out in full."""

    plan: Plan
    command: str

    def record(self, run: RunFolder) -> None:
        """Write the command and the estimated minutes into the quick run's log, for its report."""
        from advisor.report.data import FULL_RUN_EVENT
        from advisor.workflows.dry_run import step_estimates
        from runners.runs.dataset import read_data

        examples, split = read_data(self.plan)
        rows, _ = step_estimates(self.plan, len(examples), len(split.test))
        minutes = round(sum(row.corrected for row in rows) / 60, 1)
        run.write({"event": FULL_RUN_EVENT, "command": self.command, "minutes": minutes})


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
    accept_lost_rows: bool = False,
    launch: LaunchRequest | None = None,
    backend: Sequence[str] | None = None,
) -> None:
    """Run a plan file, or resume a run folder, and print the verdict; with a launcher, start the processes that do.

    Args:
        path: a plan file or a run folder.
        out: the run folder; None for runs/NAME.
        resume: whether to continue after the last finished step.
        overwrite: whether to replace an existing run folder.
        quick: whether to use fewer questions and rows, and one epoch.
        only: name of the only step to run, None for all.
        dry_run: whether to only check everything and measure a little of each step.
        as_json: whether to print the report as JSON.
        stale_test: folder with an update of the documents to test after the trial, or None.
        seeds: training runs of each tuned arm; None for the plan's number.
        kernels: auto or plain; None for the plan's choice.
        accept_lost_rows: whether to train arms of which under two thirds of the rows are left or have a passage.
        launch: the flags of a launcher, and the command line for it; None without.
        backend: the servers that generate the answers, as the values of ``--backend``; None for the plan's.

    Raises:
        UsageProblem: for options that exclude each other.
        GateNotMet: when the recommended arm does not meet the plan's gate, or no arm can be used; the results are kept.
    """
    resume, overwrite = settle_resumption(resume, overwrite)
    plan = _with_backend(_read_plan(path, quick, seeds, kernels), backend)
    out, resume = (out or path, not overwrite) if is_run(path) else (out, resume)
    out = _run_folder(out, plan)
    stale = check_stale_test(plan, stale_test, only)
    if launch is not None:
        start_launcher(launch.flags, _launched_work(launch.command, path, plan, out, resume, overwrite))
        return
    if dry_run:
        _measure_steps(plan, out, as_json, accept_lost_rows)
        return
    announce(plan)
    whole = _full_run(path, out, kernels, backend) if quick and not is_run(path) else None
    flags = (*_repeated_flags(quick, seeds, kernels, accept_lost_rows), *backend_flags(backend), *stale)
    with resume_hint(command_line("run", path, "--out", out, "--resume", *flags)):
        run, report = run_and_report(
            plan, out, resume, overwrite, only, as_json, "run", accept_lost_rows, whole
        )
        if report is not None and stale_test is not None:
            report = report_staleness(run, plan, stale_test)
    if report is not None:
        _show_result(run, report, as_json)


def _launched_work(
    command: GivenCommand, path: Path, plan: Plan, out: Path, resume: bool, overwrite: bool
) -> Work:
    """Return what a launcher's processes carry out."""

    def make_way(remove: bool) -> None:
        if remove:
            RunFolder.create(
                out, plan, overwrite=True
            )  # with the plan, which may lie in the folder that is replaced
        else:
            check_run_folder(out, plan, resume, overwrite)

    answer = plan.answers.get("gpu_count")
    return Work(
        command,
        out,
        out / LAUNCH,
        out,
        make_way,
        overwrite and out.exists(),
        (path, forecast_path(path), *paths_read(plan)),
        int(answer.value) if answer is not None and answer.value else None,
    )


def _full_run(path: Path, out: Path, kernels: str | None, backend: Sequence[str] | None) -> FullRun:
    """Return the full run of a plan file that a quick run shortens, in a folder beside that of the quick run."""
    flags = [*(["--kernels", kernels] if kernels is not None else []), *backend_flags(backend)]
    return FullRun(read_plan(path), command_line("run", path, "--out", f"{out}-full", *flags))


def backend_flags(backend: Sequence[str] | None) -> list[str]:
    """Return the flags that a command must repeat to ask the same servers."""
    return [part for entry in backend or () for part in ("--backend", entry)]


def _with_backend(plan: Plan, backend: Sequence[str] | None) -> Plan:
    """Return the plan with the servers of --backend, which may change when a run goes on."""
    if backend is None:
        return plan
    from runners.runs.run import chosen_backend

    return plan.model_copy(update={"backend": chosen_backend(plan, backend).entries})


def _run_folder(out: Path | None, plan: Plan) -> Path:
    """Return the run folder; UsageProblem for one in a folder that does not exist, unless that is the default one, runs."""
    if out is not None and out.parent != RUNS_FOLDER and not out.parent.is_dir():
        raise UsageProblem(f"--out {out}: there is no folder {out.parent}", "make it first, or name another")
    return out or RUNS_FOLDER / plan.name


def _repeated_flags(
    quick: bool, seeds: int | None, kernels: str | None, accept_lost_rows: bool
) -> list[object]:
    """Return the flags that a command to resume must repeat."""
    from advisor.workflows.tracking import track_flags

    flags: list[object] = ["--quick"] if quick else []
    flags += ["--seeds", seeds] if seeds is not None else []
    flags += ["--kernels", kernels] if kernels is not None else []
    return flags + (["--accept-lost-rows"] if accept_lost_rows else []) + track_flags()


def _measure_steps(plan: Plan, out: Path, as_json: bool, accept_lost_rows: bool) -> None:
    """Carry out ``tunewise run --dry-run``."""
    from advisor.workflows.dry_run import dry_run

    dry_run(plan, out, as_json, accept_lost_rows)


def _show_result(run: RunFolder, report: TrialReport, as_json: bool) -> None:
    """Print the report as JSON or for a person, then raise GateNotMet as :func:`check_gate` does."""
    if as_json:
        emit_result(report_json(report))
    else:
        _show_verdict(run, report)
    check_gate(report)


def _show_verdict(run: RunFolder, report: TrialReport) -> None:
    """Print the report's table and verdict, the prediction beside it, and what to do next."""
    from advisor.display import console
    from advisor.display.trial_table import show_report
    from advisor.report.html import learning_curve_steps
    from advisor.verdict.predictions import prediction_line

    show_report(report)
    for line in prediction_line(report):
        print_plain(console.console(), f"  {line}")
    print(f'report: {run.path / "report.html"}\nask it: {ask_command(run.path, report)} "..."')
    changing = read_run_plan(run.path).answers.get("facts_change")
    if changing is not None and changing.value in ("slow", "fast"):
        print(
            f"when the documents change, check whether the result is still valid: {command_line('recheck', run.path)}"
        )
    for command, _ in learning_curve_steps(report, shlex.quote(str(run.path))):
        print(f"would more examples help: {command}")


def ask_command(run: Path, report: TrialReport) -> str:
    """Return the start of a command that asks a run; it names the arm with the best score where none is asked by default."""
    return command_line("ask", run, *([] if report.verdict.use else ["--arm", report.arms[0].arm]))


def check_kernels(kernels: str, path: Path) -> None:
    """Raise UsageProblem for an unknown value of --kernels, or for a run folder, whose plan is fixed."""
    if kernels not in KERNELS:
        raise UsageProblem(f"--kernels {kernels} is unknown", f"choose one of {', '.join(KERNELS)}")
    if is_run(path):
        raise UsageProblem(
            f"{path} was started with other kernels and keeps them", "give the plan's file with --kernels"
        )


def announce(plan: Plan) -> None:
    """Print what a plan downloads first and about how long it takes."""
    announce_downloads(plan)
    announce_time(plan)


def announce_downloads(plan: Plan) -> None:
    """Print what a plan downloads first, how large and from where.

    Raises:
        CannotRun: the licence of a model was not accepted, or the disk has no space.
    """
    from runners.models import resolve
    from runners.runs import requirements

    downloads = requirements.plan_downloads(plan)
    for download in downloads:
        note(f"not here yet, fetched first: {download.text}")
    resolve.check_licenses(downloads)
    resolve.check_cache_space(downloads)


def adapt_threads() -> None:
    """Let idle threads sleep sooner where other processes use this machine, and say so; called before torch is imported."""
    from runners.resources.usage import adapt_spinning_to_load

    if adapt_spinning_to_load():
        note("other processes use this machine: idle threads give up the processor sooner")


def announce_time(plan: Plan) -> None:
    """Print about how long the steps of a plan take, with the speed of its trainings measured on this machine.

    Nothing is printed for a plan whose trainings take less than a minute. Idle threads are adapted to the load first.
    """
    adapt_threads()
    from advisor.costs.speed_measurement import measure_plan_speeds
    from advisor.workflows.dry_run import duration_words, step_estimates
    from runners.runs.dataset import read_data

    examples, split = read_data(plan)
    lines = measure_plan_speeds(plan, len(examples))
    if not lines:
        return
    for line in lines:
        note(line)
    rows, _ = step_estimates(plan, len(examples), len(split.test))
    note(f"all steps together: about {duration_words(sum(row.corrected for row in rows))}")


def estimated_duration(path: Path) -> str:
    """Return about how long all steps of a plan take on this machine, in words, without measuring anything."""
    from advisor.workflows.dry_run import duration_words, step_estimates
    from runners.runs.dataset import read_data

    plan = read_plan(path)
    examples, split = read_data(plan)
    rows, _ = step_estimates(plan, len(examples), len(split.test))
    return duration_words(sum(row.corrected for row in rows))


def run_and_report(
    plan: Plan,
    out: Path,
    resume: bool,
    overwrite: bool,
    only: str | None = None,
    quiet: bool = False,
    label: RunLabel = "run",
    accept_lost_rows: bool = False,
    full: FullRun | None = None,
) -> tuple[RunFolder, TrialReport | None]:
    """Run every step with progress on stderr, then judge the arms and write the report.

    Where too few rows are left for an arm, a person at a terminal is asked whether to go on.

    Args:
        plan: the plan.
        out: the run folder.
        resume: whether to continue after the last finished step.
        overwrite: whether to replace an existing run folder.
        only: name of the only step to run, None for all.
        quiet: whether to show no progress.
        label: label of the run in the user's history.
        accept_lost_rows: whether to train such arms without asking.
        full: the full run, where this is a quick one.

    Returns:
        The run folder, and its report; None where only one step was run or the recommended arm was not
        measured.
    """
    from advisor.report.report import judge
    from advisor.workflows.tracking import tracked_run
    from runners.trial.row_guard import RowsLost

    with tracked_run(plan, out, resume, label) as tracking:
        try:
            done = _carry_out(plan, out, resume, overwrite, only, quiet, accept_lost_rows, tracking)
        except RowsLost as problem:
            if quiet or not problem.acceptable or not accepts_lost_rows(problem.message):
                raise
            done = _carry_out(plan, out, True, False, only, quiet, True, tracking)
        run = done.folder
        if only is not None or plan.choice not in {arm.arm for arm in plan.arms}:
            return run, None
        if full is not None:
            full.record(run)
        report = judge(done).content
        tracking.report(report)
    _remember(run, plan, report, label)
    return run, report


def _remember(run: RunFolder, plan: Plan, report: TrialReport, label: RunLabel) -> None:
    """Add a finished run to the history; say where that fails, and which times are not stored."""
    from advisor.verdict.predictions import remember_run
    from runners.resources.usage import busy_note

    if warning := remember_run(run, plan, report, label):
        print(f"  {warning}", file=sys.stderr)
    if busy := busy_note(report.measured.busy):
        note(busy)


def _carry_out(
    plan: Plan,
    out: Path,
    resume: bool,
    overwrite: bool,
    only: str | None,
    quiet: bool,
    accepted: bool,
    tracking: RunTracking,
) -> Run:
    """Run the plan's steps, with progress on stderr unless ``quiet``."""
    from advisor.display.progress import board_for_plan, watch_progress
    from runners.trial.execute import run as run_steps

    with watch_progress(quiet, lambda: board_for_plan(plan, only)) as watcher:
        return run_steps(
            plan,
            out,
            resume=resume,
            overwrite=overwrite,
            only=only,
            on_event=tracking.listen_with(watcher),
            accept_lost_rows=accepted,
        )


def accepts_lost_rows(text: str) -> bool:
    """Ask a person at a terminal whether to train on the rows that are left; False without a terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    from advisor.wizard.prompter import confirm

    print(f"  {text}", file=sys.stderr)
    return confirm("Train on these rows all the same?", default=False)


def check_stale_test(plan: Plan, update: Path | None, only: str | None) -> tuple[object, ...]:
    """Check the update of --stale-test before any time is spent; return the flag for the command that resumes."""
    if update is None:
        return ()
    from runners.trial.staleness import check_update

    if only is not None:
        raise UsageProblem("--stale-test asks finished arms, --only runs one step", "remove one of them")
    check_update(plan, update)
    return "--stale-test", update


def report_staleness(run: RunFolder, plan: Plan, update: Path) -> TrialReport:
    """Measure what an update of the documents changes, and write the report again with it."""
    from advisor.report.report import write_report
    from runners.runs.dataset import read_data
    from runners.trial.staleness import try_update

    with run.writing():
        try_update(run, update)
        return write_report(run, plan, read_data(plan)[1].test)


def check_gate(report: TrialReport) -> None:
    """Raise GateNotMet when no arm can be used, or the recommended arm surely does not beat the arms it must.

    The message names the arm to use, or what to do where there is none.
    """
    verdict = report.verdict
    if verdict.use is None:
        arms = " or ".join(arm.arm for arm in report.arms)
        raise GateNotMet(
            f"no arm can be used: {verdict.use_reason}",
            f"the results are kept; to ask an arm nevertheless, name it: --arm {arms}",
        )
    if verdict.gate_met is False:
        raise GateNotMet(
            f"the gate was not met: {verdict.recommended} does not clearly beat what it has to beat",
            f"the results are kept; the arm to use is {verdict.use}",
        )


def _read_plan(path: Path, quick: bool, seeds: int | None, kernels: str | None) -> Plan:
    """Return the plan of a file with these options applied, or that of a run folder, which no option changes."""
    from runners.plan.schema import with_seeds
    from runners.trial.execute import quick_plan

    if seeds is not None and quick:
        raise UsageProblem("--quick trains one seed", "remove --quick, or --seeds")
    if kernels is not None:
        check_kernels(kernels, path)
    if is_run(path):
        if seeds is not None:
            raise UsageProblem(
                f"{path} was started with other seeds and keeps them", "give the plan's file with --seeds"
            )
        return read_run_plan(path)
    plan = read_plan(path)
    plan = quick_plan(plan) if quick else plan
    plan = with_seeds(plan, seeds) if seeds is not None else plan
    return plan.model_copy(update={"kernels": kernels}) if kernels is not None else plan

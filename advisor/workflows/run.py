"""The work behind ``tunewise run``: from a plan file to a printed verdict; parts are shared with ``tunewise demo``."""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from advisor.costs.speed_measurement import measure_plan_speeds
from advisor.display import console
from advisor.display.events import print_data_notes
from advisor.display.progress import ProgressBoard, board_for_plan, watch_progress
from advisor.display.trial_table import show_report
from advisor.flags.records import flag_words
from advisor.flags.run import RunFlags
from advisor.output import command_line, emit_result, note, print_plain
from advisor.report.data import FULL_RUN_EVENT
from advisor.report.html import learning_curve_steps
from advisor.report.report import judge, write_report
from advisor.terminal import resume_hint
from advisor.verdict.predictions import prediction_line, remember_run
from advisor.workflows.dry_run import dry_run, duration_words, step_estimates
from advisor.workflows.launch import GivenCommand, LaunchRequest, Work, settle_resumption, start_launcher
from advisor.workflows.tracking import track_flags, tracked_run
from rag.errors import GateNotMet, UsageProblem
from runners.models import resolve
from runners.plan.forecast import forecast_path
from runners.plan.schema import Plan, read_plan, step_name, with_seeds
from runners.plan.steps import TrainStep
from runners.plan.train_config import KERNELS
from runners.report.report_file import report_json
from runners.report.trial_report import TrialReport
from runners.resources.usage import adapt_spinning_to_load, busy_note
from runners.run_folder import LAUNCH, RunFolder, check_run_folder, is_run, paths_read, read_run_plan
from runners.runs import requirements
from runners.runs.data_notes import with_notes
from runners.runs.dataset import read_data
from runners.runs.listing import RUNS_FOLDER
from runners.runs.opened import chosen_backend
from runners.scoring.gold_check import FailingGold
from runners.trial.execute import RunRequest, carry_out, quick_plan
from runners.trial.row_guard import RowsLost
from runners.trial.staleness import check_update, try_update

if TYPE_CHECKING:
    from advisor.verdict.predictions import RunLabel
    from runners.runs.dataset import RunData
    from runners.runs.run import Run
    from runners.tracking.tracking import RunTracking


@dataclass(frozen=True, slots=True)
class FullRun:
    """The plan that a quick run shortened, and the command that carries it out in full."""

    plan: Plan
    command: str

    def record(self, run: RunFolder) -> None:
        """Write the command and the estimated minutes into the quick run's log, for its report."""
        minutes = round(_estimated_seconds(self.plan) / 60, 1)
        run.write({"event": FULL_RUN_EVENT, "command": self.command, "minutes": minutes})


def execute_plan(flags: RunFlags, launch: LaunchRequest | None = None) -> None:
    """Run a plan file, or resume a run folder, and print the verdict; with a launcher, start the processes that do.

    Args:
        flags: the plan or run folder, and how to carry it out.
        launch: the flags of a launcher, and the command line for it; None without.

    Raises:
        UsageProblem: for options that exclude each other.
        GateNotMet: when the recommended arm does not meet the plan's gate, or no arm can be used; the results are kept.
    """
    resume, overwrite = settle_resumption(flags.resume, flags.overwrite)
    plan = _with_backend(_read_plan(flags), flags.backend)
    plan = plan if flags.usd is None else plan.model_copy(update={"most_usd": flags.usd})
    requirements.check_names(plan)
    out, resume = (flags.out or flags.plan, not overwrite) if is_run(flags.plan) else (flags.out, resume)
    request = RunRequest(
        plan=plan,
        out=_run_folder(out, plan),
        resume=resume,
        overwrite=overwrite,
        only=flags.only,
        accept_lost_rows=flags.accept_lost_rows,
        accept_failing_gold=flags.accept_failing_gold,
    )
    _check_stale_test(plan, flags)
    if launch is not None:
        start_launcher(launch.flags, _launched_work(launch.command, flags.plan, request))
        return
    if flags.dry_run:
        dry_run(plan, request.out, flags.as_json, flags.accept_lost_rows, flags.accept_failing_gold)
        return
    # Before anything is read or measured: a folder that is in the way is the commonest mistake.
    check_run_folder(request.out, plan, request.resume, request.overwrite)
    if out is None:
        note(f"run folder: {request.out}")
    request = replace(request, data=announce(request))
    whole = _full_run(flags, request.out) if flags.quick and not is_run(flags.plan) else None
    with resume_hint(_resume_line(flags, request.out)):
        run, report = run_and_report(request, quiet=flags.as_json, full=whole)
        if report is not None and flags.stale_test is not None:
            report = report_staleness(run, request, flags.stale_test)
    if report is not None:
        _show_result(run, report, flags.as_json)


def _launched_work(command: GivenCommand, path: Path, request: RunRequest) -> Work:
    """Return what a launcher's processes carry out."""
    plan, out = request.plan, request.out

    def make_way(remove: bool) -> None:
        if remove:  # with the plan, which may lie in the folder that is replaced
            RunFolder.create(out, plan, overwrite=True)
        else:
            check_run_folder(out, plan, request.resume, request.overwrite)

    answer = plan.answers.get("gpu_count")
    return Work(
        command=command,
        out=out,
        launch_folder=out / LAUNCH,
        written=out,
        make_way=make_way,
        overwrite=request.overwrite and out.exists(),
        files=(path, forecast_path(path), *paths_read(plan)),
        planned_gpus=int(answer.value) if answer is not None and answer.value else None,
    )


def _full_run(flags: RunFlags, out: Path) -> FullRun:
    """Return the full run of a plan file that a quick run shortens, in a folder beside that of the quick run."""
    words = flag_words(flags, "kernels", "backend", "accept_failing_gold")
    return FullRun(read_plan(flags.plan), command_line("run", flags.plan, "--out", f"{out}-full", *words))


def _resume_line(flags: RunFlags, out: Path) -> str:
    """Return the command that goes on with a run, with the flags that it must repeat."""
    repeated = flag_words(flags, "quick", "seeds", "kernels", "accept_lost_rows", "accept_failing_gold")
    others = flag_words(flags, "backend", "usd", "stale_test")
    return command_line("run", flags.plan, "--out", out, "--resume", *repeated, *track_flags(), *others)


def _with_backend(plan: Plan, backend: list[str] | None) -> Plan:
    """Return the plan with the servers of --backend, which may change when a run goes on."""
    if backend is None:
        return plan
    return plan.model_copy(update={"backend": chosen_backend(plan, backend).entries})


def _run_folder(out: Path | None, plan: Plan) -> Path:
    """Return the run folder; UsageProblem for one in a folder that does not exist, unless that is the default one, runs."""
    if out is not None and out.parent != RUNS_FOLDER and not out.parent.is_dir():
        raise UsageProblem(f"--out {out}: there is no folder {out.parent}", "make it first, or name another")
    return out or RUNS_FOLDER / plan.name


def _show_result(run: RunFolder, report: TrialReport, as_json: bool) -> None:
    """Print the report as JSON or for a person, then raise GateNotMet as :func:`check_gate` does."""
    if as_json:
        emit_result(report_json(report))
    else:
        _show_verdict(run, report)
    check_gate(report)


def _show_verdict(run: RunFolder, report: TrialReport) -> None:
    """Print the report's table and verdict, the prediction beside it, and what to do next."""
    show_report(report)
    for line in prediction_line(report):
        print_plain(console.console(), f"  {line}")
    print(f'report: {run.path / "report.html"}\nask it: {ask_command(run.path, report)} "..."')
    plan = read_run_plan(run.path)
    if plan.index:
        print(f"why are answers wrong: {command_line('why', run.path)}")
    changing = plan.answers.get("facts_change")
    if changing is not None and changing.value in ("slow", "fast"):
        print(
            f"when the documents change, check whether the result is still valid: {command_line('recheck', run.path)}"
        )
    for command, _ in learning_curve_steps(report, shlex.quote(str(run.path))):
        print(f"would more examples help: {command}")


def ask_command(run: Path, report: TrialReport) -> str:
    """Return the start of a command that asks a run; it names the arm with the best score where none is asked by default."""
    return command_line("ask", run, *([] if report.verdict.use else ["--arm", report.candidates[0].arm]))


def check_kernels(kernels: str, path: Path) -> None:
    """Raise UsageProblem for an unknown value of --kernels, or for a run folder, whose plan is fixed."""
    if kernels not in KERNELS:
        raise UsageProblem(f"--kernels {kernels} is unknown", f"choose one of {', '.join(KERNELS)}")
    if is_run(path):
        raise UsageProblem(
            f"{path} was started with other kernels and keeps them", "give the plan's file with --kernels"
        )


def announce(request: RunRequest) -> RunData:
    """Print what a plan downloads first and about how long it takes; return its data, which is read for that."""
    announce_downloads(request.plan)
    return announce_time(request)


def announce_downloads(plan: Plan) -> None:
    """Print what a plan downloads first, how large and from where.

    Raises:
        CannotRun: the licence of a model was not accepted, or the disk has no space.
    """
    downloads = requirements.plan_downloads(plan)
    for download in downloads:
        note(f"not here yet, fetched first: {download.text}")
    resolve.check_licenses(downloads)
    resolve.check_cache_space(downloads)


def adapt_threads() -> None:
    """Let idle threads sleep sooner where other processes use this machine, and say so; called before torch is imported."""
    if adapt_spinning_to_load():
        note("other processes use this machine: idle threads give up the processor sooner")


def announce_time(request: RunRequest) -> RunData:
    """Print about how long the steps of a plan take, with the speed of its trainings measured on this machine.

    Nothing is printed for a plan whose trainings take less than a minute. Where a run goes on, what is left is printed,
    by what its finished steps took, and no speed is measured once all is trained. Idle threads are adapted to the load
    first.

    Returns:
        The plan's data.
    """
    adapt_threads()
    plan = request.plan
    data = with_notes(plan, read_data(plan))
    print_data_notes(data.notes or ())
    board = _board(request, data)
    done = [name for name, step in board.steps.items() if step.state == "before"]
    untrained = any(isinstance(step, TrainStep) and step_name(step) not in done for step in plan.steps)
    lines = measure_plan_speeds(plan, len(data.examples)) if untrained else ()
    for line in lines:
        note(line)
    if done:
        left = (_board(request, data) if lines else board).time_left(time.time())
        about = "" if left is None else f"; what is left takes about {duration_words(left)}"
        note(f"{len(done)} of {len(board.steps)} steps are finished{about}")
    elif lines:
        rows, _ = step_estimates(plan, len(data.examples), len(data.split.test))
        note(f"all steps together: about {duration_words(sum(row.corrected for row in rows))}")
    return data


def _board(request: RunRequest, data: RunData | None) -> ProgressBoard:
    """Return the board of a run; where one goes on, with what its finished steps took."""
    board = board_for_plan(request.plan, request.only, data)
    if request.resume and is_run(request.out):
        board.take_over(RunFolder(request.out).events())
    return board


def estimated_duration(path: Path) -> str:
    """Return about how long all steps of a plan take on this machine, in words, without measuring anything."""
    return duration_words(_estimated_seconds(read_plan(path)))


def _estimated_seconds(plan: Plan) -> float:
    """Return about how long all steps of a plan take on this machine."""
    data = read_data(plan)
    rows, _ = step_estimates(plan, len(data.examples), len(data.split.test))
    return sum(row.corrected for row in rows)


def run_and_report(
    request: RunRequest, *, quiet: bool = False, label: RunLabel = "run", full: FullRun | None = None
) -> tuple[RunFolder, TrialReport | None]:
    """Run every step with progress on stderr, then judge the arms and write the report.

    Where too few rows are left for an arm, or references would not count as right answers, a person at a terminal is asked
    whether to go on.

    Args:
        request: the plan, and how to carry it out.
        quiet: whether to show no progress.
        label: label of the run in the user's history.
        full: the full run, where this is a quick one.

    Returns:
        The run folder, and its report; None where only one step was run or the recommended arm was not
        measured.
    """
    plan = request.plan
    with tracked_run(plan, request.out, request.resume, label) as tracking:
        done = _carry_out_asking(request, quiet, tracking)
        run = done.folder
        if request.only is not None or plan.choice not in {arm.arm for arm in plan.arms}:
            return run, None
        if full is not None:
            full.record(run)
        report = judge(done).content
        tracking.report(report)
    _remember(run, plan, report, label)
    return run, report


def _remember(run: RunFolder, plan: Plan, report: TrialReport, label: RunLabel) -> None:
    """Add a finished run to the history; say where that fails, and which times are not stored."""
    if warning := remember_run(run, plan, report, label):
        print(f"  {warning}", file=sys.stderr)
    if busy := busy_note(report.measured.busy):
        note(busy)


def _carry_out_asking(request: RunRequest, quiet: bool, tracking: RunTracking) -> Run:
    """Run the plan's steps; a person at a terminal may accept failing references, and arms that lost rows."""
    while True:
        try:
            return _carry_out(request, quiet, tracking)
        except FailingGold as problem:
            if quiet or not accepts(problem.message, "Measure with these references all the same?"):
                raise
            request = replace(request, accept_failing_gold=True)
        except RowsLost as problem:
            question = "Train on these rows all the same?"
            if quiet or not problem.acceptable or not accepts(problem.message, question):
                raise
            request = replace(request, resume=True, overwrite=False, accept_lost_rows=True)


def _carry_out(request: RunRequest, quiet: bool, tracking: RunTracking) -> Run:
    """Run the plan's steps, with progress on stderr unless ``quiet``."""
    with watch_progress(quiet, lambda: _board(request, request.data)) as watcher:
        return carry_out(request, tracking.listen_with(watcher))


def accepts(text: str, question: str) -> bool:
    """Show a problem and ask a person at a terminal whether to go on; False without a terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    from advisor.wizard.prompter import confirm

    print(f"  {text}", file=sys.stderr)
    return confirm(question, default=False)


def _check_stale_test(plan: Plan, flags: RunFlags) -> None:
    """Check the update of --stale-test before any time is spent."""
    if flags.stale_test is None:
        return
    if flags.only is not None:
        raise UsageProblem("--stale-test asks finished arms, --only runs one step", "remove one of them")
    check_update(plan, flags.stale_test)


def report_staleness(run: RunFolder, request: RunRequest, update: Path) -> TrialReport:
    """Measure what an update of the documents changes, and write the report again with it."""
    with run.writing():
        try_update(run, update)
        data = request.data or read_data(request.plan)
        return write_report(run, request.plan, data.split.test)


def check_gate(report: TrialReport) -> None:
    """Raise GateNotMet when no arm can be used, or the recommended arm surely does not beat the arms it must.

    The message names the arm to use, or what to do where there is none.
    """
    verdict = report.verdict
    if verdict.use is None:
        arms = " or ".join(arm.arm for arm in report.candidates)
        raise GateNotMet(
            f"none of these can be used yet: {verdict.none_reason}",
            f"the results are kept; to ask an arm nevertheless, name it: --arm {arms}",
        )
    if verdict.gate_met is False:
        raise GateNotMet(
            f"the gate was not met: {verdict.recommended} does not clearly beat what it has to beat",
            f"the results are kept; the arm to use is {verdict.use}",
        )


def _read_plan(flags: RunFlags) -> Plan:
    """Return the plan of a file with these options applied, or that of a run folder, which no option changes."""
    path, seeds, kernels = flags.plan, flags.seeds, flags.kernels
    if seeds is not None and flags.quick:
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
    plan = quick_plan(plan) if flags.quick else plan
    plan = with_seeds(plan, seeds) if seeds is not None else plan
    return plan.model_copy(update={"kernels": kernels}) if kernels is not None else plan

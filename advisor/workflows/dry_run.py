"""Times of a plan's steps before it runs: estimated, corrected by earlier runs on this machine, and measured by a dry run.

:func:`show_steps` prints the estimates, :func:`dry_run` measures a little of each step.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor import history
from advisor.costs.speed_measurement import measure_plan_speeds
from advisor.display import console
from advisor.display.events import print_data_notes
from advisor.display.progress import watch_progress
from advisor.history import Correction, Kind, PastRun, TimedStep
from advisor.output import emit_result, print_plain
from advisor.verdict.predictions import (
    corrected_step_times,
    predicted_measured,
    predicted_pairs,
    public_model_names,
    step_kind,
)
from rag.errors import CannotRun
from rag.files import sha256_text
from rag.text.words import count_noun
from runners.data.questions import count_questions
from runners.data.sampling import QuestionSplit
from runners.plan.schema import Plan, step_name
from runners.plan.steps import TrainStep
from runners.report.json_records import to_json
from runners.resources import usage
from runners.resources.machine import detect_machine
from runners.run_folder import RunFolder
from runners.runs import requirements
from runners.runs.data_notes import with_notes
from runners.runs.dataset import read_data, require_gold_documents
from runners.runs.opened import OpenRun
from runners.runs.plan_models import ModelSource
from runners.scoring.gold_check import check_gold, require_gold
from runners.trial import row_guard
from runners.trial.dry_run import MAX_DRY_RUN_SECONDS, DryRun

if TYPE_CHECKING:
    from runners.arms.row_account import RowAccount
    from runners.runs.dataset import RunData
    from runners.trial.dry_run import StepTime


@dataclass(frozen=True, slots=True)
class StepEstimate:
    """One step.

    Attributes:
        step: its name.
        estimated: estimated seconds.
        corrected: the same, corrected by earlier runs here.
        measured: seconds extrapolated from a measurement; None if it was not measured.
        estimated_gib: estimated memory of training alone, where the step trains.
        measured_gib: measured memory of training alone.
        process_gib: peak memory of the whole training process.
        lost: share of processor time that other processes took during the measurement.
        how: what was measured, or why not.
    """

    step: str
    estimated: float
    corrected: float
    measured: float | None = None
    estimated_gib: float | None = None
    measured_gib: float | None = None
    process_gib: float | None = None
    lost: float = 0.0
    how: str = ""

    @property
    def kind(self) -> Kind:
        """The kind of step; what is measured beside the steps (forgetting) generates answers, so it is evaluate."""
        return step_kind(self.step)

    @property
    def best(self) -> float:
        """The measured seconds, or the corrected estimate where nothing was measured."""
        return self.corrected if self.measured is None else self.measured


def step_estimates(
    plan: Plan, examples: int, questions: int
) -> tuple[list[StepEstimate], dict[Kind, Correction]]:
    """Return every step with its estimated seconds, and the corrections by earlier runs here by kind of step."""
    times, corrections = corrected_step_times(plan, examples, questions)
    return [StepEstimate(*row) for row in times], corrections


def show_steps(plan: Plan) -> RunData:
    """Check the data, measure the speed of training, and print the plan's steps with their estimated times.

    Returns:
        The data.
    """
    data = with_notes(plan, read_data(plan))
    print_data_notes(data.notes or ())
    examples, split = data.examples, data.split
    for line in measure_plan_speeds(plan, len(examples)):
        print(f"  {line}")
    rows, corrections = step_estimates(plan, len(examples), len(split.test))
    for row in rows:
        print(f"  {row.step:<24} about {duration_words(row.corrected)}")
    print(f"  {'together':<24} about {duration_words(sum(row.corrected for row in rows))}")
    for line in correction_notes(rows, corrections):
        print(f"  {line}")
    count = count_questions(split.test)
    tested = _tested(count, len(split.test) - count)
    print(f"  {count_noun(len(examples), 'example')}, {len(split.dev)} dev and {tested}")
    return data


def _counts(split: QuestionSplit) -> dict[str, int]:
    """Return the numbers of dev and test questions, and of the test questions' other wordings where there are any."""
    counts = {"dev": len(split.dev), "test": count_questions(split.test)}
    wordings = len(split.test) - counts["test"]
    return counts | ({"wordings": wordings} if wordings else {})


def _tested(questions: int, wordings: int) -> str:
    """Return the number of test questions in words, and that of their other wordings, which are asked as well."""
    asked = f" and their {count_noun(wordings, 'other wording')}" if wordings else ""
    return f"{count_noun(questions, 'test question')}{asked}"


def correction_notes(rows: Sequence[StepEstimate], corrections: dict[Kind, Correction]) -> list[str]:
    """Return which estimates were corrected by earlier runs here, and by how much."""
    return [
        f"{kind}: {correction.text}"
        for kind, correction in corrections.items()
        if correction.runs and any(row.kind == kind for row in rows)
    ]


def dry_run(
    plan: Plan,
    out: Path,
    as_json: bool,
    accept_lost_rows: bool = False,
    accept_failing_gold: bool = False,
    *,
    max_seconds: float | None = None,
    max_contention: float = usage.MAX_CONTENTION,
) -> None:
    """Check everything, measure a little of each step, and print estimates beside measurements, and the rows of each arm.

    Nothing is written into ``out``; the ratios are stored in the user's history, to correct later estimates, unless other
    processes took more than ``max_contention`` of the processor time. After ``max_seconds`` no further step is measured.

    Raises:
        CannotRun: after the table, when a step cannot be carried out here.
        FailingGold: after it, when many references would not count as right and ``accept_failing_gold`` is not given.
        RowsLost: after it, when too few rows are left for an arm and neither plan nor ``accept_lost_rows`` accepts that.
    """
    with (
        watch_progress(quiet=as_json) as watcher,
        tempfile.TemporaryDirectory(prefix="tunewise-") as work_folder,
    ):
        require_gold_documents(plan)
        data = read_data(plan, watcher)
        examples, split = data.examples, data.split
        gold = check_gold(plan, split)
        data = with_notes(plan, data, gold)
        print_data_notes(data.notes or ())
        obtained = ModelSource(plan=plan, on_event=watcher).obtained()
        folders = obtained.folders(plan)
        for note in requirements.check_requirements(plan, folders, out, detect_machine(out)):
            watcher.say(note)
        rows, corrections = step_estimates(plan, len(examples), len(split.test))
        by_name = {row.step: row for row in rows}
        context = OpenRun(RunFolder(Path(work_folder)), plan, obtained, data=data)
        trained: dict[str, Any] = {}
        obstacles: list[str] = []
        measuring = DryRun(context, max_seconds=MAX_DRY_RUN_SECONDS if max_seconds is None else max_seconds)
        for number, (step, measurement) in enumerate(measuring.measure(), 1):
            name = step_name(step)
            watcher.say(f"[{number}/{len(plan.steps)}] {name}: {measurement.how}")
            by_name[name] = _with_measurement(by_name[name], measurement)
            obstacles += [f"{name}: {measurement.stop}"] if measurement.stop else []
            if isinstance(step, TrainStep) and measurement.training_seconds:
                trained[step.arm] = [_training_record(step, measurement, max_contention)]
        context.models.release()
        accounts = list(row_guard.training_accounts(context, plan.steps))
    estimates = list(by_name.values())
    counts = {"examples": len(examples), **_counts(split)}
    history_note = keep_measurements(plan, estimates, trained, out, max_contention)
    _print(estimates, corrections, counts, history_note, as_json, accounts)
    if not accept_failing_gold:
        require_gold(gold)
    _require_possible(obstacles, accounts, accept_lost_rows or plan.data.lost_rows == "accept")


def _require_possible(obstacles: Sequence[str], accounts: Sequence[RowAccount], accepted: bool) -> None:
    """Raise what a dry run found in the way; ``accepted``: arms may train on fewer rows than asked for."""
    if obstacles:
        raise CannotRun("; ".join(obstacles), "change the plan, or run it on another machine")
    short = [account for account in accounts if account.short and not (accepted and account.acceptable)]
    if short:
        raise row_guard.rows_lost(short)


def keep_measurements(
    plan: Plan,
    estimates: Sequence[StepEstimate],
    trained: dict[str, Any],
    out: Path,
    max_contention: float = usage.MAX_CONTENTION,
) -> str:
    """Store what was measured beside its estimate in the user's history; a later dry run of the same plan replaces it.

    Times measured while the machine was busy are not stored: they would make every later estimate too long.

    Returns:
        A note if the history could not be written, else "".
    """
    steps = tuple(
        TimedStep(
            kind=row.kind,
            arm=row.step.partition(":")[2],
            predicted=round(pair.predicted, 1),
            measured=round(pair.measured, 1),
        )
        for row in estimates
        if row.kind != "evaluate"
        and not usage.is_contended(row.lost, max_contention)
        and (pair := predicted_measured(row.estimated, row.measured))
    )
    # Times of answers are left out: here few are generated at once and in a trial many, so they cannot be compared.
    hours, memory = predicted_pairs(plan, trained, proxy=False)
    if not (steps or hours or memory) or history.history_file() is None:
        return ""
    return history.append_to_history(
        PastRun(
            id=sha256_text(f"dry-run {plan.digest()}")[:16],
            day=date.today().isoformat(),
            label="dry-run",
            machine=history.machine_mark(detect_machine(out)),
            model=public_model_names(plan),
            choice=plan.choice,
            plan=plan.digest(),
            steps=steps,
            hours=hours,
            memory_gib=memory,
            memory_of="training",
        )
    )


def contention_notes(estimates: Sequence[StepEstimate]) -> list[str]:
    """Return which times were measured while the machine was busy, and that they are not stored."""
    note = usage.busy_note({row.step: row.lost for row in estimates if row.measured is not None})
    return [note] if note else []


def duration_words(seconds: float) -> str:
    """Return seconds as 42 s or 3.1 min."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def _with_measurement(row: StepEstimate, measurement: StepTime) -> StepEstimate:
    return replace(
        row,
        measured=measurement.seconds,
        estimated_gib=measurement.estimated_gib,
        measured_gib=measurement.memory_gib,
        process_gib=measurement.process_gib,
        lost=measurement.lost,
        how=measurement.how,
    )


def _training_record(step: TrainStep, measurement: StepTime, max_contention: float) -> dict[str, Any]:
    """Return a measured training like the results of a finished one, without its time if the machine was busy."""
    busy = usage.is_contended(measurement.lost, max_contention)
    return {
        "peak_gib": measurement.process_gib,
        "own_gib": measurement.memory_gib,
        "expected_gib": measurement.estimated_gib,
        "seconds": None if busy else measurement.training_seconds,
        "method": step.method,
    }


def _print(
    estimates: Sequence[StepEstimate],
    corrections: dict[Kind, Correction],
    counts: dict[str, int],
    history_note: str,
    as_json: bool,
    accounts: Sequence[RowAccount],
) -> None:
    """Print the steps, and ``accounts``, the rows of the trained arms: as a table, or everything as JSON."""
    if as_json:
        applied = {
            kind: {"factor": round(correction.factor, 3), "runs": correction.runs}
            for kind, correction in corrections.items()
            if correction.runs
        }
        rows = to_json([account.summary for account in accounts])
        body: dict[str, Any] = {"steps": [asdict(row) for row in estimates], **counts, "rows": rows}
        busy = "; ".join(contention_notes(estimates))
        emit_result({"schema": 1, **body, "corrections": applied, "busy": busy, "note": history_note})
        return
    lines = [account.text for account in accounts]
    lines += [f"{row.step}: {row.how}" for row in estimates if row.measured is None and row.how]
    if any(row.measured_gib is not None for row in estimates):
        lines.append("memory is that of training alone; the process is what has to fit")
    lines += [*contention_notes(estimates), *correction_notes(estimates, corrections)]
    lines += [history_note] if history_note else []
    _print_table(estimates, counts, lines)


def _print_table(estimates: Sequence[StepEstimate], counts: dict[str, int], lines: Sequence[str]) -> None:
    """Print the steps as a table, and lines below it."""
    cells = [
        (
            row.step,
            duration_words(row.corrected),
            "–" if row.measured is None else duration_words(row.measured),
            "" if row.estimated_gib is None else f"{row.estimated_gib:.1f}",
            "" if row.measured_gib is None else f"{row.measured_gib:.1f}",
            "" if row.process_gib is None else f"{row.process_gib:.1f}",
        )
        for row in estimates
    ]
    total = (
        "together",
        duration_words(sum(row.corrected for row in estimates)),
        duration_words(sum(row.best for row in estimates)),
        *("",) * 3,
    )
    screen = console.console()
    columns = (
        "step",
        "time\nestimated",
        "time\nmeasured",
        "GiB\nestimated",
        "GiB\nmeasured",
        "GiB of the\nwhole process",
    )
    screen.print(console.table(columns, [*cells, total], right=(1, 2, 3, 4, 5)))
    for line in lines:
        print_plain(screen, f"  {line}")
    print_plain(
        screen,
        f"  {count_noun(counts['examples'], 'example')}, {counts['dev']} dev and "
        f"{_tested(counts['test'], counts.get('wordings', 0))}; nothing was written into the run folder",
    )

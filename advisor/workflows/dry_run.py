"""The steps of a plan before it runs: estimates, corrected by earlier runs here, and on a dry run measured."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from advisor import history
from advisor.costs.step_time import estimate_step_times
from advisor.history import Correction, Kind, PastRun, TimedStep
from advisor.output import emit_result
from advisor.verdict.predictions import (
    predicted_measured,
    predicted_pairs,
    public_model_name,
    time_corrections,
)
from rag.errors import CannotRun
from rag.files import sha256_text
from runners.plan.schema import Plan
from runners.plan.steps import TrainStep
from runners.resources import usage
from runners.resources.machine import detect_machine
from runners.run_folder import RunFolder
from runners.runs import requirements

_KINDS: dict[str, Kind] = {"index": "index", "train": "train", "evaluate": "evaluate"}


@dataclass(frozen=True, slots=True)
class StepEstimate:
    """One step: its time as estimated, as corrected, and as measured; memory where it trains."""

    step: str
    estimated: float
    corrected: float
    measured: float | None = None
    estimated_gib: float | None = None
    measured_gib: float | None = None
    """Of training alone, as the estimate; ``process_gib`` is the whole training process."""
    process_gib: float | None = None
    lost: float = 0.0
    """Share of the processor time that others took while it was measured."""
    how: str = ""

    @property
    def kind(self) -> Kind:
        """Return what kind of step it is; what is measured beside the steps (forgetting) gives answers."""
        return _KINDS.get(self.step.partition(":")[0], "evaluate")

    @property
    def best(self) -> float:
        """Return the seconds to count on: the measurement where there is one."""
        return self.corrected if self.measured is None else self.measured


def step_estimates(
    plan: Plan, examples: int, questions: int
) -> tuple[list[StepEstimate], dict[Kind, Correction]]:
    """Return every step with its estimated seconds, and what earlier runs here make of them."""
    found = time_corrections(plan.model.name)
    rows = [
        StepEstimate(name, seconds, seconds)
        for name, seconds in estimate_step_times(plan, examples, questions)
    ]
    return [replace(row, corrected=row.estimated * found[row.kind].factor) for row in rows], found


def show_steps(plan: Plan) -> None:
    """Print the plan's steps with an estimate of each one's time on this machine, after checking the data."""
    from runners.runs.dataset import read_data

    examples, split = read_data(plan)
    rows, found = step_estimates(plan, len(examples), len(split.test))
    for row in rows:
        print(f"  {row.step:<24} about {duration_words(row.corrected)}")
    print(f"  {'together':<24} about {duration_words(sum(row.corrected for row in rows))}")
    for line in correction_notes(rows, found):
        print(f"  {line}")
    print(f"  {len(examples)} examples, {len(split.dev)} dev and {len(split.test)} test questions")


def correction_notes(rows: Sequence[StepEstimate], found: dict[Kind, Correction]) -> list[str]:
    """Say which estimates earlier runs here corrected, and by how much."""
    return [
        f"{kind}: {correction.text}"
        for kind, correction in found.items()
        if correction.runs and any(row.kind == kind for row in rows)
    ]


def dry_run(plan: Plan, out: Path, as_json: bool) -> None:
    """Check everything, measure a little of each step, and print estimates beside measurements.

    Nothing is written into ``out``; the ratios go into the user's history, for later estimates. Raises CannotRun
    after the table when a step cannot be carried out here.
    """
    from advisor.display.progress import watch_progress
    from runners.models.resolve import Model
    from runners.plan.schema import step_name
    from runners.runs.dataset import read_data
    from runners.runs.session import RunContext, obtain_bases, obtain_model
    from runners.trial.dry_run import DryRun

    with watch_progress(quiet=as_json) as watcher, tempfile.TemporaryDirectory(prefix="tunewise-") as place:
        examples, split = read_data(plan, watcher)
        bases = obtain_bases(plan, watcher)
        base = bases[plan.model.name]
        embedder = (
            obtain_model(plan.embedder, "embedder", watcher) if requirements.needs_embedder(plan) else None
        )
        requirements.check_requirements(
            plan, base.folder if isinstance(base, Model) else None, out, detect_machine(out)
        )
        rows, found = step_estimates(plan, len(examples), len(split.test))
        by_name = {row.step: row for row in rows}
        bench = RunContext(plan, RunFolder(Path(place)), base, embedder, examples, split, None, bases)
        trained: dict[str, Any] = {}
        stops: list[str] = []
        for number, (step, took) in enumerate(DryRun(bench).measure(), 1):
            name = step_name(step)
            watcher.say(f"[{number}/{len(plan.steps)}] {name}: {took.how}")
            by_name[name] = replace(
                by_name[name],
                measured=took.seconds,
                estimated_gib=took.estimated_gib,
                measured_gib=took.memory_gib,
                process_gib=took.process_gib,
                lost=took.lost,
                how=took.how,
            )
            stops += [f"{name}: {took.stop}"] if took.stop else []
            if isinstance(step, TrainStep) and took.training_seconds:
                trained[step.arm] = [
                    {
                        "peak_gib": took.process_gib,
                        "own_gib": took.memory_gib,
                        "expected_gib": took.estimated_gib,
                        "seconds": None if usage.contention_note(took.lost) else took.training_seconds,
                        "method": step.method,
                    }
                ]
        bench.release()
    done = list(by_name.values())
    counts = {"examples": len(examples), "dev": len(split.dev), "test": len(split.test)}
    kept = keep_measurements(plan, done, trained, out)
    _print(done, found, counts, kept, as_json)
    if stops:
        raise CannotRun("; ".join(stops), "change the plan, or run it on another machine")


def keep_measurements(plan: Plan, done: Sequence[StepEstimate], trained: dict[str, Any], out: Path) -> str:
    """Store what was measured beside its estimate; a later dry run of the same plan takes its place.

    Times taken while the machine was busy are not stored: they would slow every later estimate down.
    """
    steps = tuple(
        TimedStep(
            kind=row.kind,
            arm=row.step.partition(":")[2],
            predicted=round(both.predicted, 1),
            measured=round(both.measured, 1),
        )
        for row in done
        if row.kind != "evaluate"
        and not usage.contention_note(row.lost)
        and (both := predicted_measured(row.estimated, row.measured))
    )
    # No answers: few are given at once here and many in a trial, so that their times do not compare.
    hours, memory = predicted_pairs(plan, {"training": trained}, proxy=False)
    if not (steps or hours or memory) or history.history_file() is None:
        return ""
    return history.append_to_history(
        PastRun(
            id=sha256_text(f"dry-run {plan.digest()}")[:16],
            day=date.today().isoformat(),
            label="dry-run",
            machine=history.machine_mark(detect_machine(out)),
            model=public_model_name(plan.model.name),
            choice=plan.choice,
            plan=plan.digest(),
            steps=steps,
            hours=hours,
            memory_gib=memory,
            memory_of="training",
        )
    )


def _print(
    done: Sequence[StepEstimate],
    found: dict[Kind, Correction],
    counts: dict[str, int],
    kept: str,
    as_json: bool,
) -> None:
    if as_json:
        told = {kind: {"factor": round(c.factor, 3), "runs": c.runs} for kind, c in found.items() if c.runs}
        rows = [asdict(row) for row in done]
        busy = "; ".join(contention_notes(done))
        emit_result({"schema": 1, "steps": rows, **counts, "corrections": told, "busy": busy, "note": kept})
        return
    from advisor.display import console

    cells = [
        (
            row.step,
            duration_words(row.corrected),
            "–" if row.measured is None else duration_words(row.measured),
            "" if row.estimated_gib is None else f"{row.estimated_gib:.1f}",
            "" if row.measured_gib is None else f"{row.measured_gib:.1f}",
            "" if row.process_gib is None else f"{row.process_gib:.1f} GiB",
        )
        for row in done
    ]
    together = (
        "together",
        duration_words(sum(r.corrected for r in done)),
        duration_words(sum(r.best for r in done)),
        *("",) * 3,
    )
    screen = console.console()
    columns = ("step", "estimate", "measured", "memory", "measured", "process")
    screen.print(console.table(columns, [*cells, together], right=(1, 2, 3, 4, 5)))
    unmeasured = [f"{row.step}: {row.how}" for row in done if row.measured is None and row.how]
    if any(row.measured_gib is not None for row in done):
        unmeasured.append("memory is that of training alone; the process is what has to fit")
    for line in (
        *unmeasured,
        *contention_notes(done),
        *correction_notes(done, found),
        *([kept] if kept else []),
    ):
        screen.print(f"  {line}", soft_wrap=True, markup=False)
    screen.print(
        f"  {counts['examples']} examples, {counts['dev']} dev and {counts['test']} test questions; "
        "nothing was written into the run folder",
        soft_wrap=True,
    )


def contention_notes(done: Sequence[StepEstimate]) -> list[str]:
    """Say which times were taken while the machine was busy, and that they are not kept for later estimates."""
    busy = [row for row in done if row.measured is not None and usage.contention_note(row.lost)]
    if not busy:
        return []
    names = ", ".join(row.step for row in busy)
    worst = usage.contention_note(max(row.lost for row in busy))
    return [f"{names}: {worst}; the time is too long, and is not kept for later estimates"]


def duration_words(seconds: float) -> str:
    """Seconds as a person says them."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"

"""The user's local history: predictions and measurements, one JSON line per run; never sent anywhere.

Stored in ``TUNEWISE_HISTORY`` (empty: nothing is stored), else in the user's data folder. It holds no
questions, documents, goals or paths. :func:`time_correction` turns it into a factor for later estimates.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from platformdirs import user_data_path
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rag.errors import CannotRun
from rag.files import append_line
from runners.resources.calibration import processor_name
from runners.resources.machine import Machine

ENV = "TUNEWISE_HISTORY"
FILE = "history.jsonl"
SHRINKAGE = 1.0
"""Pseudo-runs without error that a correction is averaged with: one run moves an estimate half of the way,
three by three quarters. Timings of one machine differ by a third from day to day (benchmarks/LOG.md), so a
single one is not trusted.
"""
MIN_CORRECTION = 0.25
"""Lower limit of a correction: further off, the estimate is wrong in kind, not in speed."""
MAX_CORRECTION = 4.0
"""Upper limit of a correction, for the same reason."""
Kind = Literal["index", "embedder", "train", "evaluate", "hours"]


class HistoryModel(BaseModel):
    """Base of the models in the file: frozen; unknown keys of later versions are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)


class PredictedMeasured(HistoryModel):
    """A prediction and its measurement, in the same unit."""

    predicted: float = Field(gt=0, allow_inf_nan=False)
    measured: float = Field(gt=0, allow_inf_nan=False)

    @property
    def ratio(self) -> float:
        """Measured over predicted."""
        return self.measured / self.predicted


class MachineMark(HistoryModel):
    """What identifies a machine as far as speed is concerned."""

    cpu: str
    cores: int | None
    ram_gib: float | None
    gpu: str | None

    def same_speed(self, other: MachineMark) -> bool:
        """Return whether timings of one are valid for the other: processor, cores and GPU alike."""
        return (self.cpu, self.cores, self.gpu) == (other.cpu, other.cores, other.gpu)


class TimedStep(PredictedMeasured):
    """One step's seconds, estimated before any correction and measured."""

    kind: Kind
    arm: str = ""

    @property
    def name(self) -> str:
        """The step's name in a run: train:lora, or index."""
        return f"{self.kind}:{self.arm}" if self.arm else self.kind


class PastArm(HistoryModel):
    """One arm's mean combined score with its 95 % interval, 0 to 1, over ``n`` questions."""

    arm: str
    mean: float
    low: float
    high: float
    n: int


class PastDifference(HistoryModel):
    """The mean of the scores of arm ``a`` minus those of ``b``, with its 95 % interval."""

    a: str
    b: str
    difference: float
    low: float
    high: float


class PastRun(HistoryModel):
    """One run, or dry run, as it is stored."""

    schema_version: Literal[1] = Field(1, alias="schema")
    id: str
    """The same for a run that was resumed: its last line counts."""
    day: str
    label: Literal["run", "demo", "dry-run"] = "run"
    quick: bool = False
    machine: MachineMark
    model: str
    choice: str
    plan: str
    """Digest of the plan."""
    outcome: Literal["confirmed", "overturned", "undecided"] | None = None
    strength: Literal["measured", "leaning", "proxy", "made"] | None = None
    winner: str | None = None
    """The arm to use; None where none can be used, and in a dry run."""
    decided_by: Literal["score", "use"] = "score"
    """What ``winner`` is: the arm to use, or the cheapest within noise of the best, as up to 0.2.0."""
    questions: int | None = None
    confidence: Literal["high", "medium", "low"] | None = None
    """Of the advice, as the plan recorded it; None where it was not recorded, as are the next five."""
    probability: float | None = Field(None, ge=0, le=1)
    """The rate of right advice that was stated; up to 0.2.0 that no other arm comes out surely ahead of the advised one."""
    shares: Mapping[str, float] | None = None
    """Probability of coming out best by arm, as forecast up to 0.2.0."""
    arms: tuple[PastArm, ...] | None = None
    """What each arm scored; with the next two it is a row of :func:`advisor.evidence.trials.own_trials`."""
    differences: tuple[PastDifference, ...] | None = None
    """Differences of the advised arm's scores to the other arms', from the same questions."""
    features: Mapping[str, Any] | None = None
    """The situation: answers without texts and paths."""
    steps: tuple[TimedStep, ...] = ()
    hours: PredictedMeasured | None = None
    """Training of the chosen arm, as the plan predicted it; None where it did not train in full."""
    memory_gib: PredictedMeasured | None = None
    memory_of: Literal["process", "training"] = "process"
    """What the measured memory covers: earlier versions measured the whole process, which the estimate is not
    about.
    """

    @property
    def memory_ratio(self) -> float | None:
        """Measured over estimated training memory; None without, or where the process was measured."""
        return self.memory_gib.ratio if self.memory_gib and self.memory_of == "training" else None

    @property
    def remote(self) -> bool:
        """Whether an endpoint answered, also beside other models: its speed says nothing about this machine."""
        return "openai:" in self.model


@dataclass(frozen=True, slots=True)
class History:
    """The content of the file: one entry per run, the oldest first, and the number of unreadable lines."""

    path: Path | None
    runs: tuple[PastRun, ...] = ()
    broken: int = 0


@dataclass(frozen=True, slots=True)
class OwnTrials:
    """Finished trials of the user's own that decided on an advice, and how many of them confirmed it."""

    right: int = 0
    n: int = 0


NO_OWN_TRIALS = OwnTrials()


@dataclass(frozen=True, slots=True)
class Correction:
    """The factor by which earlier runs here say that an estimate of time is off."""

    factor: float
    runs: int

    @property
    def text(self) -> str:
        """Return the note beside a corrected figure."""
        return f"corrected by {self.factor:.2g} from {self.runs} earlier run{'s' * (self.runs != 1)} here"


NO_CORRECTION = Correction(1.0, 0)


def history_file() -> Path | None:
    """Return the path of the history; None when TUNEWISE_HISTORY is empty, which switches it off."""
    chosen = os.environ.get(ENV)
    if chosen is not None:
        return Path(chosen).expanduser() if chosen else None
    return user_data_path("tunewise", appauthor=False) / FILE


def read_history(path: Path | None = None) -> History:
    """Read the history; broken lines and those of a newer version are counted. No file is an empty history.

    Raises:
        CannotRun: when the file exists but cannot be read.
    """
    path = path or history_file()
    if path is None:
        return History(None)
    try:
        lines = path.read_text("utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return History(path)
    except OSError as error:
        raise CannotRun(f"the history {path} cannot be read: {error.strerror}", f"or set {ENV}") from None
    runs: dict[str, PastRun] = {}
    broken = 0
    for line in filter(str.strip, lines):
        try:
            run = PastRun.model_validate_json(line)
        except ValidationError:
            broken += 1
            continue
        runs.pop(run.id, None)
        runs[run.id] = run
    return History(path, tuple(runs.values()), broken)


def judging_trials(runs: Iterable[PastRun]) -> list[PastRun]:
    """Return the trials that judge the advice: the latest of each plan, without the demo and those on another model."""
    judged = (run for run in runs if run.outcome and run.label == "run" and run.strength != "proxy")
    return list({run.plan: run for run in judged}.values())


def own_decided_trials() -> OwnTrials:
    """Return the decided trials of the stored history; none where there is no history, or it cannot be read."""
    try:
        trials = judging_trials(read_history().runs)
    except CannotRun:
        return NO_OWN_TRIALS
    outcomes = [trial.outcome for trial in trials]
    confirmed = outcomes.count("confirmed")
    return OwnTrials(confirmed, confirmed + outcomes.count("overturned"))


def append_to_history(past: PastRun) -> str:
    """Append a run to the history, durably; return why that failed, "" when it worked."""
    path = history_file()
    if path is None:
        return ""
    try:
        append_line(path, past.model_dump(mode="json", by_alias=True))
    except CannotRun as problem:
        return f"this run is not in the history: {problem.message}"
    return ""


def clear_history() -> int:
    """Remove the history; return how many runs it held."""
    history = read_history()
    if history.path is not None:
        history.path.unlink(missing_ok=True)
    return len(history.runs)


def machine_mark(machine: Machine) -> MachineMark:
    """Return what identifies this machine."""
    ram = machine.ram_gib.value
    name = machine.gpu_name.value or machine.gpu_kind.value
    gpu = None if name in (None, "none") else f"{machine.gpu_count.value or 1} x {name}"
    return MachineMark(
        cpu=processor_name(),
        cores=machine.cpu_cores.value,
        ram_gib=None if ram is None else round(ram),
        gpu=gpu,
    )


def time_correction(runs: Sequence[PastRun], here: MachineMark, kind: Kind, model: str) -> Correction:
    """Return the factor for estimates of a kind of step, from runs on this machine.

    Runs of the same model count alone where there are any. The factor is the geometric mean of measured over
    estimated, shrunk towards 1 as if ``SHRINKAGE`` more runs had been exactly right, and clipped to
    ``MIN_CORRECTION`` and ``MAX_CORRECTION``.

    Args:
        runs: the history.
        here: this machine.
        kind: index, embedder, train or evaluate for steps, hours for training of the chosen arm.
        model: the model of the estimate.
    """
    remote = model.startswith("openai:")
    usable = [
        run
        for run in runs
        if run.machine.same_speed(here) and (run.model == model or not (remote or run.remote))
    ]
    same_model = [run for run in usable if run.model == model]
    ratios = [ratio for run in (same_model or usable) if (ratio := _ratio(run, kind)) is not None]
    if not ratios:
        return NO_CORRECTION
    # The pseudo-runs have a ratio of 1, whose logarithm adds nothing to the sum.
    mean_log = sum(map(math.log, ratios)) / (len(ratios) + SHRINKAGE)
    return Correction(min(MAX_CORRECTION, max(MIN_CORRECTION, math.exp(mean_log))), len(ratios))


def _ratio(run: PastRun, kind: Kind) -> float | None:
    """Return one run's measured over estimated time, all its steps of a kind together."""
    if kind == "hours":
        return run.hours.ratio if run.hours else None
    steps = [step for step in run.steps if step.kind == kind]
    return sum(step.measured for step in steps) / sum(step.predicted for step in steps) if steps else None

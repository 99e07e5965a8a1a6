"""From the events of a run to what trackers are told: :class:`RunTracking` listens, :class:`TrackerSender` sends.

Of a plan's run, the whole run and each training (arm and seed) are runs of their own in the tracker, grouped under the name
of the run folder; ``tunewise train`` is one run. Nothing is sent but settings, counts, measurements, scores and the texts
of notes: no rows, no prompts, no answers, no keys, and of a path its last part.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import urlsplit

from rag.types import OnEvent
from runners.plan.schema import Plan
from runners.plan.train_config import TrainConfig
from runners.report.records import ArmReport, Estimate
from runners.report.trial_report import TrialReport
from runners.run_folder import TRACKING
from runners.tracking.clients import TRACKERS
from runners.tracking.records import (
    WHOLE,
    Begin,
    End,
    Flush,
    Forget,
    MetricRow,
    Note,
    RunStatus,
    Summary,
    TrackedRun,
    TrackerRecord,
    metric_name,
    tracker_names,
)
from runners.tracking.sender import TrackerSender

_STEP_VALUES = ("loss", "grad_norm", "learning_rate", "tokens", "tokens_per_s")
"""Keys of a ``train.step`` event that are metrics; tokens are those trained on so far."""
_START_FACTS = ("rows", "tokens", "steps", "trainable", "path", "kernels", "optimizer")
"""Keys of a ``train.start`` event that are parameters of the training."""
_RESULTS = ("first_loss", "last_loss", "valid_loss", "steps", "tokens", "seconds", "tokens_per_s", "left_out")
"""Keys of a ``train.end`` event that are results."""
_NOTES = ("train.memory", "train.overflow", "train.restart", "train.moved", "train.damage")
"""Kinds of events of which the reason becomes a note."""
_PATH_IN_TEXT = re.compile(r"(?<![\w:/.])(?:/|[A-Za-z]:\\|~/|\.\.?/)[^\s'\",;]*[/\\]([^\s'\",;/\\]+)")


class RunTracking:
    """Turns the events of a run into records, and hands them to every chosen tracker without waiting."""

    def __init__(
        self,
        name: str,
        facts: Mapping[str, Any],
        senders: Sequence[TrackerSender],
        plan: Plan | None = None,
    ) -> None:
        """Begin nothing yet: a run begins with the event of its start.

        Args:
            name: name of the run.
            facts: its parameters.
            senders: where records go.
            plan: the plan; None for a training by itself.
        """
        self.name, self.facts, self.senders, self.plan = name, public_facts(facts), senders, plan
        self._open: list[str] = []
        self._early: list[Note] = []
        """Notes on a training that has not begun."""

    def listen_with(self, other: OnEvent) -> OnEvent:
        """Return a handler that passes each event to ``other`` and to the trackers."""
        if not self.senders:
            return other

        def on_event(event: dict[str, Any]) -> None:
            self.update(event)
            other(event)

        return on_event

    def update(self, event: Mapping[str, Any]) -> None:
        """Record one event; most kinds are of no interest to a tracker."""
        kind = str(event.get("event", ""))
        if kind == "run.start":
            facts = {"plan_sha256": event["plan"], "split": event["split"], "gpu": event["gpu"]}
            self._begin(TrackedRun(WHOLE, self.name, {**self.facts, **facts}))
        elif kind == "train.start":
            self._start_training(event)
        elif kind == "train.step":
            values = {f"train/{name}": float(event[name]) for name in _STEP_VALUES if name in event}
            self._send(MetricRow(self._key(event), "train", int(event["step"]), values))
        elif kind == "train.eval":
            values = {"eval/loss": float(event["loss"]), "eval/best_loss": float(event["best"])}
            self._send(MetricRow(self._key(event), "eval", int(event["step"]), values))
        elif kind in _NOTES:
            self._note(kind, event)
        elif kind == "train.checkpoint":
            self._send(Flush())
        elif kind == "train.end":
            self._end_training(event)

    def report(self, report: TrialReport) -> None:
        """Record the scores of all arms with their intervals, and the verdict."""
        if WHOLE not in self._open:
            self._begin(TrackedRun(WHOLE, self.name, self.facts))
        names = ("outcome", "strength", "recommended", "winner", "use", "gate_met", "text")
        values = {name: getattr(report.verdict, name) for name in names}
        tags = {name: str(value) for name, value in values.items() if value is not None}
        self._send(Summary(WHOLE, score_values(report.arms), tags))

    def locations(self) -> list[str]:
        """Return a line for each tracker that a run began in, with where its runs are seen."""
        return [
            f"tracked by {sender.name}: {sender.tracker.location()}"
            for sender in self.senders
            if sender.has_begun
        ]

    def end(self, status: RunStatus) -> None:
        """Record how the run ended, for every part of it that is open."""
        for key in reversed(self._open):
            self._send(End(key, status))
        self._open.clear()

    def _key(self, event: Mapping[str, Any]) -> str:
        return WHOLE if self.plan is None else f"{event['arm']}-s{event['seed']}"

    def _begin(self, run: TrackedRun) -> None:
        if run.key not in self._open:
            self._open.append(run.key)
        self._send(Begin(run))

    def _start_training(self, event: Mapping[str, Any]) -> None:
        """Begin the run of a training, with its settings; notes that came before follow."""
        key = self._key(event)
        facts = {name: event[name] for name in _START_FACTS if name in event}
        done = int(event.get("from_step", 0))
        if self.plan is None:
            self._begin(TrackedRun(key, self.name, {**self.facts, **facts}, from_step=done))
        else:
            step = self.plan.train_step(event["arm"])
            settings = step.config(int(event["seed"]), None).to_json()
            arm = {"arm": step.arm, "model": public_model_name(self.plan.model_of(step).name)}
            config = public_facts({**settings, **facts, **arm})
            self._begin(TrackedRun(key, f"{self.name}/{key}", config, self.name, done))
        for note in self._early:
            self._send(note)
        self._early.clear()

    def _note(self, kind: str, event: Mapping[str, Any]) -> None:
        key = self._key(event)
        text = cut_paths(str(event["reason"]))
        note = Note(key, kind.partition(".")[2], text, int(event.get("step", 0)))
        if kind == "train.restart":
            self._send(Forget(key))
        if key in self._open:
            self._send(note)
        else:
            self._early.append(note)

    def _end_training(self, event: Mapping[str, Any]) -> None:
        """Record the results of a training; that of a plan ends here, the only one with the command."""
        key = self._key(event)
        values = {f"result/{name}": float(event[name]) for name in _RESULTS if event.get(name) is not None}
        notes = "; ".join(map(str, event.get("notes", ())))
        self._send(Summary(key, values, {"notes": cut_paths(notes)} if notes else {}))
        if self.plan is not None and key in self._open:
            self._open.remove(key)
            self._send(End(key, "finished"))

    def _send(self, record: TrackerRecord) -> None:
        for sender in self.senders:
            sender.put(record)


@contextmanager
def track_run(
    plan: Plan,
    out: Path,
    resume: bool,
    trackers: Sequence[str] = (),
    warn: Callable[[str], None] | None = None,
) -> Iterator[RunTracking]:
    """Track a plan's run, in ``out/tracking``, until the block ends; how it ends is recorded.

    Args:
        plan: the plan.
        out: the run folder.
        resume: whether the runs of the trackers are continued, which are recorded in the folder.
        trackers: names of trackers; without any, nothing is done.
        warn: receives the line about a tracker that fails; stderr by default.
    """
    facts = plan_facts(plan)
    with _tracked(out.resolve().name, facts, plan, out / TRACKING, resume, trackers, warn) as tracking:
        yield tracking


@contextmanager
def track_training(
    config: TrainConfig,
    model: str,
    out: Path,
    resume: bool,
    trackers: Sequence[str] = (),
    warn: Callable[[str], None] | None = None,
) -> Iterator[RunTracking]:
    """Track one training beside its result, in ``OUT.tracking``; see :func:`track_run`.

    The folder of the weights itself is replaced when they are published, and may be handed on.

    Args:
        config: its settings.
        model: name of the base model.
        out: folder of its result.
        resume: whether the runs of the trackers are continued.
        trackers: names of trackers; without any, nothing is done.
        warn: receives the line about a tracker that fails; stderr by default.
    """
    folder = out.resolve().parent / f"{out.resolve().name}.{TRACKING}"
    facts = {**config.to_json(), "model": public_model_name(model)}
    with _tracked(out.resolve().name, facts, None, folder, resume, trackers, warn) as tracking:
        yield tracking


@contextmanager
def _tracked(
    name: str,
    facts: Mapping[str, Any],
    plan: Plan | None,
    folder: Path,
    resume: bool,
    trackers: Sequence[str],
    warn: Callable[[str], None] | None,
) -> Iterator[RunTracking]:
    """Start a thread for each tracker; at the end, record how the run ended, and say what was not sent."""
    warn = warn or _print_line
    senders = [
        TrackerSender(tracker, TRACKERS[tracker].make(folder), folder / f"{tracker}.json", resume, warn)
        for tracker in tracker_names(trackers)
    ]
    tracking = RunTracking(name, facts, senders, plan)
    status: RunStatus = "failed"
    try:
        yield tracking
        status = "finished"
    except (KeyboardInterrupt, SystemExit):
        status = "killed"
        raise
    finally:
        tracking.end(status)
        for sender in senders:
            if unsent := sender.close(status):
                warn(f"tracking by {sender.name}: {unsent:,} records were not sent")


def plan_facts(plan: Plan) -> dict[str, Any]:
    """Return what is recorded of a plan: names and settings, nothing of its data."""
    return {
        "plan": plan.name,
        "choice": plan.choice,
        "model": ", ".join(public_model_name(model.name) for model in plan.models.values() or (plan.model,)),
        "model_fingerprint": plan.model.fingerprint,
        "arms": ", ".join(arm.arm for arm in plan.arms),
        "seed": plan.seed,
        "parallel": plan.parallel,
    }


def public_model_name(name: str) -> str:
    """Return the name of a model without the folders it lies in, or the address of its endpoint beyond the host."""
    if remote := re.fullmatch(r"openai:(.+?)@(https?://.*)", name):
        return f"openai:{remote[1]}@{urlsplit(remote[2]).hostname}"
    known_form = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) and not name.startswith(".")
    return name if known_form and not Path(name).is_dir() else Path(name).name


def public_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts as plain values: lists as text, and of a path its last part."""
    return {name: _public(value) for name, value in facts.items()}


def cut_paths(text: str) -> str:
    """Return a text in which each path of several parts is its last part."""
    return _PATH_IN_TEXT.sub(r"\1", text)


def score_values(arms: Iterable[ArmReport]) -> dict[str, float]:
    """Return the scores of a report's arms by name: ARM/SCORE with ARM/SCORE_low and _high, the ends of the interval.

    The combined score is ARM/score; ARM/right is the share of right answers, ARM/questions their number.
    """
    values: dict[str, float] = {}
    for arm in arms:
        values[metric_name(arm.arm, "questions")] = float(arm.n)
        shown = {"score": arm.score, **arm.scores}
        if right := arm.right:
            shown["right"] = Estimate(mean=right.share, low=right.low, high=right.high)
        for name, score in shown.items():
            for suffix, value in (("", score.mean), ("_low", score.low), ("_high", score.high)):
                values[metric_name(arm.arm, f"{name}{suffix}")] = value
        values[metric_name(arm.arm, "seconds_per_answer")] = arm.seconds_per_answer
    return values


def _public(value: Any) -> Any:
    """Return one fact as a plain value."""
    if isinstance(value, list | tuple):
        return ", ".join(str(_public(item)) for item in value)
    if isinstance(value, str):
        for kind in (PurePosixPath, PureWindowsPath):
            if kind(value).is_absolute() or value.startswith(("~", "./", "../")):
                return kind(value).name
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


def _print_line(line: str) -> None:
    print(f"  {line}", file=sys.stderr)

"""Predictions held against measurements: training time, memory and the seconds of each step.

:func:`predicted_pairs` gives both figures of the chosen arm, :func:`prediction_line` the text for a report.
Memory is compared for training alone, as the estimate is; the whole process, which has to fit, is shown
beside it. :func:`remember_run` adds a finished run to the user's history, :func:`hours_line` and
:func:`time_corrections` give what earlier runs here say about an estimate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from advisor import history
from advisor.costs.step_time import estimate_step_times
from advisor.evidence.trials import situation_features
from advisor.history import Correction, Kind, PastRun, PredictedMeasured, TimedStep
from advisor.questionnaire.answers import Answer
from advisor.questionnaire.questions import QUESTION_BY_ID
from rag.errors import CannotRun
from rag.files import canonical_json, sha256_text
from rag.text.words import count_noun
from runners.plan.arm_names import split_arm
from runners.plan.forecast import NO_FORECAST, OUTDATED
from runners.plan.named_models import asked_models
from runners.plan.schema import Plan
from runners.plan.steps import TrainStep
from runners.report.json_records import to_json
from runners.report.records import Strength
from runners.report.trial_report import StepReport, TrialForecast, TrialReport, arm_named
from runners.resources.machine import GIB, Machine, detect_machine
from runners.resources.memory_estimate import CPU_ACCURACY, ESTIMATE_ACCURACY
from runners.resources.memory_terms import CUDA_CONTEXT_BYTES
from runners.run_folder import RunFolder

if TYPE_CHECKING:
    from advisor.questionnaire.gather import Situation
    from advisor.recommendation.recommend import BaseRecommendation

RUNTIME_GIB = CUDA_CONTEXT_BYTES / GIB
"""GiB that a plan's figure includes for the device's runtime, beside training."""
_KINDS: Mapping[str, Kind] = {
    "index": "index",
    "embedder": "embedder",
    "train": "train",
    "evaluate": "evaluate",
}
RunLabel = Literal["run", "demo"]
Trainings = Mapping[str, Sequence[Mapping[str, Any]] | None]
"""By arm, the results of its trainings as the step recorded them, one for each seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredMemory:
    """Memory of the training run that took most; GiB, None where it was not recorded."""

    own: float | None = None
    """How far the peak rose above what was allocated before: weights, gradients, optimiser, activations."""
    expected: float | None = None
    """The estimate of exactly that, for the run's own settings and method."""
    peak: float | None = None
    """The peak of everything: the process, or on a GPU what torch had reserved there."""
    held: float | None = None
    """What was allocated before training began."""
    method: str = "lora"
    on_gpu: bool = False

    @property
    def expected_range(self) -> tuple[float, float, float] | None:
        """Low, likely and high of the estimate, with the spread seen in published runs, on a CPU in our own."""
        if self.expected is None:
            return None
        published = ESTIMATE_ACCURACY.get(self.method, ESTIMATE_ACCURACY["lora"])  # type: ignore[call-overload]
        spread = published if self.on_gpu else CPU_ACCURACY
        return self.expected * spread.low, self.expected, self.expected * spread.high

    @property
    def whole(self) -> str:
        """A sentence on the peak of everything and what of it was there before; "" where it is not known."""
        if self.peak is None:
            return ""
        if self.on_gpu:
            return f"torch had reserved {self.peak:.2g} GiB of the GPU at the peak"
        before = (
            ""
            if self.held is None
            else f", {self.held:.2g} of it before training (libraries, index, embedder)"
        )
        return f"the whole process used {self.peak:.2g} GiB at its peak{before}"


def largest_memory(runs: Iterable[Mapping[str, Any]]) -> MeasuredMemory:
    """Return the memory of the run that took most."""
    measured = [run for run in runs if run.get("peak_gib")]
    if not measured:
        return MeasuredMemory()
    run = max(measured, key=lambda candidate: (candidate.get("own_gib") or 0.0, candidate["peak_gib"]))
    return MeasuredMemory(
        own=run.get("own_gib"),
        expected=run.get("expected_gib"),
        peak=max(candidate["peak_gib"] for candidate in measured),
        held=run.get("held_gib"),
        method=str(run.get("method", "lora")),
        on_gpu=bool(run.get("on_gpu")),
    )


def memory_lines(memory: MeasuredMemory, planned: float | None, assumed: Sequence[str] = ()) -> list[str]:
    """Return lines with estimated and measured training memory, the whole process, the plan's figure."""
    lines = []
    if memory.own is not None:
        guess = "not estimated" if memory.expected is None else f"estimated {memory.expected:.2g} GiB"
        lines.append(f"memory of training: {guess}, measured {memory.own:.2g} GiB")
    elif memory.peak is not None:
        lines.append("memory of training: not measured separately from the process")
    if memory.whole:
        lines.append(memory.whole)
    if planned is not None and memory.peak is not None:
        why = "".join(f" for {text}" for text in assumed if "tokens at a time" in text)
        part = "the runtime of the GPU" if memory.on_gpu else "needed on a GPU only"
        lines.append(f"the plan estimated {planned:.2g} GiB{why}, {RUNTIME_GIB:.1f} of it {part}")
    return lines


def prediction_line(report: TrialReport) -> list[str]:
    """Return lines with what was predicted of the chosen arm and what was measured."""
    choice, measured = report.verdict.recommended, report.measured
    ranked = report.predicted.get("ranked") or ()
    arms = [arm.arm for arm in report.arms]
    lines = [] if report.predicted else [NO_FORECAST]
    if both := [row["method"] for row in ranked if row["method"] in arms]:
        lines.append(
            f"order predicted {' > '.join(both)}; measured {' > '.join(a for a in arms if a in both)}"
        )
    row = next((row.get("estimate") or {} for row in ranked if row["method"] == choice), {})
    if measured.hours:
        hours = (row.get("hours") or {}).get("likely")
        lines.append(_predicted_and_measured("training", hours, measured.hours, "h"))
    memory = MeasuredMemory(
        own=measured.memory_gib,
        expected=measured.memory_expected_gib,
        peak=measured.process_gib,
        held=measured.held_gib,
        on_gpu=any(run.get("on_gpu") for runs in measured.training.values() for run in runs or ()),
    )
    lines += memory_lines(memory, (row.get("memory_gib") or {}).get("likely"), row.get("assumptions") or ())
    if (arm := arm_named(report.arms, choice)) and arm.usd_per_1000 is not None:
        call = row.get("per_call_usd")
        predicted = None if call is None else call * 1000
        lines.append(_predicted_and_measured("1,000 calls", predicted, arm.usd_per_1000, "USD"))
    if measured.ratios.not_compared:
        lines.append(f"not compared further: {measured.ratios.not_compared}")
    return lines


def predicted_pairs(
    plan: Plan, trainings: Trainings, proxy: bool
) -> tuple[PredictedMeasured | None, PredictedMeasured | None]:
    """Return hours and memory of the chosen arm as pairs; None where they cannot be compared.

    Memory is that of training alone, compared with the estimate for the run's own settings.
    """
    if why_incomparable(plan, proxy):
        return None, None
    likely = (_estimate(plan).get("hours") or {}).get("likely")
    memory = largest_memory(training_runs(plan, trainings))
    hours = predicted_measured(likely, measured_training_hours(plan, trainings))
    return hours, predicted_measured(memory.expected, memory.own)


def predicted_measured(predicted: float | None, measured: float | None) -> PredictedMeasured | None:
    """Return both figures as a pair; None when either is missing or 0."""
    return PredictedMeasured(predicted=predicted, measured=measured) if predicted and measured else None


def why_incomparable(plan: Plan, proxy: bool) -> str:
    """Return why the prediction is about other work than was measured; "" when it is the same."""
    if proxy:
        return "measured on another model than the one that was planned for"
    if outdated := plan.predicted.get(OUTDATED):
        return str(outdated)
    kind = plan.answers.get("gpu_kind")
    if kind is not None and kind.source != "detected":
        return "predicted for a machine that a person described, not for the one found here"
    if is_quick(plan):
        return f"a quick run trains on at most {plan.data.max_examples} rows, once"
    counted = plan.answers.get("labelled_examples")
    most = plan.data.max_examples
    if most is not None and counted is not None and counted.value and most < counted.value:
        return f"trained on {most} of the {count_noun(counted.value, 'example')} that were predicted for"
    return ""


def is_quick(plan: Plan) -> bool:
    """Return whether the plan was shortened by ``--quick``: as its reasons state, or by the limits of its data."""
    from runners.trial.execute import QUICK_LIMITS

    limits = [(getattr(plan.data, key), most) for key, most in QUICK_LIMITS.items()]
    return all(limit is not None and limit <= most for limit, most in limits) or any(
        isinstance(step, TrainStep) and "--quick" in step.reasons.get("epochs", "") for step in plan.steps
    )


def measured_training_hours(plan: Plan, trainings: Trainings) -> float | None:
    """Return the hours that training the chosen arm took, one seed; None where it was not trained."""
    runs = [
        [run["seconds"] for run in trainings.get(arm) or () if run.get("seconds")]
        for arm in _trained_arms(plan)
    ]
    return sum(sum(seconds) / len(seconds) for seconds in runs if seconds) / 3600 or None


def timed_steps(
    plan: Plan,
    seconds: Mapping[str, float],
    trainings: Trainings,
    events: Sequence[Mapping[str, Any]],
    test_questions: int,
) -> tuple[StepReport, ...]:
    """Return each step's seconds, estimated and measured, without interrupted steps.

    Estimates are those before any correction, for the rows that were trained on.
    """
    rows = max((run.get("rows", 0) for runs in trainings.values() for run in runs or ()), default=0)
    broken = interrupted_steps(events)
    timed = []
    for name, estimated in estimate_step_times(plan, rows, test_questions):
        took = seconds.get(name)
        kind, _, arm = name.partition(":")
        if took and estimated and name not in broken and kind in _KINDS:
            step = TimedStep(kind=_KINDS[kind], arm=arm, predicted=round(estimated, 1), measured=took)
            timed.append(StepReport(**step.model_dump(), ratio=round(step.ratio, 3)))
    return tuple(timed)


def interrupted_steps(events: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the steps started more than once before they were done: only their last part was timed."""
    starts: dict[str, int] = {}
    done: set[str] = set()
    for event in events:
        step = str(event.get("step"))
        if event.get("event") == "step.done":
            done.add(step)
        elif event.get("event") == "step.start" and step not in done:
            starts[step] = starts.get(step, 0) + 1
    return {step for step, count in starts.items() if count > 1}


def remember_run(run: RunFolder, plan: Plan, report: TrialReport, label: RunLabel = "run") -> str:
    """Add a finished run with its report to the history; return why that failed, "" when it worked."""
    if history.history_file() is None:
        return ""
    return history.append_to_history(past_run(run, plan, report, label, detect_machine(run.path)))


def past_run(run: RunFolder, plan: Plan, report: TrialReport, label: RunLabel, machine: Machine) -> PastRun:
    """Return the history entry of a run: prediction, measurement, verdict, machine; no text of the user's."""
    verdict, busy = report.verdict, report.measured.busy
    hours, memory = predicted_pairs(plan, report.measured.training, verdict.strength is Strength.PROXY)
    # A time that was measured on a busy machine would make every later estimate too long.
    if any(f"train:{arm}" in busy for arm in _trained_arms(plan)):
        hours = None
    steps = [
        TimedStep(kind=step_kind(step.kind), arm=step.arm, predicted=step.predicted, measured=step.measured)
        for step in report.measured.steps
    ]
    started = next((e["time"] for e in run.events() if e.get("event") == "run.start" and "time" in e), None)
    return PastRun(
        id=sha256_text(canonical_json([plan.digest(), started]))[:16],
        day=date.today().isoformat(),
        label=label,
        quick=is_quick(plan),
        machine=history.machine_mark(machine),
        model=public_model_names(plan),
        choice=plan.choice,
        plan=plan.digest(),
        outcome=verdict.outcome.value,
        strength=verdict.strength.value,
        winner=verdict.use,
        decided_by="use",
        questions=max((arm.n for arm in report.arms), default=None),
        **_advice(plan, report.forecast),
        arms=[{"arm": arm.arm, **to_json(arm.score), "n": arm.n} for arm in report.arms],
        differences=to_json(report.paired),
        features=_features(plan),
        hours=hours,
        memory_gib=memory,
        memory_of="training",
        steps=tuple(step for step in steps if step.name not in busy),
    )


def _advice(plan: Plan, forecast: TrialForecast | None) -> dict[str, Any]:
    """Return what the history keeps to score the advice: the probability that was stated.

    {} for a plan without a probability, or one that was changed after its prediction was made.
    """
    if forecast is None or plan.predicted.get(OUTDATED):
        return {}
    return {"confidence": plan.predicted.get("confidence"), "probability": forecast.probability}


def _features(plan: Plan) -> dict[str, Any]:
    """Return the situation of a plan as the history keeps it: known answers without texts and paths."""

    answers = {
        key: Answer(answer.value, answer.source)
        for key, answer in plan.answers.items()
        if key in QUESTION_BY_ID
    }
    features = situation_features(answers)
    return features | ({"model": public_model_name(features["model"])} if "model" in features else {})


def hours_line(rec: BaseRecommendation, situation: Situation) -> str:
    """Return the hours as earlier runs here correct them; "" without such runs, or for another machine.

    The advice and its own figures stay as they are: only this line is corrected.
    """
    hours = rec.estimates[rec.choice].hours
    kind = situation.answers.get("gpu_kind")
    if not hours or not hours.likely or (kind is not None and kind.source != "detected"):
        return ""
    model = situation.profile.model or ""
    correction = time_corrections(model)["hours"]
    if not correction.runs:
        return ""
    return (
        f"Training {rec.choice}: about {_hours(hours.likely)} by the estimate, about "
        f"{_hours(hours.likely * correction.factor)} {correction.text} (tunewise history)"
    )


def public_model_name(model: str) -> str:
    """Return a model's name without its location: the last part of a path, an endpoint's model name."""
    if model.startswith("openai:"):
        return model.partition("@")[0]
    return Path(model).name or model


def public_model_names(plan: Plan) -> str:
    """Return the name of a plan's model, or those of the models that it compares, without their locations."""
    models = plan.models.values() if plan.models else (plan.model,)
    return ", ".join(dict.fromkeys(public_model_name(model.name) for model in models))


def time_corrections(model: str, machine: Machine | None = None) -> dict[Kind, Correction]:
    """Return the correction of every kind of time estimate from earlier runs here; 1 without any.

    A history that cannot be read corrects nothing; `tunewise history` says why.
    """
    kinds: tuple[Kind, ...] = ("index", "embedder", "train", "evaluate", "hours")
    try:
        runs = history.read_history().runs
    except CannotRun:
        runs = ()
    if not runs:
        return dict.fromkeys(kinds, history.NO_CORRECTION)
    here = history.machine_mark(machine or detect_machine(Path("runs")))
    return {kind: history.time_correction(runs, here, kind, public_model_name(model)) for kind in kinds}


def corrected_step_times(
    plan: Plan, examples: int, questions: int
) -> tuple[list[tuple[str, float, float]], dict[Kind, Correction]]:
    """Return every step with its seconds, estimated and corrected by earlier runs here, and the corrections by kind.

    What is measured beside the steps (forgetting) generates answers, so it is corrected as they are. Where a plan compares
    several models, each step has the corrections of its own; those returned are of the plan's ``model``.
    """
    from advisor.costs.speed_measurement import training_measured

    of_model = {"": time_corrections(plan.model.name)}
    of_model |= {
        alias: time_corrections(model.name)
        for alias, model in asked_models(plan.models, plan.teacher).items()
    }
    for alias in ("", *plan.models):
        if training_measured(plan, alias):
            # Earlier runs correct the estimate from FLOPs; a speed that was measured here needs no correction.
            of_model[alias] = {**of_model[alias], "train": history.NO_CORRECTION}
    rows = [
        (name, seconds, seconds * of_model[split_arm(name)[1]][step_kind(name)].factor)
        for name, seconds in estimate_step_times(plan, examples, questions)
    ]
    return rows, of_model[""]


def step_kind(name: str) -> Kind:
    """Return the kind of a step of this name."""
    return _KINDS.get(name.partition(":")[0], "evaluate")


def _predicted_and_measured(quantity: str, predicted: float | None, measured: float, unit: str) -> str:
    """Return a line with a predicted and a measured figure in the same unit."""
    guess = "not predicted" if predicted is None else f"predicted {predicted:.2g} {unit}"
    return f"{quantity}: {guess}, measured {measured:.2g} {unit}"


def training_runs(plan: Plan, trainings: Trainings) -> list[Mapping[str, Any]]:
    """Return the training runs of the chosen arm, those it started from included."""
    return [run for arm in _trained_arms(plan) for run in trainings.get(arm) or ()]


def _trained_arms(plan: Plan) -> list[str]:
    """Return the arms of which the chosen arm uses the weights: its own, and those that it started from."""
    arm = next((step.weights for step in plan.arms if step.arm == plan.choice), None)
    arms = []
    while arm:
        arms.append(arm)
        arm = plan.train_step(arm).start_from
    return arms


def _estimate(plan: Plan) -> Mapping[str, Any]:
    """Return the recorded estimate of the plan's choice."""
    ranked = plan.predicted.get("ranked") or ()
    return next((row.get("estimate") or {} for row in ranked if row.get("method") == plan.choice), {})


def _hours(hours: float) -> str:
    """Return a duration in minutes below one hour, at least one, else in hours."""
    return f"{max(1, round(hours * 60))} min" if hours < 1 else f"{hours:.1f} h"

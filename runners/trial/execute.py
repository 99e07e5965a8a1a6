"""Carry out a plan: index, train, evaluate every arm, score; resumable after any step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rag.errors import BadInput, UsageProblem
from rag.files import disk_full_as_problem
from rag.types import OnEvent
from runners.arms import classifier, long_context
from runners.models import cards
from runners.models.resolve import Model
from runners.plan.schema import Plan, Step, read_plan, step_name
from runners.plan.steps import EvaluateStep, TrainStep
from runners.resources.environment import ENVIRONMENT_EVENT as ENVIRONMENT
from runners.resources.environment import describe_environment
from runners.resources.machine import Machine, detect_machine
from runners.run_folder import SCORES, TRIAL, RunFolder, read_journal
from runners.runs import dataset, recorded_models, requirements
from runners.runs.dataset import read_guarded
from runners.runs.run import Run, RunSession
from runners.runs.session import RunContext, model_identity, obtain_bases, obtain_model
from runners.trial import forgetting, judge, step_runner, trial

QUICK_LIMITS = {"max_examples": 120, "max_dev": 16, "max_test": 24}
QUICK_EPOCHS = 1.0
QUICK_PROMPTS = 12


def quick_plan(plan: Plan) -> Plan:
    """The same plan with fewer questions and rows and one epoch: minutes instead of a quarter of an hour."""
    data = plan.data.model_copy(
        update={key: min(most, getattr(plan.data, key) or most) for key, most in QUICK_LIMITS.items()}
    )
    few = plan.forgetting.model_copy(update={"prompts": min(QUICK_PROMPTS, plan.forgetting.prompts)})
    changed = {"steps": tuple(map(_quick_step, plan.steps)), "forgetting": few}
    return plan.model_copy(update={"data": data, **changed})


def _quick_step(step: Step) -> Step:
    if isinstance(step, EvaluateStep) and step.bank == "chosen":
        return step.model_copy(update={"budget": 0})
    if not isinstance(step, TrainStep):
        return step
    epochs = min(step.epochs, QUICK_EPOCHS)
    reasons = {**step.reasons, "epochs": f"{epochs:g} because --quick takes one pass"}
    if len(step.seeds) > 1 or "seeds" in reasons:
        reasons["seeds"] = "1 because --quick trains one seed"
    return step.model_copy(update={"epochs": epochs, "seeds": step.seeds[:1], "reasons": reasons})


def run(
    plan: Plan | Path | str,
    out: Path | str | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    quick: bool = False,
    only: str | None = None,
    on_event: OnEvent | None = None,
) -> Run:
    """Carry out a plan (or the file of one) into a folder, by default ``runs/NAME``, and return the run.

    ``resume`` goes on after the last finished step, ``overwrite`` starts again, ``quick`` takes fewer rows and
    questions, ``only`` runs one step; ``on_event`` hears what happens. Raises UsageProblem for a folder that
    exists, BadInput for bad data or leaking questions, CannotRun when this machine cannot do it.
    """
    if resume and overwrite:
        raise UsageProblem("resume and overwrite exclude each other", "choose one")
    plan = plan if isinstance(plan, Plan) else read_plan(Path(plan))
    plan = quick_plan(plan) if quick else plan
    path = Path(out) if out is not None else Path("runs") / plan.name
    folder = run_plan(plan, path, resume, overwrite, only, on_event)
    return Run(RunSession(folder, plan, on_event))


def run_plan(
    plan: Plan,
    out: Path,
    resume: bool = False,
    overwrite: bool = False,
    only: str | None = None,
    on_event: OnEvent | None = None,
) -> RunFolder:
    """Run the plan's steps into a folder, skipping what is finished there; `only` names one step to run.

    Raises UsageProblem on an existing folder, BadInput on bad data or leaking questions, CannotRun when this
    machine cannot do it. Everything is checked before the first step starts.
    """
    named = [(step_name(step), step) for step in plan.steps]
    if only and only not in [name for name, _ in named]:
        raise BadInput(f"the plan has no step {only!r}", f"its steps: {', '.join(name for name, _ in named)}")
    examples, split, left_out = read_guarded(plan, on_event)
    forgetting.check_forgetting_file(plan)
    bases = obtain_bases(plan, on_event)
    base = bases[plan.model.name]
    embedder = (
        obtain_model(plan.embedder, "embedder", on_event) if requirements.needs_embedder(plan) else None
    )
    machine = detect_machine(out)
    requirements.check_requirements(plan, base.folder if isinstance(base, Model) else None, out, machine)
    classifier.check_classifier_plan(plan, examples)
    long_context.check_long_context(plan, bases, embedder, (*split.dev, *split.test), on_event)
    run = RunFolder.create(out, plan, resume, overwrite)
    with run.writing():
        context = RunContext(plan, run, base, embedder, examples, split, on_event, bases)
        _tell_start(context, left_out, machine)
        total = len(named) + bool(forgetting.tuned_arms(plan))
        worked = [
            _step(context, name, step, number, total)
            for number, (name, step) in enumerate(named)
            if only in (None, name)
        ]
        # A finished trial is not scored again: the index may have moved on since, and gold spans with it.
        if only is None and (any(worked) or not (run.path / TRIAL / SCORES).is_file()):
            _score(context)
        if only is None:
            judge.judge_trial(context)
        if only is None and total > len(named):
            _forgetting(context, total)
    return run


def _tell_start(context: RunContext, left_out: int, machine: Machine) -> None:
    """Tell what the run starts from: plan, split, weights, what leaks, and where it runs."""
    plan, split = context.plan, context.split
    asked = (*split.dev, *split.test)
    leaking = dataset.count_leaks(plan, context.examples, asked, left_out)
    told = {
        "plan": plan.digest(),
        "split": split.digest,
        "base": model_identity(context.base),
        "models": recorded_models.recorded_fingerprints(plan, context.bases, context.embedder_model),
        "overlap": leaking["exact"] + leaking["normalised"] + leaking["same_fact"],
        "leakage": leaking,
        "gpu": machine.gpu_name.value,
        "kernels": plan.kernels,
    }
    context.emit({"event": "run.start", **told})
    if plan.ignored:
        context.emit({"event": "plan.note", "reason": plan.ignored})
    context.emit({"event": ENVIRONMENT, **describe_environment()})


def _step(context: RunContext, name: str, step: Step, number: int, total: int) -> bool:
    """Do a step, or skip it when it is finished; return whether there was anything to do."""
    inputs = step_runner.step_inputs(context, step)
    context.emit({"event": "step.start", "step": name, "number": number + 1, "total": total})
    done = context.run.finished(name, inputs)
    if done is not None:
        context.emit({"event": "step.skip", "step": name})
        return False
    context.run.unseal()
    result = step_runner.run_step(context, step)
    context.run.finish(name, inputs, result)
    context.emit({"event": "step.end", "step": name, **result})
    return True


def _forgetting(context: RunContext, number: int) -> None:
    """Measure what tuning cost elsewhere, unless that is known for these weights."""
    name, made_from = forgetting.STEP, forgetting.forgetting_inputs(context)
    context.emit({"event": "step.start", "step": name, "number": number, "total": number})
    if context.run.finished(name, made_from) is not None:
        context.emit({"event": "step.skip", "step": name})
        return
    context.run.unseal()
    with disk_full_as_problem(context.run.path):
        result = forgetting.measure_forgetting(context)
    context.run.finish(name, made_from, result)
    context.emit({"event": "step.end", "step": name, **result})


def _score(context: RunContext) -> None:
    if not context.plan.arms:
        return
    folder = context.run.path / TRIAL
    rows = read_journal(folder / trial.ANSWERS)
    arms = trial.score_trial(
        context.plan,
        context.split.test,
        rows,
        lambda q: step_runner.gold_text(context, q),
    )
    trial.write_scores(arms, folder / SCORES)
    _tell_weights(context, arms)


def _tell_weights(context: RunContext, arms: Sequence[trial.ArmScores]) -> None:
    """Put an arm's scores into the manifest and card of the weights that are its own."""
    scores = {arm.arm: trial.with_intervals(arm) for arm in arms if arm.questions}
    trained = [step for step in context.plan.steps if isinstance(step, TrainStep) and step.arm in scores]
    for step in trained:
        for seed in step.seeds:
            cards.rewrite_card(context.run.adapter(step.arm, seed), scores[step.arm])

"""Carry out a plan: index, train, evaluate every arm, score; resumable after any step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rag.durable import writing_into
from rag.errors import BadInput
from runners import (
    card,
    classify,
    forgetting,
    judge,
    leakage,
    outfit,
    recorded,
    require,
    steps,
    trial,
    untuned,
    whole,
)
from runners.bench import Bench, identity, obtain, obtain_bases
from runners.data import Example, ExampleSet, Question, load_examples, load_questions, overlap
from runners.machine import Machine, detect
from runners.models import Model
from runners.plan import EvaluateStep, Plan, Step, TrainStep, step_name
from runners.rundir import TRIAL, OnEvent, RunFolder, read_lines
from runners.split import Split, split_questions
from runners.surroundings import EVENT as ENVIRONMENT
from runners.surroundings import surroundings

QUICK = {"max_examples": 120, "max_dev": 16, "max_test": 24}
QUICK_EPOCHS = 1.0
QUICK_PROMPTS = 12


def quick(plan: Plan) -> Plan:
    """The same plan with fewer questions and rows and one epoch: minutes instead of a quarter of an hour.

    House style is left out where it weighs nothing: it would take more answers than an arm does here.
    """
    data = plan.data.model_copy(
        update={key: min(most, getattr(plan.data, key) or most) for key, most in QUICK.items()}
    )
    house = plan.house_style and bool(plan.weights.get("house_style"))
    few = plan.forgetting.model_copy(update={"prompts": min(QUICK_PROMPTS, plan.forgetting.prompts)})
    changed = {"steps": tuple(map(_quick_step, plan.steps)), "house_style": house, "forgetting": few}
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


def run_plan(
    plan: Plan,
    out: Path,
    resume: bool = False,
    overwrite: bool = False,
    only: str | None = None,
    on_event: OnEvent = None,
) -> RunFolder:
    """Run the plan's steps into a folder, skipping what is finished there; `only` names one step to run.

    Raises UsageProblem on an existing folder, BadInput on bad data or leaking questions, CannotRun when this
    machine cannot do it. Everything is checked before the first step starts.
    """
    named = [(step_name(step), step) for step in plan.steps]
    if only and only not in [name for name, _ in named]:
        raise BadInput(f"the plan has no step {only!r}", f"its steps: {', '.join(name for name, _ in named)}")
    examples, split, left_out = read_guarded(plan, on_event)
    forgetting.check(plan)
    bases = obtain_bases(plan, on_event)
    base = bases[plan.model.name]
    embedder = obtain(plan.embedder, "embedder", on_event) if outfit.needs_embedder(plan) else None
    machine = detect(out)
    require.check(plan, base.folder if isinstance(base, Model) else None, out, machine)
    classify.check(plan, examples)
    whole.check(plan, bases, embedder, (*split.dev, *split.test), on_event)
    run = RunFolder.create(out, plan, resume, overwrite)
    with run.writing():
        bench = Bench(plan, run, base, embedder, examples, split, on_event, bases)
        _tell_start(bench, left_out, machine)
        total = len(named) + bool(forgetting.tuned(plan))
        worked = [
            _step(bench, name, step, number, total)
            for number, (name, step) in enumerate(named)
            if only in (None, name)
        ]
        # A finished trial is not scored again: the index may have moved on since, and gold spans with it.
        if only is None and (any(worked) or not (run.path / TRIAL / trial.SCORES).is_file()):
            _score(bench)
        if only is None:
            judge.judge_trial(bench)
        if only is None and total > len(named):
            _forgetting(bench, total)
    return run


def _tell_start(bench: Bench, left_out: int, machine: Machine) -> None:
    """Tell what the run starts from: plan, split, weights, what leaks, and where it runs."""
    plan, split = bench.plan, bench.split
    asked = (*split.dev, *split.test)
    told = {
        "plan": plan.digest(),
        "split": split.digest,
        "base": identity(bench.base),
        "models": recorded.named(plan, bench.bases, bench.embedder_model),
        "overlap": len(overlap(bench.examples, asked)),
        "leakage": leakage.count(plan, bench.examples, asked, left_out),
        "gpu": machine.gpu_name.value,
        "kernels": plan.kernels,
    }
    bench.tell({"event": "run.start", **told})
    bench.tell({"event": ENVIRONMENT, **surroundings()})


def read_data(plan: Plan, on_event: OnEvent = None) -> tuple[tuple[Example, ...], Split]:
    """Read and check all data of a plan; rows and questions that are left out are told.

    Raises BadInput when a file is missing or broken, or when test questions are among the training rows.
    """
    return read_guarded(plan, on_event)[:2]


def read_examples(plan: Plan, on_event: OnEvent = None) -> tuple[Example, ...]:
    """Read a plan's examples, as many as it takes; () for a plan without, BadInput for a missing or broken file."""
    if not plan.data.examples:
        return ()
    loaded: ExampleSet = load_examples(plan.data.examples, plan.data.columns)
    if on_event:
        _tell_read(loaded, plan.data.examples, on_event)
    return _draw_examples(loaded.rows, plan.data.max_examples, plan.seed)


def read_guarded(plan: Plan, on_event: OnEvent = None) -> tuple[tuple[Example, ...], Split, int]:
    """Do as :func:`read_data`, and count the questions that are not asked because they nearly repeat rows."""
    require.documents(plan)
    examples = read_examples(plan, on_event)
    questions: tuple[Question, ...] = ()
    if plan.data.questions:
        questions = load_questions(plan.data.questions)
    own_test = load_questions(plan.data.test_questions) if plan.data.test_questions else ()
    questions, first = _guarded(plan, examples, questions, plan.data.questions, on_event)
    own_test, second = _guarded(plan, examples, own_test, plan.data.test_questions, on_event)
    split = split_questions(
        questions, plan.data.dev_share, plan.seed, own_test, plan.data.max_dev, plan.data.max_test
    )
    if plan.arms and not split.test:
        raise BadInput(
            "the plan measures arms, but there are no test questions", "give questions to the plan"
        )
    return examples, split, first + second


def _guarded(
    plan: Plan,
    examples: tuple[Example, ...],
    asked: tuple[Question, ...],
    place: Path | None,
    on_event: OnEvent,
) -> tuple[tuple[Question, ...], int]:
    """Return the questions that may be asked, and how many may not."""
    if place is None:
        return asked, 0
    found = leakage.guard(plan, examples, asked, place)
    if on_event and found.left_out:
        on_event(found.event(place))
    return found.questions, len(found.left_out)


def _tell_read(loaded: ExampleSet, path: Path, on_event: Callable[[dict[str, Any]], None]) -> None:
    """Tell how the examples were understood, and everything of them that is left out."""
    understood = {"rows": len(loaded.rows), "format": loaded.format, "columns": dict(loaded.columns)}
    on_event({"event": "examples.read", "file": str(path), **understood, "notes": list(loaded.notes)})
    for skipped in loaded.skipped:
        on_event({"event": "file.skipped", "file": skipped.file, "reason": skipped.reason})
    for row in loaded.rejected:
        place = path / row.file if path.is_dir() else path
        on_event({"event": "row.rejected", "file": str(place), "line": row.line, "reason": row.reason})


def _draw_examples(rows: tuple[Example, ...], most: int | None, seed: int) -> tuple[Example, ...]:
    if most is None or most >= len(rows):
        return rows
    import random

    kept = sorted(random.Random(seed).sample(range(len(rows)), most))
    return tuple(rows[i] for i in kept)


def _step(bench: Bench, name: str, step: Step, number: int, total: int) -> bool:
    """Do a step, or skip it when it is finished; return whether there was anything to do."""
    inputs = steps.inputs(bench, step)
    bench.tell({"event": "step.start", "step": name, "number": number + 1, "total": total})
    done = bench.run.finished(name, inputs)
    if done is not None:
        bench.tell({"event": "step.skip", "step": name})
        return False
    bench.run.unseal()
    result = steps.carry_out(bench, step)
    bench.run.finish(name, inputs, result)
    bench.tell({"event": "step.end", "step": name, **result})
    return True


def _forgetting(bench: Bench, number: int) -> None:
    """Measure what tuning cost elsewhere, unless that is known for these weights."""
    name, made_from = forgetting.STEP, forgetting.inputs(bench)
    bench.tell({"event": "step.start", "step": name, "number": number, "total": number})
    if bench.run.finished(name, made_from) is not None:
        bench.tell({"event": "step.skip", "step": name})
        return
    bench.run.unseal()
    with writing_into(bench.run.path):
        result = forgetting.measure(bench)
    bench.run.finish(name, made_from, result)
    bench.tell({"event": "step.end", "step": name, **result})


def _score(bench: Bench) -> None:
    if not bench.plan.arms:
        return
    folder = bench.run.path / TRIAL
    rows = read_lines(folder / trial.ANSWERS)
    house = untuned.learn_house(bench)
    arms = trial.score_trial(
        bench.plan,
        bench.split.test,
        rows,
        lambda q: steps.gold_text(bench, q),
        house.score if house else None,
    )
    trial.write_scores(arms, folder / trial.SCORES)
    _tell_weights(bench, arms)


def _tell_weights(bench: Bench, arms: Sequence[trial.ArmScores]) -> None:
    """Put an arm's scores into the manifest and card of the weights that are its own."""
    scores = {arm.arm: trial.with_intervals(arm) for arm in arms if arm.questions}
    trained = [step for step in bench.plan.steps if isinstance(step, TrainStep) and step.arm in scores]
    for step in trained:
        for seed in step.seeds:
            card.rewrite(bench.run.adapter(step.arm, seed), scores[step.arm])

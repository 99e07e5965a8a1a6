"""Measure a learning curve: train an arm on nested parts of the rows and let each answer the same questions.

:func:`open_curve` prepares the folder of a curve from a plan or a finished run, :func:`measure_curve` trains and asks what
it does not hold yet, :func:`curve_scores_by_point` scores the answers. Each point is an arm of the curve's own plan,
``ARM-nROWS-sSEED``, so training resumes from its checkpoints and no question is asked twice.

Rows are nested: with one seed, the rows of a size are among those of every larger one. A size is trained as the plan has it
for all rows, with the same number of passes; where few rows would be learnt in fewer than 50 steps, the batch is smaller
(:func:`runners.training.defaults.smaller_batch`), as a plan for so many rows would have it. With a fixed number of steps
small parts would be repeated until they are known by heart, and four sizes would cost four whole trainings.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rag.errors import BadInput, UsageProblem
from rag.files import disk_full_as_problem, publish_folder
from rag.text.words import count_noun
from rag.types import OnEvent
from runners.arms.prompts import training_row
from runners.data.examples import Example
from runners.data.questions import Question
from runners.data.sampling import QuestionSplit
from runners.made_from import file_lines, index_updated, match_files, match_step
from runners.models.resolve import parse_remote
from runners.plan.schema import Plan, PlanGate, Step, step_name
from runners.plan.steps import EvaluateStep, TrainStep
from runners.resources.machine import detect_machine
from runners.run_folder import CURVES_FOLDER, INDEX, SCORES, TRIAL, RunFolder, read_journal
from runners.runs import requirements
from runners.runs.arm import choosing_step
from runners.runs.dataset import RunData, read_data
from runners.runs.opened import Opening, OpenRun
from runners.runs.plan_models import ModelSource
from runners.runs.retrieval import REFUSAL_FILE
from runners.tokenization.token_estimate import CHARS_PER_TOKEN
from runners.trial import row_guard, step_runner, trial

SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)
"""Sizes by default, as shares of the rows: together 1.875 trainings on all."""
MIN_ROWS = 8
"""Fewest rows of a size: fewer teach a model nothing that a prompt with them would not."""
CHAT_TOKENS = 20
"""Tokens that a chat template adds to a row; as in a drafted plan."""


@dataclass(frozen=True, slots=True)
class CurvePointName:
    """One training of a curve: how many rows, drawn and trained with which seed."""

    arm: str
    rows: int
    seed: int

    @property
    def name(self) -> str:
        """Its name as an arm of the curve's plan."""
        return f"{self.arm}-n{self.rows}-s{self.seed}"

    def owns(self, arm: str) -> bool:
        """Whether a step of the curve's plan, by its arm, belongs to this point."""
        return arm == self.name or arm.startswith(f"{self.name}-")


@dataclass
class CurveSetup:
    """A curve that is ready to be measured."""

    arm: EvaluateStep
    """The arm as the source's plan has it."""
    source: Plan
    context: OpenRun
    """The context of the curve's folder; its plan is the curve's own."""
    rows: tuple[Example, ...]
    questions: tuple[Question, ...]
    part: str
    """``test``: the questions of a finished trial; ``dev``: those that a run makes its choices by."""
    sizes: tuple[int, ...]
    seeds: tuple[int, ...]
    run: Path | None = None
    """The finished run whose index and questions these are; None without."""
    taken: bool = False
    """Whether its answers stand for the largest size: they were made from what the others are made from."""
    notes: list[str] = field(default_factory=list)

    def names(self, seed: int) -> list[CurvePointName]:
        """Return the points of a seed, the smallest first."""
        return [CurvePointName(self.arm.arm, size, seed) for size in self.sizes]

    def rows_of(self, name: CurvePointName) -> tuple[Example, ...]:
        """Return the rows of a point, in the order of the file."""
        return nested_rows(self.rows, name.rows, name.seed)

    def reused(self, name: CurvePointName) -> bool:
        """Whether the run has trained this point and asked its questions already."""
        return self.taken and name.rows == len(self.rows) and bool(self.reused_answers(name))

    def reused_answers(self, name: CurvePointName) -> list[dict[str, Any]]:
        """Return the answers of the run's trial that stand for a point, [] unless they are complete."""
        assert self.run is not None
        rows = read_journal(self.run / TRIAL / trial.ANSWERS)
        own = [row for row in rows if (row["arm"], row["seed"]) == (self.arm.arm, name.seed)]
        asked = {question.id for question in self.questions}
        return own if asked <= {row["id"] for row in own} else []


def nested_rows(rows: Sequence[Example], size: int, seed: int) -> tuple[Example, ...]:
    """Return ``size`` rows drawn by the seed, in their order; a smaller draw with the same seed is part of a larger one."""
    drawn = random.Random(seed).sample(range(len(rows)), len(rows))[:size]
    return tuple(rows[position] for position in sorted(drawn))


def curve_sizes(rows: int, wanted: Sequence[int] = ()) -> tuple[int, ...]:
    """Return the sizes of a curve, ascending: those wanted, or 1/8, 1/4, 1/2 and all rows.

    Raises:
        UsageProblem: a wanted size is out of range, or there are fewer than two.
        BadInput: there are too few rows for two sizes.
    """
    if wanted:
        for size in wanted:
            if not MIN_ROWS <= size <= rows:
                raise UsageProblem(
                    f"--sizes {size}: there are {count_noun(rows, 'row')}, and a size has at least {MIN_ROWS}",
                    f"choose from {MIN_ROWS} to {rows}",
                )
        sizes = sorted(set(wanted))
        if len(sizes) < 2:
            raise UsageProblem("--sizes names one size: a curve needs two", "for example --sizes 50,100,200")
        return tuple(sizes)
    sizes = sorted({round(rows * share) for share in SHARES if round(rows * share) >= MIN_ROWS})
    if len(sizes) < 2:
        raise BadInput(
            f"{rows} rows are too few for a curve: two sizes of at least {MIN_ROWS} are needed",
            "collect more first",
        )
    return tuple(sizes)


def curve_arm(plan: Plan, name: str | None, preferred: str | None = None) -> EvaluateStep:
    """Return the arm whose curve is measured: the one named, else the preferred if it is trained, else the first that is.

    Raises:
        BadInput: the plan has no such arm, or no arm that learns from rows.
    """
    learning = [arm for arm in plan.arms if arm.weights or arm.shots or arm.classifier]
    if any(arm.arm == name and arm.retriever == "tuned" for arm in plan.arms):
        raise BadInput(
            f"the arm {name!r} searches with the tuned retriever, which a curve does not train at each size",
            "name an arm that searches with the plan's own",
        )
    learning = [arm for arm in learning if arm.retriever == "plan"]
    if name:
        for arm in learning:
            if arm.arm == name:
                return arm
        known = ", ".join(arm.arm for arm in learning) or "none"
        which = "does not learn from rows" if name in {arm.arm for arm in plan.arms} else "is not in the plan"
        raise BadInput(f"the arm {name!r} {which}, so it has no learning curve", f"arms that do: {known}")
    trained = [arm for arm in learning if arm.weights]
    for arm in trained:
        if arm.arm == preferred:
            return arm
    if trained or learning:
        return (trained or learning)[0]
    raise BadInput(
        "the plan has no arm that learns from rows", "add a tuned arm, lora for example, and its training"
    )


def curve_plan(plan: Plan, arm: EvaluateStep, names: Sequence[CurvePointName], row_tokens: float) -> Plan:
    """Return the plan of a curve: the index if the arm needs one, and a training and an evaluation for each point.

    The prediction, the judge, the gate and the measurement of forgetting are left out: a curve has no verdict.

    Args:
        plan: the plan that has the arm.
        arm: the arm.
        names: the points.
        row_tokens: estimated tokens of a row without passages.
    """
    steps: list[Step] = [plan.index] if plan.index and _retrieves(plan, arm) else []
    for name in names:
        chain = _training_chain(plan, arm.weights) if arm.weights else []
        steps += [_step_of_point(step, name, row_tokens, step.arm == arm.weights) for step in chain]
        weights = name.name if arm.weights else None
        steps.append(arm.model_copy(update={"arm": name.name, "weights": weights}))
    return plan.model_copy(
        update={
            "name": f"{plan.name}-{arm.arm}-curve",
            "steps": tuple(steps),
            "gate": PlanGate(),
            "judge": None,
            "backend": (),
            "forgetting": plan.forgetting.model_copy(update={"prompts": 0}),
            "predicted": {},
        }
    )


def _training_chain(plan: Plan, weights: str) -> list[TrainStep]:
    """Return the train steps that lead to an arm's weights, the first one first."""
    step = plan.train_step(weights)
    return [*(_training_chain(plan, step.start_from) if step.start_from else []), step]


def _step_of_point(step: TrainStep, name: CurvePointName, row_tokens: float, own: bool) -> TrainStep:
    """Return a train step for the rows of a point: its seed, its name, and a smaller batch where steps would be too few.

    ``own`` is the training of the arm's weights, the others are those that it starts from.
    """
    from runners.training.defaults import smaller_batch

    renamed = name.name if own else f"{name.name}-{step.arm}"
    changed: dict[str, Any] = {"arm": renamed, "seeds": (name.seed,)}
    if step.start_from:
        changed["start_from"] = f"{name.name}-{step.start_from}"
    choice = (
        smaller_batch(name.rows, row_tokens, step.epochs, step.batch_tokens) if step.rows == "plain" else None
    )
    if choice:
        changed["batch_tokens"] = choice[0]
        changed["reasons"] = {**step.reasons, "batch_tokens": choice[1]}
    return step.model_copy(update=changed)


def _retrieves(plan: Plan, arm: EvaluateStep) -> bool:
    """Return whether an arm or its training needs the index."""
    trained = _training_chain(plan, arm.weights) if arm.weights else []
    return arm.retrieval or any(step.rows == "retrieval" for step in trained)


def mean_row_tokens(plan: Plan, rows: Sequence[Example]) -> float:
    """Return the estimated mean tokens of the rows as they are trained on, without passages; nothing is tokenized."""
    texts = [training_row(plan.prompts, row) for row in rows]
    chars = sum(len(str(turn.get("content") or "")) for row in texts for turn in row.messages)
    return chars / max(1, len(rows)) / CHARS_PER_TOKEN + CHAT_TOKENS


def open_curve(
    plan: Plan,
    run: Path | None,
    out: Path | None,
    arm: str | None = None,
    sizes: Sequence[int] = (),
    seeds: int = 2,
    resume: bool = False,
    overwrite: bool = False,
    on_event: OnEvent | None = None,
) -> CurveSetup:
    """Check everything, and make or open the folder of a curve.

    With a finished run the questions are those of its trial. Without one the test questions are not read: the curve is
    scored on the dev questions, so that a trial of the same plan stays honest.

    Args:
        plan: the plan of the arm.
        run: the run it was carried out in; None for a plan that was not.
        out: the folder; by default ``RUN/curves/ARM`` or ``curves/NAME-ARM``.
        arm: the arm; by default the one to use, if it is trained, else the first that is.
        sizes: numbers of rows; 1/8, 1/4, 1/2 and all by default.
        seeds: most seeds that may be measured.
        resume: whether to go on in a folder that exists.
        overwrite: whether to start again in it.
        on_event: receives events.

    Raises:
        BadInput: bad data, no such arm, or another plan in the folder.
        UsageProblem: sizes that cannot be, or a folder that exists.
        CannotRun: this machine cannot train the arm.
    """
    session = OpenRun.open(run, Opening(on_event=on_event)).obtain() if run else None
    finished = run is not None and (run / TRIAL / SCORES).is_file()
    chosen = curve_arm(plan, arm, session.default_arm if session and session.report else None)
    if chosen.weights and parse_remote(plan.model.name):
        raise BadInput(
            f"{plan.model.name} is an endpoint: its weights are not here, so {chosen.arm} cannot be trained on parts",
            "name a local model, or an arm that is not trained, such as few-shot: --arm",
        )
    data = read_data(plan, on_event)
    rows, questions = data.examples, data.split.test if finished else data.split.dev
    if len(questions) < 2:
        raise BadInput(
            f"too few questions to score a curve on: {len(questions)} {'test' if finished else 'dev'}",
            "give a larger file of questions: a third of them is dev",
        )
    numbers = curve_sizes(len(rows), sizes)
    first = plan.train_step(chosen.weights).seeds[0] if chosen.weights else plan.seed
    numbered = tuple(range(first, first + seeds))
    names = [CurvePointName(chosen.arm, size, seed) for seed in numbered for size in numbers]
    own = curve_plan(plan, _asked(chosen, finished), names, mean_row_tokens(plan, rows))
    place = out or (
        run / CURVES_FOLDER / chosen.arm if run else Path(CURVES_FOLDER) / f"{plan.name}-{chosen.arm}"
    )
    context = _curve_context(own, session, data, place, resume, overwrite, on_event)
    part, ended = ("test", run) if finished else ("dev", None)
    taken, notes = _match_run(session, data, chosen) if session and finished else (False, [])
    notes += _notes(plan, chosen, finished)
    return CurveSetup(chosen, plan, context, rows, questions, part, numbers, numbered, ended, taken, notes)


def _match_run(session: OpenRun, data: RunData, arm: EvaluateStep) -> tuple[bool, list[str]]:
    """Return whether a run's answers of an arm were made from what there is now, and what is to be said of it."""
    run = session.folder
    asked = match_files(run, session.plan, ("questions", "test_questions"))
    try:
        match = match_step(run, step_name(arm), step_runner.step_inputs(session.replace(data=data), arm))
    except BadInput as problem:
        return False, [f"all rows are trained and asked again: {problem.message}"]
    changed = list(match.changed)
    if arm.retrieval and index_updated(run):
        changed.append("index")
    if asked.changed and choosing_step(session.plan, arm).chooses_prompt and "questions" not in changed:
        changed.append("gold of the questions")
    if changed or match.unknown:
        what = ", ".join(changed) or "something that its answers depend on"
        return False, [f"all rows are trained and asked again, not taken from the run: {what} changed since"]
    return True, file_lines(asked, session.plan, "all sizes are scored by today's gold, unlike the report")


def _notes(plan: Plan, arm: EvaluateStep, finished: bool) -> Iterator[str]:
    """Yield what a curve does otherwise than a run of the plan."""
    if plan.backend:
        yield "the plan's backend is not asked: the weights of a curve are on this machine only"
    if not finished and arm.chooses_prompt:
        yield f"{arm.arm} shows its default examples: choosing them takes the questions that are scored"


def _asked(arm: EvaluateStep, finished: bool) -> EvaluateStep:
    """Return the arm; without a trial it chooses no prompt on dev questions, as those are scored."""
    return arm if finished or not arm.chooses_prompt else arm.model_copy(update={"budget": 0})


def _curve_context(
    plan: Plan,
    session: OpenRun | None,
    data: RunData,
    out: Path,
    resume: bool,
    overwrite: bool,
    on_event: OnEvent | None,
) -> OpenRun:
    """Return the run of the curve's folder, with the models of the run where there is one."""
    if session is not None:
        obtained = replace(session.models.obtained, servers=None)
    else:
        obtained = ModelSource(plan=plan, on_event=on_event).obtained()
    if not plan.index:
        obtained = replace(obtained, reranker=None)
    requirements.check_requirements(plan, obtained.folders(plan), out, detect_machine(out))
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = RunFolder.create(out, plan, resume, overwrite)
    return OpenRun(folder, plan, obtained, data=data, on_event=on_event)


def _copy_index(run: Path, curve: Path) -> None:
    """Copy a run's index and refusal threshold into the folder of a curve, once."""
    if not (curve / INDEX).exists():
        copied = curve / f".{INDEX}.copied"
        shutil.rmtree(copied, ignore_errors=True)
        with disk_full_as_problem(curve):
            shutil.copytree(run / INDEX, copied)
            publish_folder(copied, curve / INDEX)
    shutil.copyfile(run / REFUSAL_FILE, curve / REFUSAL_FILE)


def measure_curve(setup: CurveSetup, minutes: float | None = None) -> tuple[int, ...]:
    """Train and ask every point that is not measured yet, seed by seed; return the seeds that are complete.

    The first seed is always measured. Another follows while what all would take, by the recorded seconds of the first, is
    within ``minutes``; None measures all. The decision is taken from the log, so a resumed curve takes the same one.
    """
    context = setup.context
    with context.folder.writing():
        _prepare_index(setup)
        complete: list[int] = []
        for number, seed in enumerate(setup.seeds):
            if number and minutes is not None and not _fits(setup, complete, minutes):
                context.emit({"event": "plan.note", "reason": _left_out_reason(setup, complete, minutes)})
                break
            for name in setup.names(seed):
                _measure_point(setup, name, len(complete))
            complete.append(seed)
    context.models.release()
    return tuple(complete)


def _prepare_index(setup: CurveSetup) -> None:
    """Copy the index of the finished run, or build one, under the lock of the curve's folder."""
    context = setup.context
    step = context.plan.index
    if step is None:
        return
    if setup.run is not None:
        _copy_index(setup.run, context.folder.path)
        return
    inputs = step_runner.step_inputs(context, step)
    if context.folder.finished(step_name(step), inputs) is None:
        context.folder.finish(step_name(step), inputs, step_runner.run_step(context, step))


def _measure_point(setup: CurveSetup, name: CurvePointName, seeds_done: int) -> None:
    """Train and ask one point; what is finished is skipped."""
    context = setup.context
    if setup.reused(name):
        reason = f"{count_noun(name.rows, 'row')}, seed {name.seed}: trained and asked in the run already"
        context.emit({"event": "plan.note", "reason": reason})
        return
    # The curve's questions take the place of the test; without a trial they are the dev questions themselves.
    split = QuestionSplit(context.split.dev if setup.part == "test" else (), setup.questions)
    context = context.replace(data=RunData(examples=setup.rows_of(name), split=split))
    steps = [s for s in context.plan.steps if isinstance(s, TrainStep | EvaluateStep) and name.owns(s.arm)]
    accepted = context.plan.data.lost_rows == "accept"
    row_guard.require_rows(context, [s for s in steps if isinstance(s, TrainStep)], accepted)
    total = len(setup.sizes) * len(setup.seeds)
    position = seeds_done * len(setup.sizes) + setup.sizes.index(name.rows) + 1
    for step in steps:
        inputs = step_runner.step_inputs(context, step)
        context.emit({"event": "step.start", "step": step_name(step), "number": position, "total": total})
        if context.folder.finished(step_name(step), inputs) is not None:
            context.emit({"event": "step.skip", "step": step_name(step)})
            continue
        started = time.perf_counter()
        result = step_runner.run_step(context, step)
        seconds = round(time.perf_counter() - started, 2)
        context.folder.finish(step_name(step), inputs, {**result, "seconds": seconds})
        context.emit({"event": "step.end", "step": step_name(step), **result})


def point_seconds(setup: CurveSetup, name: CurvePointName) -> float:
    """Return the seconds that training and asking a point took, by the log; 0 for one taken from the run."""
    done = {
        event["step"]: event["result"]
        for event in setup.context.folder.events()
        if event.get("event") == "step.done"
    }
    steps = [step for step in done if name.owns(step.partition(":")[2])]
    return sum(float(done[step].get("seconds", 0.0)) for step in steps)


def _seed_seconds(setup: CurveSetup, seed: int) -> float:
    return sum(point_seconds(setup, name) for name in setup.names(seed))


def _fits(setup: CurveSetup, complete: Sequence[int], minutes: float) -> bool:
    """Return whether another seed fits: a seed of which the run has the largest size takes less than the next one."""
    spent = sum(_seed_seconds(setup, seed) for seed in complete)
    return spent + _next_seconds(setup, complete) <= 60 * minutes


def _next_seconds(setup: CurveSetup, complete: Sequence[int]) -> float:
    """Return about how many seconds another seed takes, with the largest size scaled up where the run had it."""
    measured = [name for name in setup.names(complete[0]) if not setup.reused(name)]
    seconds = sum(point_seconds(setup, name) for name in measured)
    rows = sum(name.rows for name in measured)
    return seconds / rows * sum(setup.sizes) if rows else 0.0


def _left_out_reason(setup: CurveSetup, complete: Sequence[int], minutes: float) -> str:
    more = _next_seconds(setup, complete) / 60
    return (
        f"{len(complete)} seed{'s' if len(complete) > 1 else ''}: another would take about {more:.0f} minutes more, which "
        f"does not fit in --minutes {minutes:g}"
    )


def curve_answers(setup: CurveSetup, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return the answers of all points of these seeds, each under its point's name."""
    rows = read_journal(setup.context.folder.path / TRIAL / trial.ANSWERS)
    for seed in seeds:
        for name in setup.names(seed):
            if setup.reused(name):
                rows += [{**row, "arm": name.name} for row in setup.reused_answers(name)]
    return rows


def curve_scores_by_point(setup: CurveSetup, seeds: Sequence[int]) -> dict[CurvePointName, trial.ArmScores]:
    """Score the answers of all points of these seeds as a trial does, write the scores, and return them."""
    context = setup.context
    names = {name.name: name for seed in seeds for name in setup.names(seed)}
    steps = tuple(s for s in context.plan.steps if not isinstance(s, EvaluateStep) or s.arm in names)
    plan = context.plan.model_copy(update={"steps": steps})
    indexed = (context.folder.path / INDEX).exists()

    def gold(question: Question) -> str:
        return step_runner.gold_text(context, question) if indexed else ""

    arms = trial.score_trial(plan, setup.questions, curve_answers(setup, seeds), gold)
    trial.write_scores(arms, context.folder.path / TRIAL / SCORES)
    return {names[arm.arm]: arm for arm in arms}

"""Measure learning curves: train arms on nested parts of the rows and let each answer the same questions.

:func:`open_curves` prepares a folder for the curve of each arm from a plan or a finished run, :func:`measure_curves` trains
and asks what they do not hold yet, :func:`curve_scores_by_point` scores the answers of one. The points are those of
:mod:`runners.trial.curve_points`. Several arms have the same sizes, drawn rows and questions, and one index.

Rows are nested: with one seed, the rows of a size are among those of every larger one. A size is trained as the plan has it
for all rows, with the same number of passes; where few rows would be learnt in fewer than 50 steps, the batch is smaller
(:func:`runners.training.defaults.smaller_batch`), as a plan for so many rows would have it. With a fixed number of steps
small parts would be repeated until they are known by heart, and four sizes would cost four whole trainings.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rag.errors import BadInput, CannotRun, Problem, UsageProblem
from rag.files import disk_full_as_problem, publish_folder
from rag.text.words import count_noun
from rag.types import OnEvent
from runners.data.examples import Example
from runners.data.questions import Question
from runners.data.sampling import QuestionSplit
from runners.made_from import file_lines, index_updated, match_files, match_step
from runners.plan.schema import Plan, step_name
from runners.plan.steps import EvaluateStep, TrainStep
from runners.resources.machine import detect_machine
from runners.run_folder import (
    CURVES_FOLDER,
    INDEX,
    SCORES,
    TRIAL,
    RunFolder,
    check_run_folder,
    is_run,
    read_journal,
)
from runners.runs import requirements
from runners.runs.arm import choosing_step
from runners.runs.dataset import RunData, read_data
from runners.runs.opened import Opening, OpenRun
from runners.runs.plan_models import ModelSource, ObtainedModels
from runners.runs.retrieval import REFUSAL_FILE
from runners.trial import row_guard, step_runner, trial
from runners.trial.curve_points import (
    CurvePointName,
    curve_arms,
    curve_plan,
    curve_seeds,
    curve_sizes,
    mean_row_tokens,
    nested_rows,
)


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


@dataclass
class Curves:
    """The curves of one call, which have the same sizes, seeds, drawn rows and questions."""

    folder: Path
    """Where what the arms have together is written; of one arm, the folder of its curve."""
    several: bool
    """Whether more than one arm was asked for: one that fails is left out then, and the others go on."""
    setups: list[CurveSetup]
    left_out: dict[str, Problem]
    """The arms that failed, each with its problem."""

    def leave_out(self, arm: str, problem: Problem) -> None:
        """Go on without an arm; where it is the only one, its problem is raised."""
        if not self.several:
            raise problem
        self.left_out[arm] = problem
        self.setups = [setup for setup in self.setups if setup.arm.arm != arm]

    def require_some(self) -> None:
        """Raise the problem of the first arm that was left out where none remains."""
        if not self.setups:
            raise next(iter(self.left_out.values()))


def open_curves(
    plan: Plan,
    run: Path | None,
    out: Path | None,
    arms: Sequence[str] = (),
    sizes: Sequence[int] = (),
    seeds: int = 2,
    resume: bool = False,
    overwrite: bool = False,
    on_event: OnEvent | None = None,
) -> Curves:
    """Check everything, and make or open the folder of each arm's curve.

    With a finished run the questions are those of its trial. Without one the test questions are not read: the curves are
    scored on the dev questions, so that a trial of the same plan stays honest.

    Args:
        plan: the plan of the arms.
        run: the run it was carried out in; None for a plan that was not.
        out: the folder; by default ``RUN/curves/ARM`` or ``curves/NAME-ARM``. Of several arms it holds a folder for each.
        arms: the arms, or ``all``; by default the one to use, if it is trained, else the first that is.
        sizes: numbers of rows; 1/8, 1/4, 1/2 and all by default.
        seeds: most seeds that may be measured.
        resume: whether to go on in a folder that exists.
        overwrite: whether to start again in it.
        on_event: receives events.

    Raises:
        BadInput: bad data, no such arm, or another plan in a folder.
        UsageProblem: sizes that cannot be, or a folder that exists.
        CannotRun: this machine cannot train any of the arms.
    """
    session = OpenRun.open(run, Opening(on_event=on_event)).obtain() if run else None
    chosen, left_out = curve_arms(plan, arms, session.default_arm if session and session.report else None)
    source = _CurveSource(plan=plan, session=session, data=read_data(plan, on_event), on_event=on_event)
    source.require_questions()
    numbers, numbered = curve_sizes(len(source.data.examples), sizes), curve_seeds(plan, chosen, seeds)
    several = len(chosen) + len(left_out) > 1
    together = _curve_folder(plan, run, out, "" if several else chosen[0].arm)
    if several and is_run(together):
        raise UsageProblem(f"{together} is the folder of a run or of one curve", "choose another --out")
    curves = Curves(together, several, [], left_out)
    ready: list[tuple[EvaluateStep, Plan, ObtainedModels, Path]] = []
    for arm in chosen:
        place = out / arm.arm if out and several else _curve_folder(plan, run, out, arm.arm)
        try:
            ready.append((arm, *source.arm_plan(arm, numbers, numbered, place), place))
        except (BadInput, CannotRun) as problem:
            curves.leave_out(arm.arm, problem)
    for _, own, _, place in ready:  # before the first folder is made
        check_run_folder(place, own, resume, overwrite)
    for arm, own, obtained, place in ready:
        place.parent.mkdir(parents=True, exist_ok=True)
        folder = RunFolder.create(place, own, resume, overwrite)
        context = OpenRun(folder, own, obtained, data=source.data, on_event=on_event)
        curves.setups.append(source.setup(arm, context, numbers, numbered))
    curves.require_some()
    return curves


def _curve_folder(plan: Plan, run: Path | None, out: Path | None, arm: str) -> Path:
    """Return the folder of an arm's curve, with "" that of what several arms have together."""
    if out is not None:
        return out
    return (
        run / CURVES_FOLDER / arm
        if run
        else Path(CURVES_FOLDER) / (f"{plan.name}-{arm}" if arm else plan.name)
    )


@dataclass(frozen=True, kw_only=True)
class _CurveSource:
    """What the arms of a plan, or of a run, have together."""

    plan: Plan
    session: OpenRun | None
    """The run; None for a plan that was not carried out."""
    data: RunData
    on_event: OnEvent | None

    @property
    def finished(self) -> bool:
        """Whether a trial was scored, so that its test questions can be asked."""
        return self.session is not None and (self.session.folder.path / TRIAL / SCORES).is_file()

    @property
    def part(self) -> str:
        return "test" if self.finished else "dev"

    @property
    def questions(self) -> tuple[Question, ...]:
        return self.data.split.test if self.finished else self.data.split.dev

    def require_questions(self) -> None:
        """Raise BadInput where there are too few questions for an interval."""
        if len(self.questions) < 2:
            raise BadInput(
                f"too few questions to score a curve on: {len(self.questions)} {self.part}",
                "give a larger file of questions: a third of them is dev",
            )

    def arm_plan(
        self, arm: EvaluateStep, sizes: Sequence[int], seeds: Sequence[int], place: Path
    ) -> tuple[Plan, ObtainedModels]:
        """Return the plan of an arm's curve, and its models: those of the run where there is one.

        Raises:
            BadInput, CannotRun: a model cannot be obtained, or this machine cannot train it.
        """
        # Without a trial an arm chooses no prompt on dev questions, as those are scored.
        chooses = arm.chooses_prompt and not self.finished
        asked = arm.model_copy(update={"budget": 0}) if chooses else arm
        names = [CurvePointName(arm.arm, size, seed) for seed in seeds for size in sizes]
        own = curve_plan(self.plan, asked, names, mean_row_tokens(self.plan, self.data.examples))
        if self.session is not None:
            obtained = replace(self.session.models.obtained, servers=None)
        else:
            obtained = ModelSource(plan=own, on_event=self.on_event).obtained()
        if not own.index:
            obtained = replace(obtained, reranker=None)
        requirements.check_requirements(own, obtained.folders(own), place, detect_machine(place))
        return own, obtained

    def setup(
        self, arm: EvaluateStep, context: OpenRun, sizes: tuple[int, ...], seeds: tuple[int, ...]
    ) -> CurveSetup:
        """Return the curve of an arm, with whether the answers of the run stand for all rows."""
        session = self.session if self.finished else None
        taken, notes = _match_run(session, self.data, arm) if session else (False, [])
        notes += _notes(self.plan, arm, self.finished)
        return CurveSetup(
            arm,
            self.plan,
            context,
            self.data.examples,
            self.questions,
            self.part,
            sizes,
            seeds,
            session.folder.path if session else None,
            taken,
            notes,
        )


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


def _copy_index(run: Path, curve: Path) -> None:
    """Copy a run's index and refusal threshold into the folder of a curve, once."""
    if not (curve / INDEX).exists():
        copied = curve / f".{INDEX}.copied"
        shutil.rmtree(copied, ignore_errors=True)
        with disk_full_as_problem(curve):
            shutil.copytree(run / INDEX, copied)
            publish_folder(copied, curve / INDEX)
    shutil.copyfile(run / REFUSAL_FILE, curve / REFUSAL_FILE)


def measure_curves(curves: Curves, minutes: float | None = None) -> tuple[int, ...]:
    """Train and ask every point that is not measured yet, seed by seed; return the seeds that are complete.

    The first seed is always measured. Another follows while what all would take, by the recorded seconds of the first, is
    within ``minutes``; None measures all. The decision is taken from the logs, so resumed curves take the same one. Of
    several arms one that fails is left out; where it fails in a later seed, all end with the seed before.

    Raises:
        BadInput, CannotRun: the only arm fails, or all do.
    """
    seeds, complete = curves.setups[0].seeds, list[int]()
    with ExitStack() as locks:
        for setup in curves.setups:
            locks.enter_context(setup.context.folder.writing())
        for number, seed in enumerate(seeds):
            context = curves.setups[0].context
            if number and minutes is not None and not _fits(curves, complete, minutes):
                context.emit({"event": "plan.note", "reason": _left_out_reason(curves, complete, minutes)})
                break
            failed = _measure_seed(curves, seed, number)
            if number and failed:
                break
            for arm, problem in failed.items():
                curves.leave_out(arm, problem)
            curves.require_some()
            complete.append(seed)
    for setup in curves.setups:
        setup.context.models.release()
    return tuple(complete)


def _measure_seed(curves: Curves, seed: int, number: int) -> dict[str, Problem]:
    """Measure the points of a seed, arm by arm; return the arms that failed. Of one arm the problem is raised."""
    failed: dict[str, Problem] = {}
    each = len(curves.setups[0].sizes)
    total = each * len(curves.setups) * len(curves.setups[0].seeds)
    for at, setup in enumerate(curves.setups):
        context, before = setup.context, each * (number * len(curves.setups) + at)
        try:
            _prepare_index(setup, curves.setups[:at])
            for position, name in enumerate(setup.names(seed), before + 1):
                _measure_point(setup, name, position, total)
        except (BadInput, CannotRun) as problem:
            if not curves.several:
                raise
            failed[setup.arm.arm] = problem
            without = (
                f"seed {seed} is not measured for any arm" if number else f"{setup.arm.arm} is not measured"
            )
            context.emit({"event": "plan.note", "reason": f"{without}: {problem.message}"})
            if number:
                break
        if curves.several:  # one language model in memory at a time
            context.models.release()
    return failed


def _prepare_index(setup: CurveSetup, earlier: Sequence[CurveSetup]) -> None:
    """Copy the index of the finished run, or of an arm before, or build one, under the lock of the curve's folder."""
    context = setup.context
    step = context.plan.index
    if step is None:
        return
    if setup.run is not None:
        _copy_index(setup.run, context.folder.path)
        return
    name, inputs = step_name(step), step_runner.step_inputs(context, step)
    if context.folder.finished(name, inputs) is not None:
        return
    built = [(result, other) for other in earlier if (result := other.context.folder.finished(name, inputs))]
    if built and not (context.folder.path / INDEX).exists():
        result, other = built[0]
        _copy_index(other.context.folder.path, context.folder.path)
    else:
        result = step_runner.run_step(context, step)
    context.folder.finish(name, inputs, result)


def _measure_point(setup: CurveSetup, name: CurvePointName, position: int, total: int) -> None:
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


def _fits(curves: Curves, complete: Sequence[int], minutes: float) -> bool:
    """Return whether another seed fits: a seed of which the run has the largest size takes less than the next one."""
    names = [(setup, name) for setup in curves.setups for seed in complete for name in setup.names(seed)]
    spent = sum(point_seconds(setup, name) for setup, name in names)
    return spent + _next_seconds(curves, complete) <= 60 * minutes


def _next_seconds(curves: Curves, complete: Sequence[int]) -> float:
    """Return about how many seconds another seed takes, with the largest size scaled up where the run had it."""
    total = 0.0
    for setup in curves.setups:
        measured = [name for name in setup.names(complete[0]) if not setup.reused(name)]
        rows = sum(name.rows for name in measured)
        seconds = sum(point_seconds(setup, name) for name in measured)
        total += seconds / rows * sum(setup.sizes) if rows else 0.0
    return total


def _left_out_reason(curves: Curves, complete: Sequence[int], minutes: float) -> str:
    more = _next_seconds(curves, complete) / 60
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

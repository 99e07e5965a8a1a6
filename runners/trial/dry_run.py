"""A dry run: the index built, three training steps taken and a few answers given, in a folder that is thrown away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from runners.arms.prompts import training_row
from runners.arms.raft import retrieval_rows
from runners.data.examples import Example
from runners.models.resolve import Model
from runners.plan.steps import EvaluateStep, IndexStep, TrainStep
from runners.preflight import machine_checks, probe_process, run_checks
from runners.resources import usage
from runners.runs import arm
from runners.runs.session import RunContext
from runners.tokenization.chat_template import ChatTokenizer
from runners.trial import step_runner

DRY_RUN_QUESTIONS = 8
"""Dev questions that each kind of arm answers; the test questions stay unread."""
MAX_DRY_RUN_SECONDS = 90.0
"""When so much time is used up, what is left is not measured: on two cores the default model needs about a minute."""
MAX_DRY_RUN_BYTES = 20_000_000
"""A larger corpus takes too long to index for a dry run."""


@dataclass(frozen=True, slots=True)
class StepTime:
    """What one step would take, from what was measured of it; or why nothing was."""

    seconds: float | None = None
    """The whole step, every row, epoch, seed or question."""
    training_seconds: float | None = None
    """Of a train step, one seed's steps alone."""
    memory_gib: float | None = None
    """What training took at its peak beside libraries: what the estimate speaks of."""
    estimated_gib: float | None = None
    """The estimate for that very step."""
    process_gib: float | None = None
    """The whole training process at its peak: what has to fit."""
    lost: float = 0.0
    """Share of the processor time that others took meanwhile (:mod:`runners.resources.usage`); the seconds are too many by it."""
    how: str = ""
    """What was measured, or why it was not."""
    stop: str = ""
    """Why the step cannot be carried out here; "" when it can."""


@dataclass
class DryRun:
    """Measures the steps of one context in order; answers of arms with the same prompt are measured once."""

    context: RunContext
    started: float = field(default_factory=time.monotonic)
    _index: str = "the index was not built"
    """Why there is no index; "" once it is built."""
    _asked: dict[tuple[str, str, int], tuple[float, float]] = field(default_factory=dict)
    """By what decides how long an answer takes: seconds of one, and the share that others took meanwhile."""

    def measure(self) -> Iterator[tuple[IndexStep | TrainStep | EvaluateStep, StepTime]]:
        """Yield every step of the plan with what was measured of it.

        Memory is told twice, training alone and its whole process; answers are timed on the base model, with whose weights
        tuned arms answer as fast.
        """
        for step in self.context.plan.steps:
            if time.monotonic() - self.started > MAX_DRY_RUN_SECONDS:
                yield step, StepTime(how=f"not measured: {MAX_DRY_RUN_SECONDS:.0f} s were used up")
            elif isinstance(step, IndexStep):
                yield step, self._build(step)
            elif isinstance(step, TrainStep):
                yield step, self._train(step)
            else:
                yield step, self._answer(step)

    def _build(self, step: IndexStep) -> StepTime:
        documents = self.context.plan.data.documents
        assert documents is not None
        files = [documents] if documents.is_file() else [p for p in documents.rglob("*") if p.is_file()]
        size = sum(path.stat().st_size for path in files)
        if size > MAX_DRY_RUN_BYTES:
            self._index = f"not measured: {size / 1e6:,.0f} MB of documents take too long to index for this"
            return StepTime(how=self._index)
        started = time.monotonic()
        with usage.measure_contention() as others:
            step_runner.build_index(self.context, step)
        self._index = ""
        return StepTime(time.monotonic() - started, how="built", lost=others.lost)

    def _train(self, step: TrainStep) -> StepTime:
        if step.rows == "retrieval" and self._index:
            return StepTime(how=self._index)
        base = self.context.local_base
        # On fresh weights: continuing from an adapter takes as long.
        config = step.config(step.seeds[0]).replace(kernels=self.context.plan.kernels)
        used, report = run_checks.inspect_rows(self._rows(step), ChatTokenizer(base.folder), config)
        report.require()
        estimated = machine_checks.needed_memory(base, config, report.longest)
        picked = machine_checks.largest_pass(used, config)
        most = estimated.free if estimated and estimated.shared else None
        self.context.release()
        started = time.monotonic()
        found = probe_process.run_probe(
            base, config, picked, None, bool(estimated and estimated.checkpointing), most
        )
        wall = time.monotonic() - started
        tokens = config.epochs * report.tokens
        stops = [
            c for c in machine_checks.probe_checks(found, config, round(tokens), most) if c.level == "stop"
        ]
        if stops or "batch" not in found.told:
            why = "; ".join(check.sentence() for check in stops)
            return StepTime(how="no step could be measured", stop=why)
        told = found.told["batch"]
        training = tokens * told["seconds"] / told["tokens"]
        around = max(0.0, wall - 3 * told["seconds"])
        return StepTime(
            len(step.seeds) * training + around,
            training,
            _gib(told["own_gib"]),
            _gib(told["expected_gib"]),
            _gib(max(told["peak_gib"], found.peak_gib)),
            found.told.get("crowd", {}).get("lost", 0.0),
            f"3 steps, the last of {told['tokens']:,} tokens in {told['seconds']:.1f} s",
        )

    def _rows(self, step: TrainStep) -> tuple[Example, ...]:
        """The arm's rows as it will train on them; replay rows are counted in by their share."""
        context = self.context
        seed = step.seeds[0]
        if step.rows == "retrieval":
            rows = retrieval_rows(
                context.plan.prompts,
                context.examples,
                context.retriever,
                step.without_gold,
                seed,
                step.distractors,
                step.quote,
            ).rows
        else:
            rows = tuple(training_row(context.plan.prompts, e) for e in context.examples)
        return step_runner.with_replay(context.plan, step, rows, seed, context.emit)

    def _answer(self, step: EvaluateStep) -> StepTime:
        context = self.context
        if step.classifier:
            return StepTime(how="not measured: a classifier takes seconds and asks no model")
        if step.retrieval and self._index:
            return StepTime(how=self._index)
        base = context.base_of(step)
        if not isinstance(base, Model):
            return StepTime(how="not measured: a dry run sends nothing to an endpoint")
        asked = context.split.dev[:DRY_RUN_QUESTIONS]
        if not asked:
            return StepTime(how="not measured: there is no dev question")
        alike = (base.fingerprint, step.passages if step.retrieval else "", step.shots)
        if alike not in self._asked:
            with usage.measure_contention() as others:
                seconds = self._time(step)
            self._asked[alike] = seconds, others.lost
        seeds = len(context.plan.train_step(step.weights).seeds) if step.weights else 1
        each, lost = self._asked[alike]
        how = f"{len(asked)} answers at once, {each:.2f} s each" + (", on the base" if step.weights else "")
        return StepTime(each * len(context.split.test) * seeds, how=how, lost=lost)

    def _time(self, step: EvaluateStep) -> float:
        """Seconds for each of a few answers of an arm, loading left out."""
        from runners.arms.answer import answer_all

        context = self.context
        generator = context.generator(None, step)
        asked = context.split.dev[:DRY_RUN_QUESTIONS]
        shots = arm.shown_examples(context, step, context.examples)
        finder = arm.passage_finder(context, step)
        started = time.monotonic()
        answer_all(context.plan, step, asked, generator, finder, shots)
        return (time.monotonic() - started) / len(asked)


def _gib(size: float | None) -> float | None:
    return None if size is None else round(size, 3)

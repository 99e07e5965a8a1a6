"""A dry run: build the index, take three training steps and give a few answers, in a temporary folder.

:meth:`DryRun.measure` yields the steps of a plan with the time and memory that were measured of each.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from rag.text.words import count_noun
from runners.arms.answer import answer_all
from runners.classification.tuned import TUNING_SECONDS
from runners.data.examples import Example
from runners.models.resolve import Model
from runners.plan.schema import Step
from runners.plan.steps import EmbedderStep, EvaluateStep, IndexStep, TrainStep
from runners.preflight import machine_checks, probe_process, run_checks
from runners.resources import usage
from runners.runs import arm
from runners.runs.opened import OpenRun
from runners.tokenization.chat_template import ChatTokenizer
from runners.trial import embedder_step, step_runner

DRY_RUN_QUESTIONS = 8
"""Dev questions that each kind of arm answers; the test questions are not used."""
MAX_DRY_RUN_SECONDS = 90.0
"""Seconds after which the remaining steps are not measured; on two cores the default model needs about a minute."""
MAX_DRY_RUN_BYTES = 20_000_000
"""A larger corpus takes too long to index for a dry run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """The predicted time and memory of one step from what was measured, or the reason why nothing was."""

    seconds: float | None = None
    """The whole step, every row, epoch, seed or question."""
    training_seconds: float | None = None
    """Of a train step: the training steps of one seed alone."""
    memory_gib: float | None = None
    """Peak memory of training without libraries, which the estimate predicts."""
    estimated_gib: float | None = None
    """The estimate for the same step."""
    process_gib: float | None = None
    """Peak memory of the whole training process, which has to fit."""
    lost: float = 0.0
    """Share of the processor time that other processes used meanwhile (:mod:`runners.resources.usage`); the
    seconds are too long by it."""
    how: str = ""
    """What was measured, or why nothing was."""
    stop: str = ""
    """Why the step cannot be carried out here; "" when it can."""


@dataclass
class DryRun:
    """Measures the steps of a plan in order; the answers of arms with the same prompt are measured once."""

    context: OpenRun
    max_seconds: float = MAX_DRY_RUN_SECONDS
    max_bytes: int = MAX_DRY_RUN_BYTES
    started: float = field(default_factory=time.monotonic)
    _index: str = "the index was not built"
    """Why there is no index; "" once it is built."""
    _index_seconds: float | None = None
    _asked: dict[tuple[str, str, int, str], tuple[float, float]] = field(default_factory=dict)
    """By (base, passages, shots, way of answering), which decide the time of an answer: seconds of one answer, and the
    share of processor time lost to other processes."""

    def measure(self) -> Iterator[tuple[Step, StepTime]]:
        """Yield every step of the plan with what was measured of it.

        Memory is measured for training alone and for its whole process. Answers are timed on the base model;
        tuned arms answer as fast as it does.
        """
        for step in self.context.plan.steps:
            if time.monotonic() - self.started > self.max_seconds:
                yield step, StepTime(how=f"not measured: {self.max_seconds:.0f} s were used up")
            elif isinstance(step, IndexStep):
                yield step, self._build(step)
            elif isinstance(step, EmbedderStep):
                yield step, self._tune(step)
            elif isinstance(step, TrainStep):
                yield step, self._train(step)
            else:
                yield step, self._answer(step)

    def _build(self, step: IndexStep) -> StepTime:
        documents = self.context.plan.data.documents
        assert documents is not None
        files = [documents] if documents.is_file() else [p for p in documents.rglob("*") if p.is_file()]
        size = sum(path.stat().st_size for path in files)
        if size > self.max_bytes:
            self._index = f"not measured: {size / 1e6:,.0f} MB of documents take too long to index for this"
            return StepTime(how=self._index)
        started = time.monotonic()
        with usage.measure_contention() as contention:
            # in a folder of the dry run, also where the plan names a database
            step_runner.build_index(self.context, step.model_copy(update={"backend": None}))
        self._index = ""
        self._index_seconds = time.monotonic() - started
        return StepTime(seconds=self._index_seconds, how="built", lost=contention.lost)

    def _tune(self, step: EmbedderStep) -> StepTime:
        """Take a few training steps of the embedder, and count on the time of the index for the second one."""
        if self._index:
            return StepTime(how=self._index)
        started = time.monotonic()
        with usage.measure_contention() as contention:
            seconds, steps, pairs = embedder_step.time_training(self.context, step)
        overhead = time.monotonic() - started
        how = f"{count_noun(pairs, 'pair')}; a few of {steps:,} steps of {seconds:.1f} s each, and the index once more"
        whole = steps * seconds + overhead + (self._index_seconds or 0.0)
        return StepTime(seconds=whole, how=how, lost=contention.lost)

    def _train(self, step: TrainStep) -> StepTime:
        if step.rows == "retrieval" and self._index:
            return StepTime(how=self._index)
        base = self.context.models.local_base(step)
        # With a new adapter, since continuing from one takes equally long.
        config = step.config(step.seeds[0]).replace(
            kernels=self.context.plan.kernels, thinking=self.context.plan.thinking.enabled
        )
        chat = ChatTokenizer(base.folder, config.thinking)
        used, report = run_checks.inspect_rows(self._rows(step), chat, config)
        report.require()
        estimated = machine_checks.needed_memory(base, config, report.longest)
        largest = machine_checks.largest_pass(used, config)
        memory_limit = estimated.free if estimated and estimated.shared else None
        self.context.models.release()
        started = time.monotonic()
        probe = probe_process.run_probe(
            base, config, largest, None, bool(estimated and estimated.checkpointing), memory_limit
        )
        wall = time.monotonic() - started
        tokens = config.epochs * report.tokens
        stops = [
            check
            for check in machine_checks.probe_checks(probe, config, round(tokens), memory_limit)
            if check.level == "stop"
        ]
        if stops or "batch" not in probe.findings:
            reasons = "; ".join(check.sentence() for check in stops)
            return StepTime(how="no step could be measured", stop=reasons)
        batch = probe.findings["batch"]
        training = tokens * batch["seconds"] / batch["tokens"]
        overhead = max(0.0, wall - 3 * batch["seconds"])
        return StepTime(
            seconds=len(step.seeds) * training + overhead,
            training_seconds=training,
            memory_gib=_rounded_gib(batch["own_gib"]),
            estimated_gib=_rounded_gib(batch["expected_gib"]),
            process_gib=_rounded_gib(max(batch["peak_gib"], probe.peak_gib)),
            lost=probe.findings.get("contention", {}).get("lost", 0.0),
            how=f"3 steps, the last of {batch['tokens']:,} tokens in {batch['seconds']:.1f} s",
        )

    def _rows(self, step: TrainStep) -> tuple[Example, ...]:
        """Return the rows that the arm will train on, with its share of replay rows."""
        context = self.context
        seed = step.seeds[0]
        rows, _ = step_runner.training_rows_of(context, step, seed)
        return step_runner.with_replay(context.plan, step, rows, seed, context.emit)

    def _answer(self, step: EvaluateStep) -> StepTime:
        context = self.context
        # The tuned retriever is not there yet; the plan's own takes as long.
        step = step.model_copy(update={"retriever": "plan"})
        if step.classifier:
            minutes = f"up to {TUNING_SECONDS / 60:.0f} minutes where an embedder is tuned"
            return StepTime(how=f"not measured: a classifier asks no model; it takes seconds, {minutes}")
        if step.nearest_reply:
            return StepTime(how="not measured: a nearest reply takes milliseconds and asks no model")
        if step.route:
            return self._route(step)
        if step.retrieval and self._index and not step.looks_up:
            return StepTime(how=self._index)
        base = context.models.base_of(step)
        if not isinstance(base, Model):
            return StepTime(how="not measured: a dry run sends nothing to an endpoint")
        if context.plan.servers.model_of(step):
            return StepTime(how="not measured: a dry run sends nothing to the backend")
        asked = context.split.dev[:DRY_RUN_QUESTIONS]
        if not asked:
            return StepTime(how="not measured: there is no dev question")
        key = (base.fingerprint, step.passages if step.retrieval else "", step.shots, step.labels)
        if key not in self._asked:
            with usage.measure_contention() as contention:
                seconds = self._time(step)
            self._asked[key] = seconds, contention.lost
        seeds = len(context.plan.train_step(step.weights).seeds) if step.weights else 1
        seconds_each, lost = self._asked[key]
        how = f"{count_noun(len(asked), 'answer')} at once, {seconds_each:.2f} s each" + (
            ", on the base" if step.weights else ""
        )
        return StepTime(seconds=seconds_each * len(context.split.test) * seeds, how=how, lost=lost)

    def _route(self, step: EvaluateStep) -> StepTime:
        """Return the time of a router: the dev answers of its second arm, at the time that these take; the others it has."""
        other = self._answer(self.context.plan.routed(step)[1])
        if other.seconds is None:
            return other
        test = len(self.context.split.test)
        dev = min(step.budget, test, len(self.context.split.dev))
        how = f"at most {count_noun(dev, 'dev answer')} of {step.route.otherwise if step.route else ''}; none of the test"
        return StepTime(seconds=other.seconds / max(1, test) * dev, how=how, lost=other.lost)

    def _time(self, step: EvaluateStep) -> float:
        """Return the seconds per answer for a few answers of an arm, without loading the model."""
        context = self.context
        generator = context.answering(step)
        asked = context.split.dev[:DRY_RUN_QUESTIONS]
        shots = arm.shown_examples(context, step, context.examples)
        finder = context.retrieval.finder(step)
        started = time.monotonic()
        answer_all(context.plan, step, asked, lambda: generator, finder, shots)
        return (time.monotonic() - started) / len(asked)


def _rounded_gib(size: float | None) -> float | None:
    return None if size is None else round(size, 3)

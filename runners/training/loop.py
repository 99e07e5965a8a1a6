"""The training loop itself: steps, validation, checkpoints, events. Heavy: imports torch.

A run is planned from its seed before it starts (:mod:`runners.training.schedule`), so the number of steps done is the
place in the data. A step is one effective batch: its rows go through the model in as many micro-batches as
memory wants, each loss divided by the learnt tokens of the whole step, so how it is split changes nothing.

When a loss has gone astray: judged from the losses so far alone, so that a resumed run judges the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from statistics import median
from typing import Any

from accelerate import Accelerator
from torch import Tensor, nn

from rag.errors import BadInput, CannotRun
from rag.types import OnEvent
from runners import interrupts
from runners.interrupts import StopRequest
from runners.plan.train_config import TrainConfig, TrainResult
from runners.tokenization.chat_template import EncodedRow
from runners.training import checkpoint, schedule
from runners.training.checkpoint import TrainingProgress
from runners.training.loss import TrainingLoss, evaluation_mode
from runners.training.optimizer import MasterOptimizer
from runners.training.runtime import MicroBatchSize, RuntimeChoices, out_of_memory_as_problem

DIVERGENCE_FACTOR = 4.0
"""So many times the running median is astray; a hard batch of good data stays below it."""
SUSTAINED_STEPS = 5
"""So many steps in a row stop the run: single spikes are ordinary and pass."""
DIVERGENCE_WINDOW = 50
"""Steps of the running median."""
SETTLED_STEPS = 8
"""Steps before a run has a median to speak of."""

MIN_JUDGED_STEPS = 20
"""Steps under which a tenth of them is one step, whose own rows say more than how far the run is."""


def diverging_steps(losses: Sequence[float]) -> int:
    """Return how many of the last steps, at most SUSTAINED, lie above both the bound and where the run began."""
    if len(losses) <= SETTLED_STEPS:
        return 0
    before = losses[max(0, len(losses) - SUSTAINED_STEPS - DIVERGENCE_WINDOW) : -SUSTAINED_STEPS]
    bound = max(DIVERGENCE_FACTOR * median(before), *losses[:SETTLED_STEPS])
    last = reversed(losses[max(SETTLED_STEPS, len(losses) - SUSTAINED_STEPS) :])
    return sum(1 for _ in takewhile(lambda loss: loss > bound, last))


def divergence_reason(losses: Sequence[float], norm: float) -> str:
    """Say why the run has to stop after its last step, "" when it has not to; ``norm`` is the gradient's."""
    if not math.isfinite(losses[-1]):
        return f"the loss is {losses[-1]}"
    if not math.isfinite(norm):
        return f"the gradient's norm is {norm}"
    if diverging_steps(losses) >= SUSTAINED_STEPS:
        return (
            f"the loss is {losses[-1]:.3g}, for {SUSTAINED_STEPS} steps above {DIVERGENCE_FACTOR:g} times its median and above "
            "where it began"
        )
    return ""


def loss_rise_note(first: float, last: float, steps: int) -> str:
    """Say that the loss ended above where it began, by the means of its first and last tenth, else ""."""
    if steps < MIN_JUDGED_STEPS or last <= first:
        return ""
    return f"the loss rose from {first:.3g} to {last:.3g}: lower the learning rate"


CHECKPOINT_SECONDS = 300.0
"""The most work that a kill can cost where steps are slow; where a checkpoint falls changes no weight."""


@dataclass
class TrainingLoop:
    """One training run under way."""

    config: TrainConfig
    net: nn.Module
    loss: TrainingLoss
    optimizer: MasterOptimizer
    accelerator: Accelerator
    rows: list[EncodedRow]
    valid: list[EncodedRow]
    passes: list[list[list[int]]]
    work: Path
    """Where checkpoints go."""
    progress: TrainingProgress
    choices: RuntimeChoices
    tell: OnEvent
    random: dict[str, Tensor] = field(default_factory=checkpoint.random_state)
    """The random state that the next step begins with."""
    stop: StopRequest = field(default_factory=StopRequest)

    def __post_init__(self) -> None:
        """Share the sizes of the forward passes with what is kept of them."""
        self.micro = MicroBatchSize(self.choices.sizes, self.loss.shared)

    @cached_property
    def steps(self) -> list[list[int]]:
        """All optimiser steps of all passes, as the rows each trains on."""
        return [step for one in self.passes for step in one]

    @cached_property
    def step_tokens(self) -> list[int]:
        """Real tokens of each step."""
        return [sum(len(self.rows[i].ids) for i in step) for step in self.steps]

    @cached_property
    def checks(self) -> list[int]:
        """The steps after which the validation loss is measured: each pass, or every ``eval_steps`` and the last."""
        if not self.valid:
            return []
        if every := self.config.eval_steps:
            return [*range(every, len(self.steps), every), len(self.steps)]
        return [sum(map(len, self.passes[: number + 1])) for number in range(len(self.passes))]

    @property
    def trainable(self) -> int:
        """Parameters that are trained."""
        return sum(p.numel() for p in self.optimizer.params.values())

    def run(self) -> None:
        """Take all steps that are left; when stopped from outside, leave a checkpoint and let that go on."""
        self.net.train()
        with interrupts.deferred_signals() as self.stop:
            try:
                self._train()
                self.stop.check()
            except (KeyboardInterrupt, SystemExit):
                if not self.stop.urgent:
                    self._checkpoint()
                raise
        if self.progress.best_step is not None:
            self.optimizer.set_weights(checkpoint.load_best_weights(self.work, self.progress.best_step))

    def log(self) -> Iterator[dict[str, Any]]:
        """Yield what every step and every validation measured, in order; the same after any resume."""
        rate, found = self.config.learning_rate, dict(zip(self.checks, self.progress.valid, strict=False))
        for step, (loss, norm) in enumerate(zip(self.progress.losses, self.progress.norms, strict=True), 1):
            yield {
                "step": step,
                "loss": loss,
                "grad_norm": norm,
                "learning_rate": rate * self._factor(step - 1),
            }
            if step in found:
                yield {"step": step, "valid_loss": found[step]}

    def result(self, folder: Path, left_out: int) -> TrainResult:
        """Return what was made and measured."""
        progress = self.progress
        tenth = max(1, len(progress.losses) // 10)
        early = f"stopped after {progress.step} of {len(self.steps)} steps, the validation loss rose"
        first, last = (sum(part) / tenth for part in (progress.losses[:tenth], progress.losses[-tenth:]))
        memory = self.choices.checkpointing
        notes = [early if progress.stopped else "", loss_rise_note(first, last, progress.step)]
        notes += [self.loss.reason, memory.reason if memory.on else "", self.optimizer.note]
        return TrainResult(
            folder=folder,
            method=self.config.method,
            rows=len(self.rows),
            steps=progress.step,
            tokens=progress.tokens,
            trainable=self.trainable,
            first_loss=first,
            last_loss=last,
            valid_loss=progress.best,
            seconds=progress.seconds,
            tokens_per_s=progress.tokens / max(progress.seconds, 1e-9),
            left_out=left_out,
            path=self.loss.path,
            notes=tuple(note for note in (*notes, *self.micro.notes()) if note),
        )

    def _train(self) -> None:
        progress, every, kept = self.progress, self.config.checkpoint_steps, time.monotonic()
        while True:
            if len(progress.valid) < sum(step <= progress.step for step in self.checks):
                self._validate()
            if progress.stopped or progress.step == len(self.steps):
                return
            self._step()
            due = every and (progress.step % every == 0 or time.monotonic() - kept > CHECKPOINT_SECONDS)
            if due and progress.step < len(self.steps):
                self._checkpoint()
                kept = time.monotonic()

    def _step(self) -> None:
        started = time.perf_counter()
        progress, number = self.progress, self.progress.step
        rows = [self.rows[i] for i in self.steps[number]]
        learnt = sum(len(row.learnt) for row in rows)

        def part(micro: list[EncodedRow]) -> float:
            loss = self.loss(micro) / learnt
            self.accelerator.backward(loss)
            return float(loss.detach())

        total = self._sum(rows, part)
        self._refuse(total, 0.0)
        with out_of_memory_as_problem("the optimiser's state", number):
            norm = self.optimizer.step(self._factor(number))
        self._refuse(total, norm)
        self.random = checkpoint.random_state()
        progress.step += 1
        progress.losses.append(total)
        progress.norms.append(norm)
        progress.tokens += self.step_tokens[number]
        took = time.perf_counter() - started
        progress.seconds += took
        self._report(self.step_tokens[number] / took)

    def _sum(self, rows: list[EncodedRow], part: Callable[[list[EncodedRow]], float]) -> float:
        """Sum ``part`` over micro-batches; someone who asks to stop is heard between any two of them."""

        def heard(micro: list[EncodedRow]) -> float:
            self.stop.check()
            with self.stop.open():
                return part(micro)

        try:
            return self.micro.total(rows, self.progress.step, heard, self._again)
        except CannotRun:
            self._checkpoint()
            raise

    def _again(self, reason: str) -> None:
        """Undo what a step has done so far, keep the smaller size, and say so."""
        for parameter in self.optimizer.params.values():
            parameter.grad = None
        checkpoint.restore_random_state(self.random)
        self.choices.write(self.work)
        step = self.progress.step
        self.tell(
            {
                "event": "train.memory",
                "step": step + 1,
                "tokens": self.micro.tokens_at(step),
                "reason": reason,
            }
        )

    def _refuse(self, loss: float, norm: float) -> None:
        """Raise BadInput when the loss has gone astray, naming the step and the last good checkpoint."""
        reason = divergence_reason([*self.progress.losses, loss], norm)
        if not reason:
            return
        kept, _ = checkpoint.newest_checkpoint(self.work)
        good = f"the last good checkpoint is {kept}" if kept else "no checkpoint was written yet"
        raise BadInput(
            f"training diverged at step {self.progress.step + 1}: {reason}; {good}",
            f"lower the learning rate (it was {self.config.learning_rate:g})",
        )

    def _factor(self, number: int) -> float:
        return schedule.learning_rate_factor(
            number, len(self.steps), self.config.schedule, self.config.warmup
        )

    def _report(self, speed: float) -> None:
        progress = self.progress
        left = sum(self.step_tokens[progress.step :])
        event = {"event": "train.step", "step": progress.step, "steps": len(self.steps)}
        event |= {"loss": progress.losses[-1], "grad_norm": progress.norms[-1], "tokens": progress.tokens}
        rate = self.config.learning_rate * self._factor(progress.step - 1)
        event |= {"learning_rate": rate, "tokens_per_s": speed}
        self.tell(event | {"eta_seconds": left * progress.seconds / progress.tokens})

    def _validate(self) -> None:
        """Measure the validation loss; keep the best weights; stop when it has not fallen for long."""
        with evaluation_mode(self.net):
            total = self._sum(self.valid, lambda micro: float(self.loss(micro)))
        loss = total / sum(len(row.learnt) for row in self.valid)
        progress = self.progress
        better = progress.best is None or loss < progress.best
        if better:
            checkpoint.save_best_weights(self.work, progress.step, self.optimizer.weights())
            progress.best, progress.best_step = loss, progress.step
        progress.valid.append(loss)
        progress.stale = 0 if better else progress.stale + 1
        progress.stopped = progress.stale >= self.config.patience
        event = {"event": "train.eval", "step": progress.step, "loss": loss, "best": progress.best}
        self.tell(event | {"stopped": progress.stopped})

    def _checkpoint(self) -> None:
        """Write a checkpoint of the last whole step; before the first there is nothing to keep.

        A loss that went astray is not kept, so that the last checkpoint stays a good one.
        """
        if self.progress.step == 0 or diverging_steps(self.progress.losses):
            return
        folder = checkpoint.save_checkpoint(self.work, self.progress, self.optimizer, self.random)
        self.tell({"event": "train.checkpoint", "step": self.progress.step, "folder": str(folder)})

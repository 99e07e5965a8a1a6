"""The training loop: optimiser steps, validation, checkpoints, events, and the detection of a diverging loss.

All steps are planned from the seed before the run starts (:mod:`runners.training.schedule`), so the number of steps
done is the position in the data. A step is one effective batch: its rows go through the model in as many
micro-batches as memory needs, each loss divided by the target tokens of the whole step, so that the split does not
change the result. Divergence is judged by the losses so far alone, so that a resumed run decides the same.
Imports torch.
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

from torch import Tensor, nn
from torch.amp import GradScaler

from rag.errors import BadInput, CannotRun
from rag.types import OnEvent
from runners import interrupts
from runners.distributed.process_group import ProcessGroup, lost_group_as_problem
from runners.distributed.wrapping import Step, WrappedStep
from runners.interrupts import StopRequest
from runners.plan.train_config import TrainConfig, TrainResult
from runners.resources.device import DTYPE_ENV
from runners.tokenization.chat_template import EncodedRow
from runners.training import checkpoint, schedule
from runners.training.checkpoint import TrainingProgress
from runners.training.group import step_shares
from runners.training.loss import TrainingLoss, evaluation_mode
from runners.training.optimizer import MasterOptimizer
from runners.training.runtime import MicroBatchSize, RuntimeChoices, out_of_memory_as_problem

DIVERGENCE_FACTOR = 4.0
"""A loss above this many times its running median diverges; a hard batch of good data stays below it."""
SUSTAINED_STEPS = 5
"""Diverging steps in a row that stop the run: single spikes are ordinary and pass."""
DIVERGENCE_WINDOW = 50
"""Number of steps of the running median."""
SETTLED_STEPS = 8
"""Number of first steps in which no divergence is judged, because the median is not meaningful yet."""
MIN_JUDGED_STEPS = 20
"""Fewest steps for which the first and last tenth are compared: with fewer, a tenth is one step, whose loss depends
more on its own rows than on the progress of the run."""
MAX_OVERFLOWS = 20
"""Steps in a row whose gradients overflow float16 that stop the run: from a scale of 65,536 they halve it below 0.1."""
CHECKPOINT_SECONDS = 300.0
"""A checkpoint is written at least this often where steps are slow: the most work that a kill can cost. When
checkpoints are written changes no weight."""


def diverging_steps(losses: Sequence[float]) -> int:
    """Return how many of the last steps diverge, at most SUSTAINED_STEPS.

    A step diverges when its loss is above DIVERGENCE_FACTOR times the median of the window before the last
    SUSTAINED_STEPS, and above every loss of the first SETTLED_STEPS.
    """
    if len(losses) <= SETTLED_STEPS:
        return 0
    before = losses[max(0, len(losses) - SUSTAINED_STEPS - DIVERGENCE_WINDOW) : -SUSTAINED_STEPS]
    bound = max(DIVERGENCE_FACTOR * median(before), *losses[:SETTLED_STEPS])
    last = reversed(losses[max(SETTLED_STEPS, len(losses) - SUSTAINED_STEPS) :])
    return sum(1 for _ in takewhile(lambda loss: loss > bound, last))


def divergence_reason(losses: Sequence[float], norm: float) -> str:
    """Return why the run has to stop after its last step, "" if it can continue; ``norm`` is the gradient's."""
    if not math.isfinite(losses[-1]):
        return f"the loss is {losses[-1]}"
    if not math.isfinite(norm):
        return f"the gradient's norm is {norm}"
    if diverging_steps(losses) >= SUSTAINED_STEPS:
        return (
            f"the loss is {losses[-1]:.3g}, for {SUSTAINED_STEPS} steps above "
            f"{DIVERGENCE_FACTOR:g} times its median and above where it began"
        )
    return ""


def overflow_note(skipped: Sequence[int], steps: int, scale: float) -> str:
    """Return a note on the steps that were skipped because a gradient overflowed float16, "" without any."""
    if not skipped:
        return ""
    return (
        f"{len(skipped)} of {steps} steps changed no weight: a gradient overflowed float16 "
        f"(the loss scale is {scale:g} now)"
    )


def loss_rise_note(first: float, last: float, steps: int) -> str:
    """Return a note when the loss ended above where it began, else "".

    Args:
        first: Mean loss of the first tenth of the steps.
        last: Mean loss of the last tenth.
        steps: Number of steps taken.
    """
    if steps < MIN_JUDGED_STEPS or last <= first:
        return ""
    return f"the loss rose from {first:.3g} to {last:.3g}: lower the learning rate"


@dataclass(kw_only=True)
class TrainingLoop:
    """One training run in progress: :meth:`run` takes the steps that are left, :meth:`result` summarises them."""

    config: TrainConfig
    net: nn.Module
    loss: TrainingLoss
    optimizer: MasterOptimizer
    rows: list[EncodedRow]
    valid: list[EncodedRow]
    """Validation rows; without any there is no validation and no early stopping."""
    passes: list[list[list[int]]]
    """The passes over the data, each a list of optimiser steps, each a list of indexes into ``rows``."""
    work: Path
    """Folder of the checkpoints."""
    progress: TrainingProgress
    choices: RuntimeChoices
    on_event: OnEvent
    random: dict[str, Tensor] = field(default_factory=checkpoint.random_state)
    """The random state that the next step begins with."""
    group: ProcessGroup = field(default_factory=ProcessGroup)
    """The processes that train together; by default this one alone."""
    wrapped: WrappedStep | None = None
    """The loss as the group's wrapper calls it; None for :class:`Step` itself."""
    stop: StopRequest = field(default_factory=StopRequest)
    """Set by SIGINT and SIGTERM while :meth:`run` is active."""

    def __post_init__(self) -> None:
        """Create the micro-batch size on the same list as the recorded choices, so that a halving is recorded."""
        self.micro = MicroBatchSize(self.choices.sizes, self.loss.shared)
        self.compute = self.wrapped or WrappedStep(Step(self.net, self.loss))

    @cached_property
    def steps(self) -> list[list[int]]:
        """All optimiser steps of all passes, each as the indexes of the rows it trains on."""
        return [step for steps in self.passes for step in steps]

    @cached_property
    def step_tokens(self) -> list[int]:
        """Number of tokens of each step, without padding."""
        return [sum(len(self.rows[i].ids) for i in step) for step in self.steps]

    @cached_property
    def validation_steps(self) -> list[int]:
        """The steps after which the validation loss is measured.

        The last step of each pass; with ``eval_steps``, every so many steps and the last.
        """
        if not self.valid:
            return []
        if every := self.config.eval_steps:
            return [*range(every, len(self.steps), every), len(self.steps)]
        return [sum(map(len, self.passes[: number + 1])) for number in range(len(self.passes))]

    @property
    def scaler(self) -> GradScaler | None:
        """What scales the loss of a run in float16; None in another dtype."""
        return self.optimizer.scaler

    @property
    def trainable(self) -> int:
        """Number of parameters that are trained."""
        return sum(parameter.numel() for parameter in self.optimizer.params.values())

    def run(self) -> None:
        """Take all steps that are left, then put the best validated weights in place.

        On SIGINT or SIGTERM a checkpoint is written, then the exception of the signal continues. Raises RestartGroup
        when another process of the group is lost.
        """
        self.net.train()
        with interrupts.deferred_signals(in_group=self.group.size > 1) as self.stop:
            try:
                with lost_group_as_problem():
                    self._train()
                    self._check_stop()
            except (KeyboardInterrupt, SystemExit):
                if not self.stop.urgent:
                    self._checkpoint()
                raise
        if self.progress.best_step is not None:
            checkpoint.restore_best_weights(self.work, self.progress.best_step, self.optimizer)

    def log(self) -> Iterator[dict[str, Any]]:
        """Yield a record of each step and each validation, in order; the same after any resume."""
        rate = self.config.learning_rate
        valid_losses = dict(zip(self.validation_steps, self.progress.valid, strict=False))
        for step, (loss, norm) in enumerate(zip(self.progress.losses, self.progress.norms, strict=True), 1):
            yield {
                "step": step,
                "loss": loss,
                "grad_norm": norm,
                "learning_rate": rate * self._factor(step - 1),
            }
            if step in valid_losses:
                yield {"step": step, "valid_loss": valid_losses[step]}

    def result(self, folder: Path, left_out: int) -> TrainResult:
        """Return the result of the run.

        Args:
            folder: Where the weights are published.
            left_out: Number of rows that were too long to train on.
        """
        progress = self.progress
        tenth = max(1, len(progress.losses) // 10)
        early = f"stopped after {progress.step} of {len(self.steps)} steps, the validation loss rose"
        first, last = (sum(part) / tenth for part in (progress.losses[:tenth], progress.losses[-tenth:]))
        memory = self.choices.checkpointing
        notes = [early if progress.stopped else "", loss_rise_note(first, last, progress.step)]
        if self.scaler is not None:
            notes.append("computed in float16 with a loss scale: the device has no native bf16")
            notes.append(overflow_note(progress.skipped, progress.step, self.scaler.get_scale()))
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
        """Take steps, validate and write checkpoints until the run ends."""
        progress = self.progress
        every = self.config.checkpoint_steps
        written = time.monotonic()
        while True:
            # A resumed run may have stopped between a step and the validation after it.
            if len(progress.valid) < sum(step <= progress.step for step in self.validation_steps):
                self._validate()
            if progress.stopped or progress.step == len(self.steps):
                return
            self._step()
            # The clocks of the processes differ: the first one's decides.
            late = self.group.is_first and time.monotonic() - written > CHECKPOINT_SECONDS
            due = every and (self.group.any(late) or progress.step % every == 0)
            if due and progress.step < len(self.steps):
                self._checkpoint()
                written = time.monotonic()

    def _step(self) -> None:
        """Take one optimiser step and record its loss, gradient norm, tokens and time."""
        started = time.perf_counter()
        progress, number = self.progress, self.progress.step
        rows = [self.rows[i] for i in self.steps[number]]
        targets = sum(len(row.learnt) for row in rows)

        def forward_backward(micro: list[EncodedRow], weight: float = 1.0, last: bool = True) -> float:
            # Divided by the target tokens of the whole step, not of the micro-batch: the gradients that add up are
            # those of the mean over the step, however it is split.
            with self.compute.accumulating(last):
                loss = self.compute(micro) / targets
                # The wrappers of a group average gradients over its processes; the mean over the step is their sum.
                scaled = loss if self.group.size == 1 else loss * (weight * self.group.size)
                (scaled if self.scaler is None else self.scaler.scale(scaled)).backward()
            return float(loss.detach()) * weight

        total = self._sum(rows, forward_backward)
        # Before the optimiser: a loss that is not finite must not reach its state.
        self._raise_if_diverged(total, 0.0)
        with (
            step_shares.failure_recorded(self.group, self.work, number),
            out_of_memory_as_problem("the optimiser's state", number),
        ):
            norm = self.optimizer.step(self._factor(number))
        overflowed = self.scaler is not None and not math.isfinite(norm)
        norm = 0.0 if overflowed else norm
        self._raise_if_diverged(total, norm)
        self.random = checkpoint.random_state()
        progress.step += 1
        progress.losses.append(total)
        progress.norms.append(norm)
        progress.tokens += self.step_tokens[number]
        if overflowed:
            self._skipped()
        seconds = time.perf_counter() - started
        progress.seconds += seconds
        self._report(self.step_tokens[number] / seconds)

    def _skipped(self) -> None:
        """Record that the step changed no weight; BadInput after too many of them in a row."""
        progress, scaler = self.progress, self.scaler
        assert scaler is not None
        progress.skipped.append(progress.step)
        scale = float(scaler.get_scale())
        reason = f"step {progress.step} changed no weight: a gradient overflowed float16; the loss scale is now {scale:g}"
        self.on_event(
            {"event": "train.overflow", "step": progress.step, "loss_scale": scale, "reason": reason}
        )
        first = progress.step - MAX_OVERFLOWS + 1
        if progress.skipped[-MAX_OVERFLOWS:] == list(range(first, progress.step + 1)):
            raise BadInput(
                f"training diverged at step {progress.step}: gradients overflowed float16 in {MAX_OVERFLOWS} steps "
                f"in a row, down to a loss scale of {scaler.get_scale():g}",
                f"lower the learning rate, or compute in float32: {DTYPE_ENV}=float32",
            )

    def _check_stop(self) -> None:
        """Raise KeyboardInterrupt when a stop was requested, in a group of any of its processes."""
        if self.group.size == 1:
            self.stop.check()
        elif self.group.any(bool(self.stop.asked)):
            raise KeyboardInterrupt

    def _sum(self, rows: list[EncodedRow], part: Callable[..., float]) -> float:
        """Return the sum of ``part`` over micro-batches; a request to stop is obeyed between any two of them."""
        if self.group.size > 1:
            return self._group_sum(rows, part)

        def interruptible(micro: list[EncodedRow]) -> float:
            self.stop.check()
            with self.stop.open():
                return part(micro)

        try:
            return self.micro.total(rows, self.progress.step, interruptible, self._restart_step)
        except CannotRun:
            self._checkpoint()
            raise

    def _group_sum(self, rows: list[EncodedRow], part: Callable[..., float]) -> float:
        """Return the sum over all processes of ``part``, each process computing its own run of the rows.

        Every process takes the same number of passes. Memory that runs out in one of them cannot be mended here,
        because the others wait for it: it is recorded, and the group has to be started again (RestartGroup).
        """
        step = self.progress.step
        planned = step_shares.plan_passes(rows, self.loss.shared, self.micro.tokens_at(step), self.group.size)
        own = planned[self.group.rank]
        total = 0.0
        for number, each in enumerate(own, 1):
            self._check_stop()
            with step_shares.failure_recorded(self.group, self.work, step, self.micro, each.rows):
                total += part(each.rows, each.weight, number == len(own))
        return self.group.sum(total)

    def _restart_step(self, reason: str) -> None:
        """Undo what the step has done so far, record the smaller micro-batch size, and report it."""
        for parameter in self.optimizer.params.values():
            parameter.grad = None
        checkpoint.restore_random_state(self.random)
        self.choices.write(self.work)
        step = self.progress.step
        self.on_event(
            {
                "event": "train.memory",
                "step": step + 1,
                "tokens": self.micro.tokens_at(step),
                "reason": reason,
            }
        )

    def _raise_if_diverged(self, loss: float, norm: float) -> None:
        """Raise BadInput when training diverged, naming the step and the last good checkpoint."""
        reason = divergence_reason([*self.progress.losses, loss], norm)
        if not reason:
            return
        newest, _ = checkpoint.newest_checkpoint(self.work)
        good = f"the last good checkpoint is {newest}" if newest else "no checkpoint was written yet"
        raise BadInput(
            f"training diverged at step {self.progress.step + 1}: {reason}; {good}",
            f"lower the learning rate (it was {self.config.learning_rate:g})"
            + (f", or compute in float32: {DTYPE_ENV}=float32" if self.scaler else ""),
        )

    def _factor(self, number: int) -> float:
        """Return the factor on the learning rate of step ``number``, counted from 0."""
        return schedule.learning_rate_factor(
            number, len(self.steps), self.config.schedule, self.config.warmup
        )

    def _report(self, tokens_per_s: float) -> None:
        """Emit the event of the last step; the time left is that of its tokens at the mean speed so far."""
        progress = self.progress
        tokens_left = sum(self.step_tokens[progress.step :])
        event = {"event": "train.step", "step": progress.step, "steps": len(self.steps)}
        event |= {"loss": progress.losses[-1], "grad_norm": progress.norms[-1], "tokens": progress.tokens}
        rate = self.config.learning_rate * self._factor(progress.step - 1)
        event |= {"learning_rate": rate, "tokens_per_s": tokens_per_s}
        self.on_event(event | {"eta_seconds": tokens_left * progress.seconds / progress.tokens})

    def _validate(self) -> None:
        """Measure the validation loss, save the best weights, and stop after ``patience`` times without a new best."""

        def part(micro: list[EncodedRow], weight: float = 1.0, last: bool = True) -> float:
            return float(self.compute(micro)) * weight

        with evaluation_mode(self.net):
            total = self._sum(self.valid, part)
        self.compute.reshard()
        loss = total / sum(len(row.learnt) for row in self.valid)
        progress = self.progress
        better = progress.best is None or loss < progress.best
        if better:
            checkpoint.save_best_weights(self.work, progress.step, self.optimizer, self.group)
            progress.best, progress.best_step = loss, progress.step
        progress.valid.append(loss)
        progress.stale = 0 if better else progress.stale + 1
        progress.stopped = progress.stale >= self.config.patience
        event = {"event": "train.eval", "step": progress.step, "loss": loss, "best": progress.best}
        self.on_event(event | {"stopped": progress.stopped})

    def _checkpoint(self) -> None:
        """Write a checkpoint of the last whole step; before the first step there is nothing to save.

        Nothing is written while the loss diverges, so that the last checkpoint stays a good one.
        """
        if self.progress.step == 0 or diverging_steps(self.progress.losses):
            return
        if self.scaler is not None:
            self.progress.scaler = self.scaler.state_dict()
        folder = checkpoint.save_checkpoint(self.work, self.progress, self.optimizer, self.random, self.group)
        self.on_event({"event": "train.checkpoint", "step": self.progress.step, "folder": str(folder)})

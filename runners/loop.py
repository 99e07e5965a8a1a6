"""The training loop itself: steps, validation, checkpoints, events. Heavy: imports torch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from rag.errors import BadInput
from runners import checkpoint, interrupt, schedule
from runners.chat import Encoded
from runners.checkpoint import Progress
from runners.loss import Loss, evaluating
from runners.optimizer import Optimizer
from runners.tuning import TrainConfig, TrainResult


@dataclass
class Loop:
    """One training run under way."""

    config: TrainConfig
    net: nn.Module
    loss: Loss
    optimizer: Optimizer
    accelerator: Accelerator
    rows: list[Encoded]
    valid: list[Encoded]
    passes: list[list[list[int]]]
    work: Path
    """Where checkpoints go."""
    progress: Progress
    best: dict[str, Tensor] | None
    """The weights of the best validation loss so far."""
    tell: Callable[[dict[str, Any]], None]

    def __post_init__(self) -> None:
        """Remember the random state that the next step begins with."""
        self.random = torch.get_rng_state()

    @cached_property
    def steps(self) -> list[list[int]]:
        """All optimiser steps of all passes, as the rows each trains on."""
        return [step for one in self.passes for step in one]

    @cached_property
    def step_tokens(self) -> list[int]:
        """Real tokens of each step."""
        return [sum(len(self.rows[i].ids) for i in step) for step in self.steps]

    @property
    def trainable(self) -> int:
        """Parameters that are trained."""
        return sum(p.numel() for p in self.optimizer.params.values())

    def run(self) -> None:
        """Take all steps that are left; leave a checkpoint when interrupted, then let it go on."""
        self.net.train()
        progress = self.progress
        try:
            while True:
                if self._validation_due():
                    self._validate()
                if progress.stopped or progress.step == len(self.steps):
                    break
                self._step()
                every = self.config.checkpoint_steps
                if every and progress.step % every == 0 and progress.step < len(self.steps):
                    self._checkpoint()
        except (KeyboardInterrupt, SystemExit):
            if progress.step > 0:
                self._checkpoint()
            raise
        if self.best is not None:
            self.optimizer.set_weights(self.best)

    def result(self, folder: Path, left_out: int) -> TrainResult:
        """Return what was made and measured."""
        progress = self.progress
        tenth = max(1, len(progress.losses) // 10)
        early = f"stopped after {progress.step} of {len(self.steps)} steps, the validation loss rose"
        notes = [*([early] if progress.stopped else []), *([self.loss.reason] if self.loss.reason else [])]
        return TrainResult(
            folder=folder,
            method=self.config.method,
            rows=len(self.rows),
            steps=progress.step,
            tokens=progress.tokens,
            trainable=self.trainable,
            first_loss=sum(progress.losses[:tenth]) / tenth,
            last_loss=sum(progress.losses[-tenth:]) / tenth,
            valid_loss=progress.best,
            seconds=progress.seconds,
            tokens_per_s=progress.tokens / max(progress.seconds, 1e-9),
            left_out=left_out,
            path=self.loss.path,
            notes=tuple(notes),
        )

    def _step(self) -> None:
        started = time.perf_counter()
        progress, number = self.progress, self.progress.step
        chosen = self.steps[number]
        learnt = sum(len(self.rows[i].learnt) for i in chosen)
        total = 0.0
        for micro in schedule.micro_batches(chosen, [len(row.ids) for row in self.rows]):
            loss = self.loss([self.rows[i] for i in micro]) / learnt
            self.accelerator.backward(loss)
            total += float(loss.detach())
        if not math.isfinite(total):
            raise BadInput(
                f"training diverged at step {number + 1}: the loss is {total}",
                f"lower the learning rate (it was {self.config.learning_rate})",
            )
        factor = schedule.rate(number, len(self.steps), self.config.schedule, self.config.warmup)
        with interrupt.held():
            norm = self.optimizer.step(factor)
            self.random = torch.get_rng_state()
            progress.step += 1
            progress.losses.append(total)
            progress.tokens += self.step_tokens[number]
            progress.seconds += time.perf_counter() - started
        self._report(norm, factor, self.step_tokens[number] / (time.perf_counter() - started))

    def _report(self, norm: float, factor: float, speed: float) -> None:
        progress = self.progress
        left = sum(self.step_tokens[progress.step :])
        event = {"event": "train.step", "step": progress.step, "steps": len(self.steps)}
        event |= {"loss": progress.losses[-1], "grad_norm": norm, "tokens": progress.tokens}
        event |= {"learning_rate": self.config.learning_rate * factor, "tokens_per_s": speed}
        self.tell(event | {"eta_seconds": left * progress.seconds / progress.tokens})

    def _validation_due(self) -> bool:
        """Say whether a pass has ended that was not validated yet (also after a resume)."""
        ended, done = 0, 0
        for one in self.passes:
            done += len(one)
            ended += done <= self.progress.step
        return bool(self.valid) and ended > len(self.progress.valid)

    def _validate(self) -> None:
        """Measure the validation loss; keep the best weights; stop when it has not fallen for long."""
        micros = schedule.micro_batches(range(len(self.valid)), [len(row.ids) for row in self.valid])
        with evaluating(self.net):
            total = sum(float(self.loss([self.valid[i] for i in micro])) for micro in micros)
        loss = total / sum(len(row.learnt) for row in self.valid)
        progress = self.progress
        better = progress.best is None or loss < progress.best
        if better:
            progress.best, self.best = loss, self.optimizer.weights()
        progress.valid.append(loss)
        progress.stale = 0 if better else progress.stale + 1
        progress.stopped = progress.stale >= self.config.patience
        event = {"event": "train.eval", "step": progress.step, "loss": loss, "best": progress.best}
        self.tell(event | {"stopped": progress.stopped})

    def _checkpoint(self) -> None:
        with interrupt.held():
            torch.set_rng_state(self.random)
            folder = checkpoint.save(self.work, self.progress, self.optimizer, self.best)
        self.tell({"event": "train.checkpoint", "step": self.progress.step, "folder": str(folder)})

"""What a training run is asked for and what it gives back: plain data, no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rag.errors import BadInput

METHODS = ("lora", "qlora", "full")
SCHEDULES = ("cosine", "linear", "constant")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How to tune; the defaults suit a few hundred rows on a small model (see :mod:`runners.defaults`)."""

    method: str = "lora"
    epochs: float = 2.0
    """Passes over the rows; a fraction ends within a pass."""
    learning_rate: float = 5e-4
    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    batch_tokens: int = 1024
    """Real tokens per optimiser step, at least one row."""
    max_tokens: int = 1024
    """Longest row; longer rows are left out and counted, too many of them refuse the run. Nothing is cut."""
    seed: int = 0
    schedule: str = "cosine"
    warmup: float = 0.05
    """Share of the steps over which the learning rate rises from 0."""
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    checkpoint_steps: int = 100
    """Optimiser steps between checkpoints; 0 writes one only when interrupted."""
    patience: int = 2
    """With validation rows: passes without improvement until training stops; the best weights return."""
    init_adapter: Path | None = None
    """A LoRA adapter of the same base to go on from (its rank and alpha win)."""

    def __post_init__(self) -> None:
        """Raise BadInput, naming key and value, for a setting that cannot be meant."""
        _one_of("method", self.method, METHODS)
        _one_of("schedule", self.schedule, SCHEDULES)
        for name in ("epochs", "learning_rate", "alpha", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise BadInput(f"{name} must be above 0, found {getattr(self, name)}")
        for name in ("rank", "batch_tokens", "max_tokens", "patience"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} must be at least 1, found {getattr(self, name)}")
        for name in ("dropout", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise BadInput(f"{name} must be from 0 to below 1, found {getattr(self, name)}")
        if self.checkpoint_steps < 0 or self.weight_decay < 0:
            raise BadInput("checkpoint_steps and weight_decay cannot be negative")
        if self.init_adapter is not None and self.method == "full":
            raise BadInput("init_adapter goes on from a LoRA adapter, so the method cannot be full")

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return {**asdict(self), "init_adapter": self.init_adapter and str(self.init_adapter)}


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What one training run made and measured."""

    folder: Path
    method: str
    rows: int
    steps: int
    tokens: int
    """Real tokens trained on, every pass counted."""
    trainable: int
    """Parameters that were trained."""
    first_loss: float
    last_loss: float
    """Mean over the first and the last tenth of the steps."""
    valid_loss: float | None
    """The best validation loss, None without validation rows."""
    seconds: float
    tokens_per_s: float
    left_out: int
    """Rows longer than max_tokens."""
    path: str
    """How the loss was computed: fast, rows or plain (see :mod:`runners.loss`)."""
    notes: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Return everything but the folder as JSON values."""
        values = asdict(self)
        del values["folder"]
        return {**values, "notes": list(self.notes)}


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise BadInput(f"{name} {value!r} is unknown", f"one of: {', '.join(allowed)}")

"""What a training run is asked for and what it gives back: plain data, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rag.errors import BadInput

METHODS = ("lora", "qlora", "full")
SCHEDULES = ("cosine", "linear", "constant")
VARIANTS = ("lora", "rslora", "dora", "pissa")
OPTIMIZERS = ("adamw", "adamw_8bit", "paged_adamw_8bit", "adafactor")
CHECKPOINTING = ("auto", "on", "off")
TURNS = ("all", "last")
KERNELS = ("auto", "plain")
ALL_LINEAR = "all-linear"


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
    """Optimiser steps between checkpoints, or five minutes if that is sooner; 0 writes one only when stopped."""
    eval_steps: int = 0
    """With validation rows: optimiser steps between measurements of their loss; 0 measures after each pass."""
    patience: int = 2
    """Measurements without improvement until training stops; the best weights return."""
    init_adapter: Path | None = None
    """A LoRA adapter of the same base to go on from (its rank, alpha, variant and targets win)."""
    variant: str = "lora"
    """rslora scales by alpha / sqrt(rank), dora trains direction and length apart, pissa starts from the
    base's largest singular values and is saved as a plain adapter of twice the rank."""
    targets: str | tuple[str, ...] = ALL_LINEAR
    """The layers that get an adapter: every linear one but the head, or those whose names end so."""
    lora_plus: float = 1.0
    """Learning rate of the B matrices over that of the A matrices; 1 is off, 16 is usual (LoRA+)."""
    neftune: float = 0.0
    """Size of the noise on the input embeddings while training; 0 is off, 5 is usual (NEFTune)."""
    optimizer: str = "adamw"
    """adamw_8bit and paged_adamw_8bit hold their state in 8 bits, adafactor in rows and columns."""
    checkpointing: str = "auto"
    """Whether activations are computed again in the backward pass; auto only when memory asks for it."""
    turns: str = "all"
    """Which assistant turns of a chat are learnt: all, or the last."""
    micro_tokens: int = 2048
    """Padded tokens of one forward pass; a bigger step is split, with the same result."""
    kernels: str = "auto"
    """auto takes the fastest path that gives the plain one's loss; plain is the reference: padded rows, the layers of
    transformers and PEFT, torch's cross-entropy."""

    def __post_init__(self) -> None:
        """Raise BadInput, naming key and value, for a setting that cannot be meant."""
        _one_of("method", self.method, METHODS)
        _one_of("schedule", self.schedule, SCHEDULES)
        _one_of("variant", self.variant, VARIANTS)
        _one_of("optimizer", self.optimizer, OPTIMIZERS)
        _one_of("checkpointing", self.checkpointing, CHECKPOINTING)
        _one_of("turns", self.turns, TURNS)
        _one_of("kernels", self.kernels, KERNELS)
        for name in ("epochs", "learning_rate", "alpha", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise BadInput(f"{name} must be above 0, found {getattr(self, name)}")
        for name in ("rank", "batch_tokens", "max_tokens", "patience", "lora_plus", "micro_tokens"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} must be at least 1, found {getattr(self, name)}")
        for name in ("dropout", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise BadInput(f"{name} must be from 0 to below 1, found {getattr(self, name)}")
        for name in ("checkpoint_steps", "eval_steps", "weight_decay", "neftune"):
            if getattr(self, name) < 0:
                raise BadInput(f"{name} cannot be negative, found {getattr(self, name)}")
        refuse_mix(self.method, self.variant, self.lora_plus, self.targets, self.init_adapter is not None)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        settings = {**asdict(self), "init_adapter": self.init_adapter and str(self.init_adapter)}
        return settings | {"targets": self.targets if isinstance(self.targets, str) else list(self.targets)}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a run's rows, settings and orders came from: kept with the weights, changing nothing in them."""

    files: tuple[str, ...] = ()
    """Names of the files that the rows were read from."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why each setting is as it is, by TrainConfig field."""
    plan_sha256: str = ""
    """Digest of the plan that asked for it, "" without one."""


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
    expected_gib: float | None = None
    """The memory estimate for the settings and the way this run took (:mod:`runners.expected`)."""
    notes: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Return everything but the folder as JSON values."""
        values = asdict(self)
        del values["folder"]
        return {**values, "notes": list(self.notes)}


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise BadInput(f"{name} {value!r} is unknown", f"one of: {', '.join(allowed)}")


def refuse_mix(
    method: str, variant: str, lora_plus: float, targets: str | tuple[str, ...], going_on: bool
) -> None:
    """Raise BadInput for settings that are fine alone and mean nothing together."""
    if isinstance(targets, str) and targets != ALL_LINEAR:
        raise BadInput(f"targets {targets!r} is unknown", f"{ALL_LINEAR}, or a list of name endings")
    if not targets or not all(targets):
        raise BadInput("targets names no layer", f"{ALL_LINEAR}, or name endings such as q_proj, v_proj")
    if method == "full":
        of_adapters = {
            "variant": variant != "lora",
            "lora_plus": lora_plus != 1,
            "targets": targets != ALL_LINEAR,
            "init_adapter": going_on,
        }
        for name, asked in of_adapters.items():
            if asked:
                raise BadInput(f"{name} is about LoRA adapters, so the method cannot be full")
    if method == "qlora" and variant == "pissa":
        raise BadInput(
            "variant 'pissa' takes the base's weights apart, which four-bit ones do not allow",
            "method lora, or another variant",
        )
    if going_on and variant == "pissa":
        raise BadInput("variant 'pissa' is a way to begin, so it cannot go on from an adapter")

"""Training settings with their bounds, and the result of a training run. Imports no torch.

:class:`TrainConfig` alone defines the type, bounds, default and description of a setting: a plan's train step inherits
them (:class:`runners.plan.steps.TrainStep`), and the flags of `tunewise train` are derived from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)

from rag.errors import BadInput

if TYPE_CHECKING:
    from runners.data.teachers import RowTeacher

TuningMethod = Literal["lora", "qlora", "full"]
LearningRateSchedule = Literal["cosine", "linear", "constant"]
LoraVariant = Literal["lora", "rslora", "dora", "pissa"]
OptimizerName = Literal["adamw", "adamw_8bit", "paged_adamw_8bit", "adafactor"]
TUNING_METHODS: tuple[TuningMethod, ...] = get_args(TuningMethod)
"""The tuning methods; earlier ones need less memory and write smaller files."""
LORA_VARIANTS: tuple[LoraVariant, ...] = get_args(LoraVariant)
OPTIMIZERS: tuple[OptimizerName, ...] = get_args(OptimizerName)
KernelChoice = Literal["auto", "plain"]
KERNELS: tuple[KernelChoice, ...] = get_args(KernelChoice)
"""The training and decoding paths: the fastest that gives equal results, or the plain reference."""
Parallelism = Literal["auto", "ddp", "fsdp", "fsdp_4bit"]
PARALLELISMS: tuple[Parallelism, ...] = get_args(Parallelism)
"""How several processes share a training; the first is the default."""
ALL_LINEAR: Literal["all-linear"] = "all-linear"


def implied(default: Any, **settings: Any) -> Any:
    """Return a field that is left out of dumps at its default, so that digests do not depend on it there.

    Keys that a plan got after others were recorded in runs are such fields: :meth:`runners.plan.schema.Plan.digest` and the
    inputs of a run's steps stay what they were.

    Args:
        default: the field's default.
        settings: as of pydantic's ``Field``.
    """
    return Field(default, exclude_if=lambda value: value == default, **settings)


def switch_word(value: Any) -> Any:
    """Return "on" or "off" for true and false, as which YAML 1.1 reads these words without quotes; others as they are."""
    return ("on" if value else "off") if isinstance(value, bool) else value


class TrainSettings(BaseModel):
    """The settings that a plan's train step and a training run share."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    method: TuningMethod = Field(
        "lora", description="What is trained: LoRA adapters, LoRA adapters of a 4-bit base, or all weights."
    )
    epochs: float = Field(
        2.0, gt=0, le=100, description="Passes over the rows; a fraction ends within a pass."
    )
    learning_rate: float = Field(5e-4, gt=0, lt=1, description="Highest learning rate of the schedule.")
    rank: int = Field(
        16, ge=1, le=512, description="LoRA rank, the size of the adapters; full tuning has none."
    )
    alpha: float = Field(
        32.0,
        gt=0,
        le=1e6,
        description="LoRA alpha: adapters are scaled by alpha / rank, with rslora by alpha / sqrt(rank).",
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of the adapters' inputs dropped in training.")
    variant: LoraVariant = Field(
        "lora",
        description="Kind of LoRA: rslora scales by alpha / sqrt(rank), dora trains direction and length separately, pissa "
        "starts from the base's largest singular values and is saved as a plain adapter of twice the rank.",
    )
    targets: Literal["all-linear"] | tuple[str, ...] = Field(
        ALL_LINEAR,
        description="Layers that get an adapter: every linear one but the head, or those named, such as q_proj,v_proj.",
    )
    schedule: LearningRateSchedule = Field(
        "cosine", description="Shape of the learning rate after the warm-up."
    )
    lora_plus: float = Field(
        1.0,
        ge=1,
        le=1000,
        description="Learning rate of LoRA's B matrices over that of A (LoRA+); 1 is off, 16 is usual.",
    )
    neftune: float = Field(
        0.0,
        ge=0,
        le=1e4,
        description="Size of the noise on the input embeddings (NEFTune); 0 is off, 5 is usual.",
    )
    optimizer: OptimizerName = Field(
        "adamw", description="The 8-bit ones and adafactor need less memory for their state, for full tuning."
    )
    checkpointing: Annotated[Literal["auto", "on", "off"], BeforeValidator(switch_word)] = Field(
        "auto", description="Compute activations again to save memory; auto only when it is needed."
    )
    turns: Literal["all", "last"] = Field("all", description="Which assistant turns of a chat are learnt.")
    batch_tokens: int = Field(
        1024, ge=1, le=10**9, description="Real tokens per optimiser step, at least one row."
    )
    max_tokens: int = Field(
        1024,
        ge=8,
        le=10**9,
        description="Longest row in tokens; longer ones are skipped and counted, never cut; too many are refused.",
    )


Seed = Annotated[int, Field(ge=-(2**63), le=2**64 - 1)]
"""A random seed, in the range of torch.manual_seed."""


class TrainConfig(TrainSettings):
    """The settings of one training run; the defaults suit a few hundred rows on a small model.

    See :mod:`runners.training.defaults` for their sources. Settings that are unknown, out of bounds or in conflict raise
    BadInput, naming key and value.
    """

    seed: Seed = Field(0, description="Seed of the order of rows, of dropout and of fresh weights.")
    warmup: float = Field(
        0.05, ge=0, lt=1, description="Share of the steps over which the learning rate rises from 0."
    )
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay of the optimiser.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm.")
    checkpoint_steps: int = Field(
        100,
        ge=0,
        le=10**9,
        description="Optimiser steps between checkpoints, or five minutes if that is sooner; 0: only when stopped.",
    )
    eval_steps: int = Field(
        0,
        ge=0,
        le=10**9,
        description="Optimiser steps between measurements of the loss on validation rows; 0: after each pass.",
    )
    patience: int = Field(
        2,
        ge=1,
        le=10**6,
        description="Validations without improvement until training stops; the best weights are kept.",
    )
    init_adapter: Path | None = Field(
        None,
        description="LoRA adapter of the same base to continue from; its rank, alpha, variant and targets are used.",
    )
    micro_tokens: int = Field(
        2048,
        ge=1,
        le=10**9,
        description="Padded tokens of one forward pass; a larger step is split, with the same result.",
    )

    kernels: KernelChoice = Field(
        "auto",
        description="auto takes the fastest path that gives the plain one's loss; plain is the reference: padded rows, "
        "the layers of transformers and PEFT, torch's cross-entropy.",
    )
    parallel: Parallelism = implied(
        "auto",
        description="How several processes share the training: ddp has a whole copy in each, fsdp shards weights, "
        "gradients and optimiser state; auto takes ddp where it fits one device. fsdp leaves 4-bit weights whole; "
        "fsdp_4bit shards them too (unverified on GPUs). No effect in one process.",
    )
    thinking: bool = implied(
        False,
        description="Whether a model whose chat template can switch its reasoning on and off is asked to reason later.",
    )

    @model_validator(mode="wrap")
    @classmethod
    def _validate(cls, values: Any, handler: ModelWrapValidatorHandler[TrainConfig]) -> TrainConfig:
        """Raise pydantic's first error as BadInput, which callers show as it is."""
        try:
            config = handler(values)
        except ValidationError as error:
            raise as_bad_input(error) from None
        continues = config.init_adapter is not None
        refuse_conflicting_settings(
            config.method, config.variant, config.lora_plus, config.targets, continues
        )
        return config

    def replace(self, **changes: Any) -> TrainConfig:
        """Return a copy with other values, validated as a new one is."""
        return TrainConfig(**{**dict(self), **changes})

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return self.model_dump(mode="json")


def allowed_values(name: str) -> str:
    """Return the choices or the bounds of a TrainConfig setting in words, "" for one without."""
    setting = TrainConfig.model_fields[name]
    if get_origin(setting.annotation) is Literal:
        return ", ".join(get_args(setting.annotation))
    if name == "targets":
        return f"{ALL_LINEAR}, or a list of name endings"
    bounds = {
        kind: f"{value:,}" if isinstance(value, int) else f"{value:,.10g}"
        for constraint in setting.metadata
        for kind in ("ge", "gt", "le", "lt")
        if (value := getattr(constraint, kind, None)) is not None
    }
    if {"ge", "le"} <= set(bounds):
        return f"from {bounds['ge']} to {bounds['le']}"
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    return ", ".join(f"{word} {bounds[kind]}" for kind, word in words.items() if kind in bounds)


def as_bad_input(error: ValidationError) -> BadInput:
    """Return pydantic's first error about a TrainConfig as BadInput: the setting, its value, the values allowed."""
    first = error.errors()[0]
    name, value, kind = str(first["loc"][0]), first["input"], first["type"]
    if kind == "extra_forbidden":
        return BadInput(f"{name} is no training setting", f"one of: {', '.join(TrainConfig.model_fields)}")
    shown = f"{value:g}" if isinstance(value, float) else repr(value)
    if kind.startswith(("greater_than", "less_than")) or kind == "finite_number":
        return BadInput(f"{name} {shown} is out of bounds", allowed_values(name))
    if kind == "literal_error":
        choices = "" if name == "targets" else "one of: "
        return BadInput(f"{name} {shown} is unknown", f"{choices}{allowed_values(name)}")
    return BadInput(f"{name} {shown} cannot be used: {first['msg']}", allowed_values(name))


@dataclass(frozen=True, slots=True)
class RunOrigin:
    """Origin of a run's rows and settings; it is stored with the weights and does not affect them."""

    files: tuple[str, ...] = ()
    """Names of the files that the rows were read from."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Reason for the value of each setting, by TrainConfig field."""
    plan_sha256: str = ""
    """Digest of the plan that the run is part of, "" without one."""
    teachers: tuple[RowTeacher, ...] = ()
    """Models that wrote some of the rows, and of those that the weights were trained on before; set by the training."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """Output and measurements of one training run."""

    folder: Path
    method: str
    rows: int
    steps: int
    tokens: int
    """Tokens trained on, without padding, over all passes."""
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
    """Number of rows longer than max_tokens."""
    path: str
    """How the loss was computed: fast, rows or plain (see :mod:`runners.training.loss`)."""
    expected_gib: float | None = None
    """Memory estimate for the settings and the path of this run (:mod:`runners.training.runtime`)."""
    notes: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Return all fields but the folder as JSON values."""
        values = asdict(self)
        del values["folder"]
        return {**values, "notes": list(self.notes)}


def refuse_conflicting_settings(
    method: str, variant: str, lora_plus: float, targets: str | tuple[str, ...], continues: bool
) -> None:
    """Raise BadInput for settings that are valid alone but not together.

    Args:
        method: lora, qlora or full.
        variant: kind of LoRA.
        lora_plus: ratio of the learning rates of B and A.
        targets: layers that get an adapter.
        continues: whether training continues from an adapter.
    """
    if isinstance(targets, str) and targets != ALL_LINEAR:
        raise BadInput(f"targets {targets!r} is unknown", f"{ALL_LINEAR}, or a list of name endings")
    if not targets or not all(targets):
        raise BadInput("targets names no layer", f"{ALL_LINEAR}, or name endings such as q_proj, v_proj")
    if method == "full":
        adapter_settings = {
            "variant": variant != "lora",
            "lora_plus": lora_plus != 1,
            "targets": targets != ALL_LINEAR,
            "init_adapter": continues,
        }
        for name, is_set in adapter_settings.items():
            if is_set:
                raise BadInput(f"{name} is about LoRA adapters, so the method cannot be full")
    if method == "qlora" and variant == "pissa":
        raise BadInput(
            "variant 'pissa' decomposes the base's weights, which four-bit ones do not allow",
            "method lora, or another variant",
        )
    if continues and variant == "pissa":
        raise BadInput("variant 'pissa' sets how training begins, so it cannot continue from an adapter")

"""The model of a training in one process or in a group: loaded, with its adapters, its loss, and the group's wrapper.

In one process and with whole copies the loss is chosen by comparing its paths with the plain one on the user's model
(:mod:`runners.training.loss`), by rank 0 for all. A base that is whole on no device is compared through the wrapper, in all
processes together. Imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rag.errors import CannotRun
from runners.distributed import environment, process_group
from runners.distributed.environment import WHOLE_COPIES
from runners.distributed.process_group import ProcessGroup
from runners.distributed.sharded_weights import Skeleton, load_skeleton, read_shards, release_values
from runners.distributed.wrapping import (
    Replicate,
    Step,
    WrappedStep,
    copy_whole,
    local_shard,
    shard,
    whole_tensor,
)
from runners.inference.weights import DTYPES, default_device, free_gib
from runners.models.resolve import Model
from runners.plan.train_config import TrainConfig
from runners.resources.gpu import MachineProbe
from runners.resources.machine import free_ram
from runners.tokenization.chat_template import EncodedRow
from runners.training import lora
from runners.training.group.parallel_choice import GroupMemory
from runners.training.loss import (
    GRADIENT_TOLERANCE,
    LOSS_TOLERANCE,
    PLAIN_REQUESTED,
    TrainingLoss,
    choose_loss,
    evaluation_mode,
    restore_loss,
)
from runners.training.path_probe import ADAPTER_SCALE
from runners.training.runtime import CHOICES_FILE, RuntimeChoices, first_error_line, is_out_of_memory

PROBE_ROWS = 2
"""Rows, the shortest ones, whose loss and gradients are compared before the first step."""


@dataclass(frozen=True, slots=True)
class PreparedModel:
    """What a training loop needs of the model."""

    net: nn.Module
    loss: TrainingLoss
    wrapped: WrappedStep


def group_memory(group: ProcessGroup) -> GroupMemory:
    """Return the memory that each process of a group may use: the smallest over all of them.

    Processes of one node share its RAM, and on a CPU that is the device's memory too.
    """
    if group.size == 1:
        return GroupMemory(free_gib(), float(free_ram(MachineProbe()).value))
    neighbours = environment.local_world_size()
    host = float(free_ram(MachineProbe()).value) / neighbours
    own = free_gib() if default_device().type != "cpu" else free_gib() / neighbours
    if torch.cuda.is_available() and default_device().type == "cuda":
        process_group.require_devices(neighbours, torch.cuda.device_count())
    same = group.least(neighbours) == group.most(neighbours)
    return GroupMemory(group.least(own), group.least(host), neighbours if same else 0)


def prepare(
    base: Model,
    config: TrainConfig,
    chosen: RuntimeChoices,
    rows: list[EncodedRow],
    tokens: int,
    resumed: bool,
    group: ProcessGroup,
    replicate: Replicate,
) -> PreparedModel:
    """Return the model with its loss and wrapper; path and reason of a new run's loss are added to ``chosen``.

    Args:
        base: The base model.
        config: Settings of the run.
        chosen: The choices of the run.
        rows: The training rows.
        tokens: Tokens of the whole run, by which compiling is decided in one process.
        resumed: Whether the choices are those of an unfinished run, which its loss repeats.
        group: The processes that train together; all of them have to call it.
        replicate: Wraps the step where every process has a whole copy.
    """
    skeleton = load_skeleton(base.folder, DTYPES[chosen.dtype]) if chosen.load == "shards" else None
    net = lora.prepare_model(
        base,
        config,
        chosen.checkpointing.on,
        chosen.dtype,
        on_host=chosen.load == "host",
        skeleton=skeleton.causal if skeleton else None,
    )
    # In the host's memory a model for GPUs is compared with nothing either: the paths of a CPU are not those of a GPU.
    if skeleton is not None or (chosen.load == "host" and default_device().type != "cpu"):
        return _prepare_shards(base, config, chosen, rows, resumed, group, net, skeleton)
    loss = _group_loss(net, rows, tokens, config, chosen, resumed, group)
    step = Step(net, loss)
    if chosen.parallel == "single":
        return PreparedModel(net, loss, WrappedStep(step))
    if chosen.parallel == "ddp":
        return PreparedModel(net, loss, replicate(step, group.size, _has_experts(loss.causal)))
    probe = _probe_rows(rows)
    with evaluation_mode(net):
        expected = float(loss(probe))
    wrapped = _sharded(step, loss.causal, config, group, chosen.replicas)
    with evaluation_mode(net), _sharded_failure_as_problem(config):
        value = float(wrapped(probe))
    wrapped.reshard()
    _require_equal_loss(value, expected, loss.causal.dtype, config)
    return PreparedModel(net, loss, wrapped)


def whole_weights(net: nn.Module, wrapped: WrappedStep, group: ProcessGroup) -> dict[str, Tensor]:
    """Return the trained weights whole, in rank 0 on the CPU by name; {} in the others, which have to call it too."""
    whole = {}
    wrapped.reshard()
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            tensor = whole_tensor(parameter.detach())
            if group.is_first:
                whole[name] = tensor.cpu()
    return whole


def require_shared_folder(work: Path, group: ProcessGroup) -> None:
    """Raise CannotRun in every process when one of them does not see the folder of the checkpoints that rank 0 writes."""
    group.barrier()
    if group.any(not (work / CHOICES_FILE).is_file()):
        raise CannotRun(
            f"not every node sees {work}, where rank 0 writes checkpoints",
            "an --out on a disk that all nodes share",
        )


def _prepare_shards(
    base: Model,
    config: TrainConfig,
    chosen: RuntimeChoices,
    rows: list[EncodedRow],
    resumed: bool,
    group: ProcessGroup,
    net: nn.Module,
    skeleton: Skeleton | None,
) -> PreparedModel:
    """Return a model that is whole on no device, with the plain loss or one that equals it.

    With a skeleton each process reads its own shards; without, the whole model is in the host's memory.
    """
    plain = restore_loss(net, "plain", "")
    step = Step(net, plain)
    if skeleton is not None:
        release_values(skeleton)
    wrapped = _sharded(step, plain.causal, config, group, chosen.replicas)
    if skeleton is not None:
        read_shards(skeleton, base.folder, default_device())
    if not resumed:
        chosen.path, chosen.reason = _sharded_path(step, wrapped, plain, rows, config, group)
    loss = replace(restore_loss(net, chosen.path, chosen.reason), compiling=_NOT_COMPILED)
    step.use(loss)
    return PreparedModel(net, loss, wrapped)


_FOUR_BIT_PLAIN = "4-bit weights are sharded: the layers of transformers and PEFT alone compute with them"
_NOT_COMPILED = "torch.compile is off: it is not used in several processes"


def _group_loss(
    net: nn.Module,
    rows: list[EncodedRow],
    tokens: int,
    config: TrainConfig,
    chosen: RuntimeChoices,
    resumed: bool,
    group: ProcessGroup,
) -> TrainingLoss:
    """Return the loss of a model that is whole in every process: chosen by rank 0, or the one of an unfinished run."""
    if resumed:
        return restore_loss(net, chosen.path, chosen.reason)
    own: list[TrainingLoss] = []

    def choose() -> list[str]:
        shards_four_bit = config.parallel == "fsdp_4bit" and group.size > 1
        # Not compiled in a group: each process would compile for itself, and a wrapper's hooks break the graph.
        whole_run = tokens if group.size == 1 else 0
        loss = choose_loss(net, rows, whole_run, "plain" if shards_four_bit else config.kernels)
        # The fused kernels read the packed weights with a state that sharded ones do not have.
        own.append(replace(loss, reason=_FOUR_BIT_PLAIN) if shards_four_bit else loss)
        return [own[0].path, own[0].reason]

    chosen.path, chosen.reason = group.first(choose)
    loss = own[0] if own else restore_loss(net, chosen.path, chosen.reason)
    return loss if group.size == 1 else replace(loss, compiling=_NOT_COMPILED)


def _sharded(
    step: Step, causal: PreTrainedModel, config: TrainConfig, group: ProcessGroup, replicas: int
) -> WrappedStep:
    """Return the step sharded; 4-bit weights stay whole unless ``parallel`` is fsdp_4bit."""
    four_bit = {p for p in causal.parameters() if type(p).__name__ == "Params4bit"}
    ignored = four_bit if config.parallel != "fsdp_4bit" else set()
    full = config.method == "full"
    device = default_device()
    return shard(step, causal, device, group.size, ignored, accumulates_shards=full, replicas=replicas)


@contextmanager
def _sharded_failure_as_problem(config: TrainConfig) -> Iterator[None]:
    """Raise CannotRun where a model cannot compute with sharded weights at all; it fails in every process alike."""
    try:
        yield
    except (RuntimeError, TypeError, AttributeError) as error:
        if process_group.is_lost_group(error) or is_out_of_memory(error):
            raise
        raise CannotRun(
            f"parallel {config.parallel}: the model does not compute with sharded weights ({first_error_line(error)})",
            WHOLE_COPIES,
        ) from error


def _require_equal_loss(value: float, expected: float, dtype: torch.dtype, config: TrainConfig) -> None:
    """Raise CannotRun when the sharded model computes another loss than the whole one."""
    if abs(value - expected) <= LOSS_TOLERANCE[dtype] * abs(expected):
        return
    raise CannotRun(
        f"sharded ({config.parallel}), the model's loss of {PROBE_ROWS} rows is {value:.6g}, whole it is {expected:.6g}",
        WHOLE_COPIES,
    )


def _sharded_path(
    step: Step,
    wrapped: WrappedStep,
    plain: TrainingLoss,
    rows: Sequence[EncodedRow],
    config: TrainConfig,
    group: ProcessGroup,
) -> tuple[str, str]:
    """Return the path of the loss of a model that is whole nowhere, and why not a faster one.

    The head's own loss is taken where loss and gradients equal those of the model's own logits, through the wrapper.
    """
    if config.kernels == "plain":
        return "plain", PLAIN_REQUESTED
    probe = _probe_rows(rows)
    fast = replace(plain, path="rows")
    results = []
    with torch.random.fork_rng(), evaluation_mode(plain.net), _sharded_adapters_not_zero(plain.net):
        for loss in (plain, fast):
            step.use(loss)
            plain.net.zero_grad()
            with torch.enable_grad():
                total = wrapped(probe)
                total.backward()
            gradients = [local_shard(p.grad) for p in plain.net.parameters() if p.grad is not None]
            results.append((float(total.detach()), gradients))
        plain.net.zero_grad()
    wrapped.reshard()
    (expected, reference), (value, gradients) = results
    dtype = plain.causal.dtype
    if abs(value - expected) > LOSS_TOLERANCE[dtype] * abs(expected):
        return "plain", f"rows gave {value:.4f} where the model's own logits give {expected:.4f}"
    difference = group.sum(
        sum(float((a.float() - b.float()).square().sum()) for a, b in zip(gradients, reference, strict=True))
    )
    size = group.sum(sum(float(b.float().square().sum()) for b in reference))
    error = (difference / max(size, 1e-30)) ** 0.5
    if error > GRADIENT_TOLERANCE[dtype]:
        return "plain", f"gradients are off by {error:.0%}"
    return "rows", "the base is whole on no device: the fast path needs a whole model to be compared with"


@contextmanager
def _sharded_adapters_not_zero(net: nn.Module) -> Iterator[None]:
    """Put small random numbers in place of adapters that are all zero, in place, as their shards are."""
    generator = torch.Generator().manual_seed(0)
    changed: list[nn.Parameter] = []
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if parameter.requires_grad and "lora_" in name and not whole_tensor(parameter.detach()).any():
                changed.append(parameter)
                copy_whole(parameter, ADAPTER_SCALE * torch.randn(parameter.shape, generator=generator))
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter in changed:
                parameter.zero_()


def _probe_rows(rows: Sequence[EncodedRow]) -> list[EncodedRow]:
    return sorted(rows, key=lambda row: len(row.ids))[:PROBE_ROWS]


def _has_experts(causal: PreTrainedModel) -> bool:
    """Return whether the model routes tokens to experts, some of which a pass may leave out."""
    text = causal.config.get_text_config()
    names = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    return any((getattr(text, name, None) or 0) > 1 for name in names)

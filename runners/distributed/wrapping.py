"""The loss of a step as a module, and torch's wrappers around it: DistributedDataParallel or fully_shard (FSDP2).

The wrappers work through hooks of the module they wrap: before its forward pass they gather weights, in its backward pass
they average gradients. This project's loss calls the layers below the head and reads the head's weight itself, so a
wrapper around the model would never be called, and gradients would silently not be averaged. Therefore the call of the
loss is the module (:class:`Step`), and validation goes through it too. Imports torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

from rag.errors import CannotRun
from runners.distributed.environment import WHOLE_COPIES
from runners.tokenization.chat_template import EncodedRow

WrapperKind = Literal["single", "ddp", "fsdp"]
"""How a step is carried out: in one process, with whole copies, or sharded."""


class Step(nn.Module):
    """The training loss of some rows as a module, the root that wrappers hook into."""

    def __init__(self, net: nn.Module, loss: Callable[[Sequence[EncodedRow]], Tensor]) -> None:
        """Take the model, whose parameters the wrappers manage, and the loss that computes with it."""
        super().__init__()
        self.net = net
        self._loss = loss

    def use(self, loss: Callable[[Sequence[EncodedRow]], Tensor]) -> None:
        """Compute another loss with the same model from now on."""
        self._loss = loss

    def forward(self, rows: Sequence[EncodedRow]) -> Tensor:
        """Return the sum of the target tokens' cross-entropies, a scalar in fp32."""
        return self._loss(rows)


@dataclass(frozen=True, slots=True)
class WrappedStep:
    """A step as the loop calls it, whatever wraps it."""

    module: nn.Module
    """:class:`Step`, or torch's wrapper around it."""
    kind: WrapperKind = "single"
    processes: int = 1
    """Both wrappers average gradients over so many processes, so a summed loss is multiplied by them."""
    accumulates_shards: bool = False
    """Whether gradients are reduced after every pass instead of the last: whole gradients of all weights are not held."""

    def __call__(self, rows: Sequence[EncodedRow]) -> Tensor:
        """Return the loss of some rows, with gradients where they are enabled."""
        total: Tensor = self.module(rows)
        return total

    def reshard(self) -> None:
        """Put the shards back in place as the model's parameters.

        The root stays gathered after a pass without a backward pass, and its whole parameters are freed later: nothing
        may hold them.
        """
        if isinstance(self.module, FSDPModule):
            self.module.reshard()

    @contextmanager
    def accumulating(self, last: bool) -> Iterator[None]:
        """Surround the forward and backward pass of one micro-batch; gradients are averaged in the last one of a step."""
        if isinstance(self.module, DistributedDataParallel) and not last:
            with self.module.no_sync():
                yield
            return
        if isinstance(self.module, FSDPModule):
            self.module.set_requires_gradient_sync(last or self.accumulates_shards)
            # Between nodes that hold all shards each (HSDP), gradients are summed once a step.
            self.module.set_requires_all_reduce(last)
            self.module.set_is_last_backward(last)
        yield


def replicate(step: Step, processes: int, unused_parameters: bool) -> WrappedStep:
    """Return the step with a whole copy of the model in each process (DistributedDataParallel).

    Args:
        step: The step; its model is on this process's device, with equal weights everywhere.
        processes: Number of processes.
        unused_parameters: Whether a pass may leave trained parameters out, as experts that no token is routed to.
    """
    # The buffers are constants of the architecture, the same in every process. Newer torch has another name for this.
    known = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    settings: dict[str, Any] = {name: False, "find_unused_parameters": unused_parameters}
    return WrappedStep(DistributedDataParallel(step, **settings), "ddp", processes)


Replicate = Callable[[Step, int, bool], WrappedStep]
"""What wraps a step with a whole copy in each process, as :func:`replicate`."""


def shard(
    step: Step,
    causal: PreTrainedModel,
    device: torch.device,
    processes: int,
    ignored: set[nn.Parameter] | None = None,
    accumulates_shards: bool = False,
    replicas: int = 1,
) -> WrappedStep:
    """Return the step with weights, gradients and optimiser state sharded over the processes (FSDP2, fully_shard).

    Each decoder layer is a unit of its own, which is gathered for its passes; what is outside the layers belongs to the
    root. Weights on a CPU or on torch's meta device are moved unit by unit.

    Args:
        step: The step; parameters are replaced by DTensors in place.
        causal: The causal model within the step.
        device: This process's device.
        processes: Number of processes.
        ignored: Parameters that stay whole, as 4-bit ones do.
        accumulates_shards: See :class:`WrappedStep`.
        replicas: Number of groups of neighbouring ranks that hold all shards each: weights are gathered within a group,
            and gradients averaged between the groups as well (hybrid sharding, HSDP).

    Raises CannotRun for a model whose parameters this version of torch cannot shard together.
    """
    names = ("replicate", "shard")
    mesh = (
        init_device_mesh(device.type, (processes,))
        if replicas == 1
        else init_device_mesh(device.type, (replicas, processes // replicas), mesh_dim_names=names)
    )
    settings: dict[str, Any] = {"mesh": mesh}
    if ignored:
        settings["ignored_params"] = ignored
    try:
        for layer in decoder_layers(causal):
            fully_shard(layer, **settings)
        fully_shard(step, **settings)
    except (AssertionError, NotImplementedError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise CannotRun(
            f"torch {torch.__version__} cannot shard this model: {first}",
            f"{WHOLE_COPIES}; or a newer torch (2.13 shards 16-bit weights with fp32 adapters)",
        ) from error
    return WrappedStep(step, "fsdp", processes, accumulates_shards)


def decoder_layers(causal: PreTrainedModel) -> list[nn.Module]:
    """Return the decoder layers of a model, the units of sharding: the modules that transformers never splits.

    Raises CannotRun where transformers names none.
    """
    names = set(causal._no_split_modules or ())
    layers: list[nn.Module] = []
    inside: set[int] = set()
    for module in causal.modules():
        # fully_shard changes the class, and its name, of what it has sharded already.
        if type(module).__name__.removeprefix("FSDP") in names and id(module) not in inside:
            layers.append(module)
            inside.update(id(part) for part in module.modules())
    if not layers:
        raise CannotRun(
            f"transformers does not name the layers of the family {causal.config.model_type}, by which a model is sharded",
            WHOLE_COPIES,
        )
    return layers


def whole_tensor(tensor: Tensor) -> Tensor:
    """Return a tensor with all its shards; every process has to call it. One that is not sharded is returned as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local_shard(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that this process holds; all of one that is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def copy_whole(target: Tensor, source: Tensor) -> None:
    """Copy a whole tensor, the same in every process, into one that may be sharded."""
    if not isinstance(target, DTensor):
        target.copy_(source)
        return
    from torch.distributed.tensor import distribute_tensor

    whole = source.to(device=target.device, dtype=target.dtype)
    target.copy_(distribute_tensor(whole, target.device_mesh, target.placements, src_data_rank=None))

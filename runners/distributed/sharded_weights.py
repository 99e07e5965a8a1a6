"""Load a model so that each process reads only its own shards, for models that fit no single host.

:func:`load_skeleton` builds the model without values, which costs no memory; adapters are attached to it and the layers
are sharded, then :func:`read_shards` reads each process's part from the safetensors files, by torch.distributed's own
reader of that format. Only models whose files hold exactly the parameters of the model, under the same names, can be
read like this; :func:`sharded_loading_refusal` says why another one cannot. Imports torch.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from accelerate import init_empty_weights
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from rag.errors import BadInput
from runners.distributed.environment import WHOLE_COPIES
from runners.models.fingerprint import read_json, weight_files

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A model without values, and where each of its parameters is to be read from."""

    causal: PreTrainedModel
    places: dict[str, tuple[nn.Module, str]]
    """Name in the safetensors files -> module that holds the parameter, and its name there. Adapters wrap modules and
    so change the parameter's path, but not the module."""


def load_skeleton(folder: Path, dtype: torch.dtype) -> Skeleton:
    """Return the model of a folder with parameters of the right shape and dtype, but without memory for values.

    The parameters are views of one element each: adapters that are attached draw the same initial values on the CPU as
    on a loaded model. :func:`release_values` has to follow before the layers are sharded.
    """
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    # Buffers, as rotary frequencies, are computed by the constructor and are in no file.
    with init_empty_weights(include_buffers=False):
        causal: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    causal.tie_weights()
    places = {}
    for name, parameter in causal.named_parameters():
        module, own = _owner(causal, name)
        places[name] = (module, own)
        stand_in = torch.zeros(1, dtype=parameter.dtype).expand(parameter.shape)
        module.register_parameter(own, nn.Parameter(stand_in, requires_grad=False))
    causal.tie_weights()
    return Skeleton(causal.eval(), places)


def release_values(skeleton: Skeleton) -> None:
    """Put the skeleton's parameters on torch's meta device, from which layers can be sharded."""
    for module, own in skeleton.places.values():
        parameter = module.get_parameter(own)
        empty = torch.empty(parameter.shape, dtype=parameter.dtype, device="meta")
        module.register_parameter(own, nn.Parameter(empty, requires_grad=parameter.requires_grad))
    skeleton.causal.tie_weights()


def read_shards(skeleton: Skeleton, folder: Path, device: torch.device) -> None:
    """Read this process's shards of every parameter of a skeleton whose layers were sharded; each has to call it."""
    wanted = {}
    for name, (module, own) in skeleton.places.items():
        parameter = module.get_parameter(own)
        values = torch.empty_like(parameter, device=device)
        module.register_parameter(own, nn.Parameter(values, requires_grad=parameter.requires_grad))
        wanted[name] = values.detach()
    dcp.load(wanted, storage_reader=dcp.HuggingFaceStorageReader(str(folder)))
    missing = [name for name, values in wanted.items() if not isinstance(values, DTensor)]
    if missing:
        raise BadInput(f"{missing[0]} was not sharded", WHOLE_COPIES)


def sharded_loading_refusal(folder: Path, dtype: torch.dtype) -> str:
    """Return why a model cannot be read shard by shard, "" when it can.

    Args:
        folder: The model's folder.
        dtype: The dtype that it would be computed in.
    """
    settings = read_json(folder / "config.json")
    if "quantization_config" in settings:
        return "its weights are quantised"
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        causal = AutoModelForCausalLM.from_config(config, dtype=dtype)
    causal.tie_weights()
    if causal._keep_in_fp32_modules or causal._keep_in_fp32_modules_strict:
        return "transformers keeps some of its weights in fp32"
    in_files = dict(_shapes(folder))
    for name, parameter in causal.named_parameters():
        if name not in in_files:
            return f"its files name the weights otherwise than transformers does ({name} is not in them)"
        if in_files[name] != tuple(parameter.shape):
            return (
                f"{name} has the shape {in_files[name]} in the files, {tuple(parameter.shape)} in the model"
            )
    return ""


def weights_gib(folder: Path, dtype: torch.dtype) -> float:
    """Return the GiB of a model's weights in a dtype, by the shapes in its safetensors files."""
    return sum(prod(shape) for _, shape in _shapes(folder)) * dtype.itemsize / GIB


def _shapes(folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield name and shape of every tensor in a folder's safetensors files, from their headers alone."""
    for file in weight_files(folder):
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
        for name, tensor in header.items():
            if name != "__metadata__":
                yield name, tuple(tensor["shape"])


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Return the module that holds a parameter, and the parameter's name in it."""
    path, _, own = name.rpartition(".")
    return model.get_submodule(path), own

"""Sharded tensors in files: each process writes and reads its own part, in another number of processes too.

torch.distributed.checkpoint (DCP) plans who writes and reads what. It is used with its safetensors format, not with its
own, whose metadata is a pickle. Imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

SHARDS_FOLDER = "shards"
"""Folder of a checkpoint with the safetensors files of all processes."""


def write_shards(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write named tensors, this process's shards of those that are sharded; every process of the group has to call it."""
    writer = HuggingFaceStorageWriter(str(folder / SHARDS_FOLDER), save_distributed=True)
    dcp.save(dict(tensors), storage_writer=writer)


def read_into(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Read named tensors in place; sharded ones get this process's part. Without a group, whole tensors are read."""
    reader = HuggingFaceStorageReader(str(folder / SHARDS_FOLDER))
    dcp.load(dict(tensors), storage_reader=reader, no_dist=not dist.is_initialized())


def shard_entries(folder: Path) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Return whole shape and dtype of every tensor in a folder of shards, by name."""
    metadata = HuggingFaceStorageReader(str(folder / SHARDS_FOLDER)).read_metadata()
    return {
        name: (tuple(entry.size), entry.properties.dtype)
        for name, entry in metadata.state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata)
    }

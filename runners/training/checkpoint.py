"""Checkpoints that resume exactly: weights, optimiser state, random state and progress, without pickle.

A work folder holds ``choices.json`` (what was decided when the run began, :mod:`runners.training.runtime`), the newest
KEPT_CHECKPOINTS checkpoints ``step-000012`` and the best weights ``best-000010`` that they refer to. Each folder is
written under a hidden name, its manifest last, fsynced and renamed: it is complete or does not exist. The random state
is that of every generator a run may draw from (torch on every device, Python, numpy), in a group that of every process.

One process and whole copies (DDP) write one file of weights and one of state, from rank 0. Sharded ones (FSDP2) write a
file of shards from each process (:mod:`runners.distributed.sharded_files`). Both can be read in any number of processes.
Imports torch.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.checkpoint import CheckpointException
from torch.distributed.tensor import DTensor

from rag.errors import BadInput, CannotRun
from rag.files import check_manifest, disk_full_as_problem, publish_folder, write_json, write_manifest
from runners.distributed.process_group import ProcessGroup, is_lost_group
from runners.distributed.sharded_files import SHARDS_FOLDER, read_into, shard_entries, write_shards
from runners.training.optimizer import MasterOptimizer

KIND = "checkpoint"
"""Manifest kind of a checkpoint folder."""
BEST = "best"
"""Manifest kind of a folder of best weights."""
KEPT_CHECKPOINTS = 2
"""The newest, and the one before it in case the newest is damaged later."""
WEIGHTS = "weights.safetensors"
STATE = "optimizer.safetensors"
RANDOM = "random.safetensors"
PROGRESS = "progress.json"
_WEIGHT = "weight"
"""What the names of weights begin with beside those of the state, in a folder of shards."""


@dataclass(slots=True)
class TrainingProgress:
    """How far a run is; with the seed it determines what comes next, because all steps are planned from the seed."""

    identity: str
    """Hash of settings, base and data: another run's checkpoint is never continued."""
    step: int = 0
    """Optimiser steps done: the position in the data."""
    losses: list[float] = field(default_factory=list)
    """Mean loss per target token of each step."""
    norms: list[float] = field(default_factory=list)
    """Gradient norm before clipping of each step."""
    tokens: int = 0
    """Tokens trained on so far, without padding."""
    seconds: float = 0.0
    """Time of all steps so far."""
    valid: list[float] = field(default_factory=list)
    """Validation loss each time it was measured."""
    best: float | None = None
    """Lowest validation loss; None before the first validation."""
    best_step: int | None = None
    stale: int = 0
    """Validations since the best one."""
    stopped: bool = False
    """Whether the run ended early because the validation loss no longer fell."""
    skipped: list[int] = field(default_factory=list)
    """Steps that changed no weight because a gradient overflowed float16, counted from 1."""
    scaler: dict[str, Any] = field(default_factory=dict)
    """State of the loss scaler (torch.amp.GradScaler) of a run in float16; {} in another dtype."""


def save_checkpoint(
    work: Path,
    progress: TrainingProgress,
    optimizer: MasterOptimizer,
    random: dict[str, Tensor],
    group: ProcessGroup = ProcessGroup(),
) -> Path:
    """Write a checkpoint of the current step, remove older ones than KEPT_CHECKPOINTS, and return its folder.

    Every process of the group has to call it; ``random`` is its own random state. Raises CannotRun, naming the checkpoint
    that remains, when the disk is full.
    """
    final = work / f"step-{progress.step:06d}"
    if group.first(final.exists):
        return final
    states = group.gather(random)

    def fill(folder: Path) -> None:
        if not optimizer.sharded:
            save_file(optimizer.weights(), folder / WEIGHTS)
            if state := optimizer.state():
                save_file(state, folder / STATE)
        save_file(_joined_random_states(states), folder / RANDOM)
        write_json(folder / PROGRESS, asdict(progress))

    shards = {}
    if optimizer.sharded:
        shards = {f"{_WEIGHT}/{name}": value for name, value in optimizer.weights().items()}
        shards |= optimizer.state()
    _write(final, KIND, fill, shards, group)
    group.first(lambda: _rotate(work, progress.best_step))
    return final


def save_best_weights(
    work: Path, step: int, optimizer: MasterOptimizer, group: ProcessGroup = ProcessGroup()
) -> None:
    """Save the best weights so far, apart from the checkpoints that refer to them by their step.

    Every process of the group has to call it.
    """
    final = work / f"best-{step:06d}"

    def remove_earlier() -> None:
        if final.exists():  # written before a resume, from the same weights
            _remove(final)

    group.first(remove_earlier)
    weights = optimizer.weights()
    if optimizer.sharded:
        shards = {f"{_WEIGHT}/{name}": value for name, value in weights.items()}
        _write(final, BEST, lambda folder: None, shards, group)
    else:
        _write(final, BEST, lambda folder: save_file(weights, folder / WEIGHTS), {}, group)
    group.first(lambda: _rotate(work, step))


def restore_best_weights(work: Path, step: int, optimizer: MasterOptimizer) -> None:
    """Put the best weights of a step in place; BadInput when they are damaged."""
    folder = work / f"best-{step:06d}"
    check_manifest(folder, BEST)
    optimizer.set_weights(_read_tensors(folder, optimizer)[0])


def newest_checkpoint(work: Path) -> tuple[Path | None, list[str]]:
    """Return the newest undamaged checkpoint, None without any, and what is wrong with the newer ones."""
    damage = []
    for folder in reversed(_numbered_folders(work, "step")):
        try:
            check_manifest(folder, KIND)
            if (step := read_progress(folder).best_step) is not None:
                check_manifest(work / f"best-{step:06d}", BEST)
        except BadInput as error:
            damage.append(error.message)
            continue
        return folder, damage
    return None, damage


def read_progress(folder: Path) -> TrainingProgress:
    """Return a checkpoint's progress without loading its weights."""
    return TrainingProgress(**json.loads((folder / PROGRESS).read_text(encoding="utf-8")))


def restore_checkpoint(folder: Path, optimizer: MasterOptimizer, rank: int = 0) -> dict[str, Tensor]:
    """Restore weights and optimiser state, and return the random state of a process, to be restored at the end.

    A process that the run did not have when the checkpoint was written gets {}: its generators stay as they were seeded.
    """
    weights, state = _read_tensors(folder, optimizer)
    optimizer.set_weights(weights)
    if state:
        optimizer.set_state(state)
    return _random_state_of(load_file(folder / RANDOM), rank)


def _read_tensors(folder: Path, optimizer: MasterOptimizer) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the weights and the state of a folder: from shards in this optimiser's layout, else whole."""
    if not (folder / SHARDS_FOLDER).is_dir():
        state = load_file(folder / STATE) if (folder / STATE).is_file() else {}
        return load_file(folder / WEIGHTS), state
    tensors = {}
    for name, (shape, dtype) in shard_entries(folder).items():
        master = optimizer.masters[name.split("/", 1)[1]]
        if isinstance(master, DTensor) and shape == tuple(master.shape):
            tensors[name] = torch.zeros_like(master, dtype=dtype, requires_grad=False)
        else:
            tensors[name] = torch.zeros(shape, dtype=dtype)
    read_into(folder, tensors)
    prefix = f"{_WEIGHT}/"
    weights = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    return weights, {name: value for name, value in tensors.items() if not name.startswith(prefix)}


def _joined_random_states(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the random states of all processes under one set of names; those of rank 0 as one process names them."""
    joined = dict(states[0])
    for rank, state in enumerate(states[1:], 1):
        joined |= {f"rank{rank}/{name}": value for name, value in state.items()}
    return joined


def _random_state_of(joined: dict[str, Tensor], rank: int) -> dict[str, Tensor]:
    """Return the part of :func:`_joined_random_states` that is a process's own, {} when it has none."""
    if rank == 0:
        return {name: value for name, value in joined.items() if "/" not in name}
    prefix = f"rank{rank}/"
    return {name.removeprefix(prefix): value for name, value in joined.items() if name.startswith(prefix)}


def remove_checkpoints_after(work: Path, after: Path | None = None) -> None:
    """Remove what a killed writer left, and every checkpoint newer than ``after`` (all of them for None)."""
    for leftover in (*work.glob(".step-*"), *work.glob(".best-*")):
        shutil.rmtree(leftover)
    for folder in _numbered_folders(work, "step"):
        if after is None or _step_of(folder) > _step_of(after):
            _remove(folder)
    if after is None:
        for folder in _numbered_folders(work, "best"):
            _remove(folder)


def seed_everything(seed: int) -> None:
    """Seed torch on every device, Python and numpy."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # numpy takes 32 bits


def random_state() -> dict[str, Tensor]:
    """Return the states of all generators as tensors, so that they can be stored without pickle.

    Python's and numpy's are Mersenne Twisters: 624 words, the position in them, and the second of two Gaussian numbers
    that are drawn together.
    """
    _, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor(words),
        "python_gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
        "numpy": torch.from_numpy(np.asarray(keys, dtype=np.int64)),
        "numpy_place": torch.tensor([position, has_gauss]),
        "numpy_gauss": torch.tensor([cached], dtype=torch.float64),
    }
    for device in range(torch.cuda.device_count()):
        state[f"cuda{device}"] = torch.cuda.get_rng_state(device)
    for device in range(torch.xpu.device_count()):
        state[f"xpu{device}"] = torch.xpu.get_rng_state(device)
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def restore_random_state(state: dict[str, Tensor]) -> None:
    """Restore what :func:`random_state` returned, on the devices that exist here."""
    torch.set_rng_state(state["torch"])
    gauss = state["python_gauss"].tolist()
    random.setstate((3, tuple(state["python"].tolist()), gauss[0] if gauss else None))
    position, has_gauss = state["numpy_place"].tolist()
    keys = state["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, position, has_gauss, state["numpy_gauss"].item()))
    for device in range(torch.cuda.device_count()):
        if (device_state := state.get(f"cuda{device}")) is not None:
            torch.cuda.set_rng_state(device_state, device)
    for device in range(torch.xpu.device_count()):
        if (device_state := state.get(f"xpu{device}")) is not None:
            torch.xpu.set_rng_state(device_state, device)
    if torch.backends.mps.is_available() and "mps" in state:
        torch.mps.set_rng_state(state["mps"])


def _write(
    final: Path,
    kind: str,
    fill: Callable[[Path], None],
    shards: dict[str, Tensor] | None = None,
    group: ProcessGroup = ProcessGroup(),
) -> None:
    """Write a folder with ``fill`` under a hidden name, then rename it; CannotRun when the disk is full.

    Rank 0 alone calls ``fill``; every process writes its part of ``shards`` before that. The manifest comes last.
    """
    tmp = final.parent / f".{final.name}.tmp"

    def begin() -> None:
        shutil.rmtree(tmp, ignore_errors=True)
        with disk_full_as_problem(final.parent):
            tmp.mkdir(parents=True)

    def finish() -> None:
        with disk_full_as_problem(final.parent):
            fill(tmp)
            write_manifest(tmp, kind)
            publish_folder(tmp, final)

    try:
        group.first(begin)
        if shards:
            _write_shards(tmp, shards)
        group.first(finish)
    except CannotRun as error:
        if group.is_first:
            shutil.rmtree(tmp, ignore_errors=True)
        older = _numbered_folders(final.parent, "step")
        remaining = f"; {older[-1]} is kept" if older else ""
        hint = "free some space and continue with --resume" if "no space" in error.message else error.hint
        raise CannotRun(f"{error.message}{remaining}", hint) from error


def _write_shards(folder: Path, shards: dict[str, Tensor]) -> None:
    """Write this process's shards; every process raises CannotRun when one of them could not."""
    try:
        write_shards(folder, shards)
    except CheckpointException as error:
        if is_lost_group(error):
            raise
        rank, failure = next(iter(error.failures.items()))
        first = (str(failure[0]).strip().splitlines() or [type(failure[0]).__name__])[-1]
        raise CannotRun(
            f"process {rank} could not write its part of the checkpoint: {first}",
            "free some space and continue with --resume",
        ) from error


def _rotate(work: Path, best: int | None) -> None:
    """Remove all but the newest checkpoints, and best weights that neither these nor the run refers to."""
    steps = _numbered_folders(work, "step")
    for old in steps[:-KEPT_CHECKPOINTS]:
        _remove(old)
    try:
        needed = {best, *(read_progress(folder).best_step for folder in steps[-KEPT_CHECKPOINTS:])}
    except (
        OSError,
        ValueError,
        TypeError,
    ):  # the older one is damaged: which best weights it needs is unknown
        return
    for folder in _numbered_folders(work, "best"):
        if _step_of(folder) not in needed:
            _remove(folder)


def _remove(folder: Path) -> None:
    """Rename a folder, then delete it: a kill in between leaves nothing that looks like a checkpoint."""
    hidden = folder.parent / f".{folder.name}.old"
    shutil.rmtree(hidden, ignore_errors=True)
    folder.rename(hidden)
    shutil.rmtree(hidden)


def _numbered_folders(work: Path, prefix: str) -> list[Path]:
    """Return the folders ``PREFIX-NUMBER``, in the order of their numbers."""
    return sorted(work.glob(f"{prefix}-[0-9]*"), key=_step_of)


def _step_of(folder: Path) -> int:
    """Return the step in a folder's name."""
    return int(folder.name.partition("-")[2])

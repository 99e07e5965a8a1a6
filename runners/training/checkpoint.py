"""Checkpoints that resume exactly: weights, optimiser, random state, progress; no pickle. Heavy.

A work folder holds ``choices.json`` (what was decided when the run began, :mod:`runners.training.runtime`), the newest
KEEP checkpoints ``step-000012`` and the best weights ``best-000010`` that they refer to. Each folder is written
under a hidden name, its manifest last, fsynced and renamed: it is whole or not there.

Every random number generator a run may draw from: seeded, taken out and put back. Heavy: imports torch.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rag.errors import BadInput, CannotRun
from rag.files import check_manifest, disk_full_as_problem, publish_folder, write_json, write_manifest
from runners.training.optimizer import MasterOptimizer

KIND, BEST = "checkpoint", "best"
KEPT_CHECKPOINTS = 2
"""The newest, and the one before it in case the newest is damaged later."""
WEIGHTS, STATE, RANDOM, PROGRESS = (
    "weights.safetensors",
    "optimizer.safetensors",
    "random.safetensors",
    "progress.json",
)


@dataclass(slots=True)
class TrainingProgress:
    """How far a run is; with the seed it says what comes next, because all steps are planned from the seed."""

    identity: str
    """Hash of settings, base and data: another run's checkpoint is never continued."""
    step: int = 0
    """Optimiser steps done: the place in the data."""
    losses: list[float] = field(default_factory=list)
    """Mean loss per learnt token of each step."""
    norms: list[float] = field(default_factory=list)
    """Gradient norm before clipping of each step."""
    tokens: int = 0
    seconds: float = 0.0
    valid: list[float] = field(default_factory=list)
    """Validation loss each time it was measured."""
    best: float | None = None
    best_step: int | None = None
    stale: int = 0
    """Measurements since the best one."""
    stopped: bool = False


def save_checkpoint(
    work: Path, progress: TrainingProgress, optimizer: MasterOptimizer, random: dict[str, Tensor]
) -> Path:
    """Write a checkpoint whole, under a name that tells its step, then remove what is too old.

    Raises CannotRun, naming the checkpoint that is kept, when the disk is full.
    """

    def fill(folder: Path) -> None:
        save_file(optimizer.weights(), folder / WEIGHTS)
        if state := optimizer.state():
            save_file(state, folder / STATE)
        save_file(random, folder / RANDOM)
        write_json(folder / PROGRESS, asdict(progress))

    final = work / f"step-{progress.step:06d}"
    if not final.exists():
        _write(final, KIND, fill)
        _rotate(work, progress.best_step)
    return final


def save_best_weights(work: Path, step: int, weights: dict[str, Tensor]) -> None:
    """Keep the best weights so far, apart from the checkpoints that refer to them."""
    final = work / f"best-{step:06d}"
    if final.exists():  # made before a resume, from the same weights
        _remove(final)
    _write(final, BEST, lambda folder: save_file(weights, folder / WEIGHTS))
    _rotate(work, step)


def load_best_weights(work: Path, step: int) -> dict[str, Tensor]:
    """Return the best weights of a step; BadInput when they are damaged."""
    folder = work / f"best-{step:06d}"
    check_manifest(folder, BEST)
    return load_file(folder / WEIGHTS)


def newest_checkpoint(work: Path) -> tuple[Path | None, list[str]]:
    """Return the newest whole checkpoint, None without any, and what is wrong with those passed over."""
    damage = []
    for folder in reversed(_named(work, "step")):
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


def restore_checkpoint(folder: Path, optimizer: MasterOptimizer) -> dict[str, Tensor]:
    """Put weights and optimiser state back; return the random state, to be restored when all is ready."""
    optimizer.set_weights(load_file(folder / WEIGHTS))
    if (folder / STATE).is_file():
        optimizer.set_state(load_file(folder / STATE))
    return load_file(folder / RANDOM)


def remove_checkpoints_after(work: Path, after: Path | None = None) -> None:
    """Remove what a killed writer left, and every checkpoint newer than ``after`` (all of them for None)."""
    for left in (*work.glob(".step-*"), *work.glob(".best-*")):
        shutil.rmtree(left)
    for folder in _named(work, "step"):
        if after is None or _number(folder) > _number(after):
            _remove(folder)
    if after is None:
        for folder in _named(work, "best"):
            _remove(folder)


def _write(final: Path, kind: str, fill: Callable[[Path], None]) -> None:
    tmp = final.parent / f".{final.name}.tmp"
    shutil.rmtree(tmp, ignore_errors=True)
    try:
        with disk_full_as_problem(final.parent):
            tmp.mkdir(parents=True)
            fill(tmp)
            write_manifest(tmp, kind)
            publish_folder(tmp, final)
    except CannotRun as error:
        shutil.rmtree(tmp, ignore_errors=True)
        older = _named(final.parent, "step")
        kept = f"; {older[-1]} is kept" if older else ""
        hint = "free some space and go on with --resume" if "no space" in error.message else error.hint
        raise CannotRun(f"{error.message}{kept}", hint) from error


def _rotate(work: Path, best: int | None) -> None:
    """Remove all but the newest checkpoints, and best weights that neither these nor the run refers to."""
    steps = _named(work, "step")
    for old in steps[:-KEPT_CHECKPOINTS]:
        _remove(old)
    try:
        needed = {best, *(read_progress(folder).best_step for folder in steps[-KEPT_CHECKPOINTS:])}
    except (OSError, ValueError, TypeError):  # the older one is damaged; what it refers to stays with it
        return
    for folder in _named(work, "best"):
        if _number(folder) not in needed:
            _remove(folder)


def _remove(folder: Path) -> None:
    """Take a folder's name away at once; a kill while its files go leaves nothing that looks like a checkpoint."""
    going = folder.parent / f".{folder.name}.old"
    shutil.rmtree(going, ignore_errors=True)
    folder.rename(going)
    shutil.rmtree(going)


def _named(work: Path, kind: str) -> list[Path]:
    return sorted(work.glob(f"{kind}-[0-9]*"), key=_number)


def _number(folder: Path) -> int:
    return int(folder.name.partition("-")[2])


def seed_everything(number: int) -> None:
    """Seed torch on every device, Python and numpy."""
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed(number % 2**32)


def random_state() -> dict[str, Tensor]:
    """Return the states as tensors, so that they can be stored without pickle."""
    _, words, gauss = random.getstate()
    _, keys, place, has_gauss, cached = np.random.get_state(legacy=True)
    found = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor(words),
        "python_gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
        "numpy": torch.from_numpy(np.asarray(keys, dtype=np.int64)),
        "numpy_place": torch.tensor([place, has_gauss]),
        "numpy_gauss": torch.tensor([cached], dtype=torch.float64),
    }
    for number in range(torch.cuda.device_count()):
        found[f"cuda{number}"] = torch.cuda.get_rng_state(number)
    return found


def restore_random_state(state: dict[str, Tensor]) -> None:
    """Put back what :func:`snapshot` returned, on the devices that are here."""
    torch.set_rng_state(state["torch"])
    gauss = state["python_gauss"].tolist()
    random.setstate((3, tuple(state["python"].tolist()), gauss[0] if gauss else None))
    place, has_gauss = state["numpy_place"].tolist()
    keys = state["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, place, has_gauss, state["numpy_gauss"].item()))
    for number in range(torch.cuda.device_count()):
        if (own := state.get(f"cuda{number}")) is not None:
            torch.cuda.set_rng_state(own, number)

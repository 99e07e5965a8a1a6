"""Checkpoints that resume exactly: weights, optimiser, random state, progress; no pickle. Heavy."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rag.durable import check_manifest, publish_folder, write_json, write_manifest
from rag.errors import BadInput
from runners.optimizer import Optimizer

KIND = "checkpoint"


@dataclass(slots=True)
class Progress:
    """How far a run is; everything the loop needs to go on as if it had never stopped."""

    identity: str
    """Hash of settings, base and data: another run's checkpoint is never continued."""
    step: int = 0
    losses: list[float] = field(default_factory=list)
    """Mean loss per learnt token of each step."""
    tokens: int = 0
    seconds: float = 0.0
    valid: list[float] = field(default_factory=list)
    """Validation loss after each pass."""
    best: float | None = None
    stale: int = 0
    """Passes since the best one."""
    stopped: bool = False


def save(work: Path, progress: Progress, optimizer: Optimizer, best: dict[str, Tensor] | None) -> Path:
    """Write a checkpoint folder whole, under a name that tells its step, then remove the older ones."""
    final = work / f"step-{progress.step:06d}"
    if final.exists():
        return final
    tmp = work / f".{final.name}.tmp"
    shutil.rmtree(tmp, ignore_errors=True)
    tmp.mkdir(parents=True)
    save_file(optimizer.weights(), tmp / "weights.safetensors")
    if state := optimizer.state():
        save_file(state, tmp / "optimizer.safetensors")
    if best is not None:
        save_file(best, tmp / "best.safetensors")
    save_file(_random_state(), tmp / "random.safetensors")
    write_json(tmp / "progress.json", asdict(progress))
    write_manifest(tmp, KIND)
    publish_folder(tmp, final)
    for older in _folders(work):
        if older != final:
            shutil.rmtree(older)
    return final


def latest(work: Path) -> Path | None:
    """Return the newest whole checkpoint; a damaged one is passed over for the one before it."""
    for folder in reversed(_folders(work)):
        try:
            check_manifest(folder, KIND)
        except BadInput:
            continue
        return folder
    return None


def peek(folder: Path) -> Progress:
    """Return a checkpoint's progress without loading its weights."""
    return Progress(**json.loads((folder / "progress.json").read_text(encoding="utf-8")))


def restore(folder: Path, optimizer: Optimizer) -> dict[str, Tensor] | None:
    """Put weights, optimiser and random state back, and return the best weights so far, None without any."""
    optimizer.set_weights(load_file(folder / "weights.safetensors"))
    if (folder / "optimizer.safetensors").is_file():
        optimizer.set_state(load_file(folder / "optimizer.safetensors"))
    _set_random_state(load_file(folder / "random.safetensors"))
    best = folder / "best.safetensors"
    return load_file(best) if best.is_file() else None


def _folders(work: Path) -> list[Path]:
    return sorted(work.glob("step-*"))


def _random_state() -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _set_random_state(state: dict[str, Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])

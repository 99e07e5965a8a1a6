"""Checkpoints: whole or absent, damage is seen, state comes back bit for bit."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from runners.training import checkpoint
from runners.training.checkpoint import TrainingProgress
from runners.training.optimizer import MasterOptimizer


def make(dtype: torch.dtype = torch.float32) -> tuple[nn.Linear, MasterOptimizer]:
    """Return a small layer and its optimiser after two steps."""
    torch.manual_seed(0)
    layer = nn.Linear(4, 3).to(dtype)
    optimizer = MasterOptimizer(dict(layer.named_parameters()), 0.1, 0.0, 1.0)
    for _ in range(2):
        advance(layer, optimizer)
    return layer, optimizer


def progress(step: int, best: int | None = None) -> TrainingProgress:
    """Return the progress of a run that has come so far."""
    return TrainingProgress("id", step=step, losses=[1.0] * step, norms=[0.5] * step, best_step=best)


def names(folder: Path) -> list[str]:
    """Return what lies in a folder."""
    return sorted(p.name for p in folder.iterdir())


def advance(layer: nn.Linear, optimizer: MasterOptimizer) -> None:
    """Take one step on random data."""
    layer(torch.randn(5, 4, dtype=layer.weight.dtype)).square().sum().backward()
    optimizer.step(1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_going_on_from_a_checkpoint_is_exact(tmp_path: Path, dtype: torch.dtype) -> None:
    layer, optimizer = make(dtype)
    checkpoint.save_checkpoint(tmp_path, progress(2), optimizer, checkpoint.random_state())
    drawn = (torch.rand(3), random.random(), random.gauss(0, 1), np.random.random(), np.random.normal())
    for _ in range(3):
        advance(layer, optimizer)
    wanted = optimizer.weights()
    again, fresh = make(dtype)
    checkpoint.seed_everything(99)
    found, _ = checkpoint.newest_checkpoint(tmp_path)
    assert found is not None
    checkpoint.restore_random_state(checkpoint.restore_checkpoint(found, fresh))
    assert checkpoint.read_progress(found) == progress(2)
    assert torch.equal(torch.rand(3), drawn[0])
    assert (random.random(), random.gauss(0, 1), np.random.random(), np.random.normal()) == drawn[1:]
    for _ in range(3):
        advance(again, fresh)
    assert all(torch.equal(fresh.weights()[k], wanted[k]) for k in wanted)
    assert all(torch.equal(p, wanted[n].to(dtype)) for n, p in again.named_parameters())


def test_half_a_pair_of_normal_numbers_is_kept_too() -> None:
    checkpoint.seed_everything(5)
    random.gauss(0, 1)
    np.random.normal()
    state = checkpoint.random_state()
    wanted = random.gauss(0, 1), np.random.normal()
    checkpoint.restore_random_state(state)
    assert (random.gauss(0, 1), np.random.normal()) == wanted


def test_the_newest_two_are_kept_and_a_damaged_one_is_passed_over(tmp_path: Path) -> None:
    _, optimizer = make()
    for step in (2, 4, 6):
        checkpoint.save_checkpoint(tmp_path, progress(step), optimizer, checkpoint.random_state())
    assert names(tmp_path) == ["step-000004", "step-000006"]
    (tmp_path / "step-000009").mkdir()
    found, damage = checkpoint.newest_checkpoint(tmp_path)
    assert found is not None
    assert found.name == "step-000006"
    assert "step-000009" in damage[0]
    with (found / "weights.safetensors").open("ab") as stream:
        stream.write(b"x")
    found, _ = checkpoint.newest_checkpoint(tmp_path)
    assert found is not None
    assert found.name == "step-000004"
    checkpoint.remove_checkpoints_after(tmp_path, found)
    assert names(tmp_path) == ["step-000004"]


def test_the_best_weights_outlive_every_checkpoint_but_not_their_use(tmp_path: Path) -> None:
    _, optimizer = make()
    weights = optimizer.weights()
    checkpoint.save_best_weights(tmp_path, 1, weights)
    for step in (2, 4, 6):
        checkpoint.save_checkpoint(tmp_path, progress(step, best=1), optimizer, checkpoint.random_state())
    assert names(tmp_path) == ["best-000001", "step-000004", "step-000006"]
    assert all(torch.equal(v, weights[k]) for k, v in checkpoint.load_best_weights(tmp_path, 1).items())
    checkpoint.save_best_weights(tmp_path, 7, weights)
    checkpoint.save_checkpoint(tmp_path, progress(8, best=7), optimizer, checkpoint.random_state())
    assert names(tmp_path) == ["best-000001", "best-000007", "step-000006", "step-000008"]
    (tmp_path / "best-000007" / "weights.safetensors").write_bytes(b"")
    found, damage = checkpoint.newest_checkpoint(tmp_path)
    assert found is not None
    assert found.name == "step-000006"
    assert "best-000007" in damage[0]


def test_nothing_in_a_checkpoint_is_pickle(tmp_path: Path) -> None:
    _, optimizer = make()
    folder = checkpoint.save_checkpoint(tmp_path, progress(2), optimizer, checkpoint.random_state())
    assert {p.suffix for p in folder.iterdir()} == {".safetensors", ".json"}


def test_every_byte_of_a_checkpoint_is_watched(tmp_path: Path) -> None:
    _, optimizer = make()
    folder = checkpoint.save_checkpoint(tmp_path, progress(2), optimizer, checkpoint.random_state())
    for file in sorted(folder.iterdir()):
        whole = file.read_bytes()
        for harm in (whole[:-2], whole[: len(whole) // 2] + b"?" + whole[len(whole) // 2 + 1 :], b""):
            file.write_bytes(harm)
            assert checkpoint.newest_checkpoint(tmp_path)[0] is None, file.name
        file.write_bytes(whole)
    assert checkpoint.newest_checkpoint(tmp_path)[0] == folder


def test_small_steps_are_not_lost_to_bf16() -> None:
    """A step below bf16's resolution moves the fp32 master, and in the end the parameter."""
    layer = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    nn.init.ones_(layer.weight)
    optimizer = MasterOptimizer(dict(layer.named_parameters()), 1e-4, 0.0, 1.0)
    for _ in range(60):
        layer.weight.grad = torch.ones_like(layer.weight)
        optimizer.step(1.0)
    assert float(optimizer.masters["weight"].detach()) == pytest.approx(1 - 60e-4, abs=1e-5)
    assert float(layer.weight.detach()) < 1.0

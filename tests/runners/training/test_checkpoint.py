"""Checkpoints: complete or absent, damage is detected, state is restored bit for bit."""

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
    """Return the progress of a run after ``step`` steps."""
    return TrainingProgress("id", step=step, losses=[1.0] * step, norms=[0.5] * step, best_step=best)


def names(folder: Path) -> list[str]:
    """Return the sorted names of the files in a folder."""
    return sorted(p.name for p in folder.iterdir())


def advance(layer: nn.Linear, optimizer: MasterOptimizer) -> None:
    """Take one step on random data."""
    layer(torch.randn(5, 4, dtype=layer.weight.dtype)).square().sum().backward()
    optimizer.step(1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_resume_restores_weights_optimizer_and_random_state(tmp_path: Path, dtype: torch.dtype) -> None:
    layer, optimizer = make(dtype)
    checkpoint.save_checkpoint(tmp_path, progress(2), optimizer, checkpoint.random_state())
    drawn = (torch.rand(3), random.random(), random.gauss(0, 1), np.random.random(), np.random.normal())
    for _ in range(3):
        advance(layer, optimizer)
    expected = optimizer.weights()
    again, fresh = make(dtype)
    checkpoint.seed_everything(99)
    newest, _ = checkpoint.newest_checkpoint(tmp_path)
    assert newest is not None
    checkpoint.restore_random_state(checkpoint.restore_checkpoint(newest, fresh))
    assert checkpoint.read_progress(newest) == progress(2)
    assert torch.equal(torch.rand(3), drawn[0])
    assert (random.random(), random.gauss(0, 1), np.random.random(), np.random.normal()) == drawn[1:]
    for _ in range(3):
        advance(again, fresh)
    assert all(torch.equal(fresh.weights()[k], expected[k]) for k in expected)
    assert all(torch.equal(p, expected[n].to(dtype)) for n, p in again.named_parameters())


def test_random_state_includes_cached_gaussian() -> None:
    checkpoint.seed_everything(5)
    random.gauss(0, 1)
    np.random.normal()
    state = checkpoint.random_state()
    expected = random.gauss(0, 1), np.random.normal()
    checkpoint.restore_random_state(state)
    assert (random.gauss(0, 1), np.random.normal()) == expected


def test_two_newest_checkpoints_remain_and_damaged_one_is_skipped(tmp_path: Path) -> None:
    _, optimizer = make()
    for step in (2, 4, 6):
        checkpoint.save_checkpoint(tmp_path, progress(step), optimizer, checkpoint.random_state())
    assert names(tmp_path) == ["step-000004", "step-000006"]
    (tmp_path / "step-000009").mkdir()
    newest, damage = checkpoint.newest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.name == "step-000006"
    assert "step-000009" in damage[0]
    with (newest / "weights.safetensors").open("ab") as stream:
        stream.write(b"x")
    newest, _ = checkpoint.newest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.name == "step-000004"
    checkpoint.remove_checkpoints_after(tmp_path, newest)
    assert names(tmp_path) == ["step-000004"]


def test_best_weights_remain_while_a_checkpoint_refers_to_them(tmp_path: Path) -> None:
    _, optimizer = make()
    weights = optimizer.weights()
    checkpoint.save_best_weights(tmp_path, 1, optimizer)
    for step in (2, 4, 6):
        checkpoint.save_checkpoint(tmp_path, progress(step, best=1), optimizer, checkpoint.random_state())
    assert names(tmp_path) == ["best-000001", "step-000004", "step-000006"]
    checkpoint.restore_best_weights(tmp_path, 1, optimizer)
    assert all(torch.equal(v, weights[k]) for k, v in optimizer.weights().items())
    checkpoint.save_best_weights(tmp_path, 7, optimizer)
    checkpoint.save_checkpoint(tmp_path, progress(8, best=7), optimizer, checkpoint.random_state())
    assert names(tmp_path) == ["best-000001", "best-000007", "step-000006", "step-000008"]
    (tmp_path / "best-000007" / "weights.safetensors").write_bytes(b"")
    newest, damage = checkpoint.newest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.name == "step-000006"
    assert "best-000007" in damage[0]


def test_checkpoint_has_no_pickle_files(tmp_path: Path) -> None:
    _, optimizer = make()
    folder = checkpoint.save_checkpoint(tmp_path, progress(2), optimizer, checkpoint.random_state())
    assert {p.suffix for p in folder.iterdir()} == {".safetensors", ".json"}


def test_damage_to_any_checkpoint_file_is_detected(tmp_path: Path) -> None:
    _, optimizer = make()
    folder = checkpoint.save_checkpoint(tmp_path, progress(2), optimizer, checkpoint.random_state())
    for file in sorted(folder.iterdir()):
        content = file.read_bytes()
        half = len(content) // 2
        for damaged in (content[:-2], content[:half] + b"?" + content[half + 1 :], b""):
            file.write_bytes(damaged)
            assert checkpoint.newest_checkpoint(tmp_path)[0] is None, file.name
        file.write_bytes(content)
    assert checkpoint.newest_checkpoint(tmp_path)[0] == folder


def test_fp32_masters_accumulate_steps_below_bf16_resolution() -> None:
    """A step below bf16's resolution moves the fp32 master, and in the end the parameter."""
    layer = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    nn.init.ones_(layer.weight)
    optimizer = MasterOptimizer(dict(layer.named_parameters()), 1e-4, 0.0, 1.0)
    for _ in range(60):
        layer.weight.grad = torch.ones_like(layer.weight)
        optimizer.step(1.0)
    assert float(optimizer.masters["weight"].detach()) == pytest.approx(1 - 60e-4, abs=1e-5)
    assert float(layer.weight.detach()) < 1.0

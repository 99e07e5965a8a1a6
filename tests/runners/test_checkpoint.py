"""Checkpoints: whole or absent, damage is seen, state comes back bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from runners import checkpoint
from runners.checkpoint import Progress
from runners.optimizer import Optimizer


def make(dtype: torch.dtype = torch.float32) -> tuple[nn.Linear, Optimizer]:
    """Return a small layer and its optimiser after two steps."""
    torch.manual_seed(0)
    layer = nn.Linear(4, 3).to(dtype)
    optimizer = Optimizer(dict(layer.named_parameters()), 0.1, 0.0, 1.0)
    for _ in range(2):
        advance(layer, optimizer)
    return layer, optimizer


def advance(layer: nn.Linear, optimizer: Optimizer) -> None:
    """Take one step on random data."""
    layer(torch.randn(5, 4, dtype=layer.weight.dtype)).square().sum().backward()
    optimizer.step(1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_going_on_from_a_checkpoint_is_exact(tmp_path: Path, dtype: torch.dtype) -> None:
    layer, optimizer = make(dtype)
    best = optimizer.weights()
    checkpoint.save(tmp_path, Progress("id", step=2, losses=[1.0, 0.5]), optimizer, best)
    for _ in range(3):
        advance(layer, optimizer)
    wanted = optimizer.weights()
    again, fresh = make(dtype)
    torch.manual_seed(99)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    restored = checkpoint.restore(found, fresh)
    assert restored is not None
    assert all(torch.equal(restored[k], best[k]) for k in best)
    assert checkpoint.peek(found) == Progress("id", step=2, losses=[1.0, 0.5])
    for _ in range(3):
        advance(again, fresh)
    assert all(torch.equal(fresh.weights()[k], wanted[k]) for k in wanted)
    assert all(torch.equal(p, wanted[n].to(dtype)) for n, p in again.named_parameters())


def test_only_the_newest_is_kept_and_a_damaged_one_is_passed_over(tmp_path: Path) -> None:
    _, optimizer = make()
    checkpoint.save(tmp_path, Progress("id", step=2), optimizer, None)
    checkpoint.save(tmp_path, Progress("id", step=4), optimizer, None)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000004"]
    (tmp_path / "step-000009").mkdir()
    whole = checkpoint.latest(tmp_path)
    assert whole is not None
    assert whole.name == "step-000004"
    with (whole / "weights.safetensors").open("ab") as stream:
        stream.write(b"x")
    assert checkpoint.latest(tmp_path) is None


def test_nothing_in_a_checkpoint_is_pickle(tmp_path: Path) -> None:
    _, optimizer = make()
    folder = checkpoint.save(tmp_path, Progress("id", step=2), optimizer, None)
    assert {p.suffix for p in folder.iterdir()} == {".safetensors", ".json"}


def test_small_steps_are_not_lost_to_bf16() -> None:
    """A step below bf16's resolution moves the fp32 master, and in the end the parameter."""
    layer = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    nn.init.ones_(layer.weight)
    optimizer = Optimizer(dict(layer.named_parameters()), 1e-4, 0.0, 1.0)
    for _ in range(60):
        layer.weight.grad = torch.ones_like(layer.weight)
        optimizer.step(1.0)
    assert float(optimizer.masters["weight"].detach()) == pytest.approx(1 - 60e-4, abs=1e-5)
    assert float(layer.weight.detach()) < 1.0

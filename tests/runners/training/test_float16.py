"""Training in float16 with a loss scale, as on a GPU without bf16; here on the CPU."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rag.errors import BadInput
from runners.data.examples import Example
from runners.models.resolve import Model
from runners.plan.train_config import TrainConfig
from runners.resources.device import DTYPE_ENV, loss_scaler
from runners.train import fit, work_folder
from runners.training import checkpoint
from runners.training.loss import LinearCrossEntropy
from runners.training.optimizer import MasterOptimizer

CONFIG = TrainConfig(epochs=3.0, rank=4, alpha=8.0, learning_rate=1e-2, batch_tokens=400)
Event = dict[str, Any]


@pytest.fixture
def float16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything computes in float16."""
    monkeypatch.setenv(DTYPE_ENV, "float16")


@pytest.mark.parametrize("method", ["lora", "full", "qlora"])
def test_float16_follows_float32(
    tiny: Model,
    examples: Sequence[Example],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    config = CONFIG.replace(method=method, learning_rate=1e-2 if method != "full" else 1e-3)
    results = {}
    for dtype in ("float32", "float16"):
        monkeypatch.setenv(DTYPE_ENV, dtype)
        results[dtype] = fit(examples, config, tiny, tmp_path / dtype)
    wide, half = results["float32"], results["float16"]
    assert half.last_loss < half.first_loss - 0.1
    assert half.last_loss == pytest.approx(wide.last_loss, rel=0.1)
    assert any("float16 with a loss scale" in note for note in half.notes)
    assert not any("float16" in note for note in wide.notes)


def test_overflowing_step_is_skipped_counted_and_said(
    tiny: Model, examples: Sequence[Example], tmp_path: Path, float16: None
) -> None:
    events: list[Event] = []
    config = CONFIG.replace(epochs=8.0)
    result = fit(examples, config, tiny, tmp_path / "out", on_event=events.append, loss_scale=2.0**26)
    skipped = [event["step"] for event in events if event["event"] == "train.overflow"]
    assert skipped
    assert skipped[0] == 1
    assert any(f"{len(skipped)} of {result.steps} steps changed no weight" in note for note in result.notes)
    log = [json.loads(line) for line in (tmp_path / "out" / "training.jsonl").read_text("utf-8").splitlines()]
    assert [row["step"] for row in log if row["grad_norm"] == 0] == skipped
    assert result.last_loss < result.first_loss


def test_run_that_only_overflows_is_stopped(
    tiny: Model, examples: Sequence[Example], tmp_path: Path, float16: None
) -> None:
    with pytest.raises(BadInput, match="overflowed float16 in 20 steps in a row") as problem:
        fit(examples, CONFIG.replace(epochs=20.0), tiny, tmp_path / "out", loss_scale=2.0**100)
    assert f"{DTYPE_ENV}=float32" in problem.value.hint


def test_resumed_run_has_the_scale_and_the_weights_of_an_uninterrupted_one(
    tiny: Model, examples: Sequence[Example], tmp_path: Path, float16: None
) -> None:
    config = CONFIG.replace(epochs=8.0, checkpoint_steps=4)
    scale = 2.0**36
    whole = fit(examples, config, tiny, tmp_path / "whole", loss_scale=scale)

    def stop(event: Event) -> None:
        if event["event"] == "train.checkpoint":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(examples, config, tiny, tmp_path / "cut", on_event=stop, loss_scale=scale)
    folder, _ = checkpoint.newest_checkpoint(work_folder(tmp_path / "cut"))
    assert folder is not None
    progress = checkpoint.read_progress(folder)
    assert 0 < progress.scaler["scale"] < scale
    assert progress.skipped
    resumed = fit(examples, config, tiny, tmp_path / "cut", resume=True, loss_scale=scale)
    assert resumed.last_loss == whole.last_loss
    a, b = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_gradients_are_unscaled_before_they_are_clipped() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = MasterOptimizer({"w": weight}, 0.1, 0.0, max_norm=1.0)
    scaler = loss_scaler(torch.float16, torch.device("cpu"))
    assert scaler is not None
    optimizer.scaler = scaler
    scaler.scale((weight * torch.tensor([3.0, 4.0])).sum()).backward()
    assert optimizer.step(1.0) == pytest.approx(5.0)
    before = weight.detach().clone()
    weight.grad = torch.tensor([math.inf, 0.0])
    assert not math.isfinite(optimizer.step(1.0))
    assert torch.equal(weight, before)
    assert loss_scaler(torch.bfloat16, torch.device("cpu")) is None


@pytest.mark.parametrize("vocabulary", [300, 200_000])
def test_float16_loss_of_a_large_vocabulary_has_the_gradients_of_float32(vocabulary: int) -> None:
    """With 200,000 nearly equal logits the mass of the softmax exceeds 65,504, float16's largest number."""
    torch.manual_seed(0)
    hidden, head = torch.randn(5, 16) / 8, torch.randn(vocabulary, 16) / 8
    targets = torch.randint(0, vocabulary, (5,))
    scale = 65536.0 / 5
    grads = []
    for dtype in (torch.float32, torch.float16):
        x, w = (values.detach().to(dtype, copy=True).requires_grad_() for values in (hidden, head))
        loss = LinearCrossEntropy.apply(x, w, targets)
        (loss * scale).backward()
        assert x.grad is not None
        assert w.grad is not None
        grads.append((float(loss), x.grad.float(), w.grad.float()))
    (loss, by_hidden, by_head), (half_loss, half_hidden, half_head) = grads
    assert half_loss == pytest.approx(loss, rel=2e-3)
    for wide, half in ((by_hidden, half_hidden), (by_head, half_head)):
        assert torch.isfinite(half).all()
        assert float((wide - half).norm() / wide.norm()) < 0.02

"""The optimisers: training, exact saving and restoring of their state, and LoRA+."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from runners.data.examples import Example
from runners.models.resolve import Model
from runners.plan.train_config import OPTIMIZERS, TrainConfig
from runners.train import fit
from runners.training.optimizer import MasterOptimizer

CONFIG = TrainConfig(epochs=2.0, rank=4, alpha=8.0, learning_rate=1e-2, batch_tokens=400, checkpoint_steps=2)


def params(dtype: torch.dtype = torch.float32) -> dict[str, nn.Parameter]:
    """Four parameters, among them one large enough for 8-bit states, an embedding, a vector."""
    torch.manual_seed(0)
    shapes = {
        "layer.lora_A.weight": (8, 32),
        "layer.lora_B.weight": (96, 64),
        "embed.weight": (80, 64),
        "norm": (5,),
    }
    return {name: nn.Parameter(torch.randn(shape).to(dtype)) for name, shape in shapes.items()}


def steps(optimizer: MasterOptimizer, first: int, last: int) -> None:
    """Take steps on gradients that depend on the step's number only."""
    for number in range(first, last):
        torch.manual_seed(number)
        for parameter in optimizer.params.values():
            parameter.grad = torch.randn(parameter.shape).to(parameter.dtype)
        optimizer.step(1.0)


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_optimizer_state_is_restored_bit_for_bit(tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    make = lambda: MasterOptimizer(params(dtype), 1e-2, 0.01, 1.0, kind, 16.0)  # noqa: E731
    whole = make()
    steps(whole, 0, 6)
    first_half = make()
    steps(first_half, 0, 3)
    save_file(first_half.state(), tmp_path / "state.safetensors")
    save_file(first_half.weights(), tmp_path / "weights.safetensors")
    resumed = make()
    resumed.set_weights(load_file(tmp_path / "weights.safetensors"))
    resumed.set_state(load_file(tmp_path / "state.safetensors"))
    steps(resumed, 3, 6)
    for name, weight in whole.weights().items():
        assert torch.equal(weight, resumed.weights()[name]), name
    assert whole.state().keys() == resumed.state().keys()
    assert all(torch.equal(value, resumed.state()[key]) for key, value in whole.state().items())


def test_adamw_8bit_keeps_embedding_and_small_states_in_fp32() -> None:
    optimizer = MasterOptimizer(params(), 1e-2, 0.0, 1.0, "paged_adamw_8bit")
    steps(optimizer, 0, 1)
    state = optimizer.state()
    assert state["state1/layer.lora_B.weight"].dtype == torch.uint8
    assert state["state1/embed.weight"].dtype == torch.float32
    assert state["state1/norm"].dtype == torch.float32
    assert "nowhere to page" in optimizer.note


def test_adafactor_state_is_rows_and_columns_only() -> None:
    optimizer = MasterOptimizer(params(), 1e-2, 0.0, 1.0, "adafactor")
    steps(optimizer, 0, 1)
    size = sum(v.numel() for k, v in optimizer.state().items() if "exp_avg" in k)
    assert size == (8 + 32) + (96 + 64) + (80 + 64) + 5


def test_lora_plus_scales_rate_of_b_only() -> None:
    moved = {}
    for ratio in (1.0, 16.0):
        optimizer = MasterOptimizer(params(), 1e-3, 0.0, 1e9, "adamw", ratio)
        before = optimizer.weights()
        steps(optimizer, 0, 1)
        moved[ratio] = {n: (w - before[n]).abs().mean() for n, w in optimizer.weights().items()}
    for name in moved[1.0]:
        expected = 16.0 if "lora_B" in name else 1.0
        assert float(moved[16.0][name] / moved[1.0][name]) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("kind", OPTIMIZERS[1:])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_resume_restores_optimizer_state(
    tiny: Model, examples: tuple[Example, ...], tmp_path: Path, kind: str, method: str
) -> None:
    config = CONFIG.replace(
        optimizer=kind, method=method, dropout=0.1, neftune=2.0 if method == "lora" else 0.0
    )
    whole = fit(examples, config, tiny, tmp_path / "whole")
    assert whole.last_loss < whole.first_loss - 0.05

    def stop(event: dict[str, object]) -> None:
        if event["event"] == "train.step" and event["step"] == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(examples, config, tiny, tmp_path / "parts", on_event=stop)
    fit(examples, config, tiny, tmp_path / "parts", resume=True)
    name = "adapter_model.safetensors" if method == "lora" else "model.safetensors"
    assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()

"""Gradient checkpointing only where memory requires it, with the same gradients; NEFTune's noise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from runners.data.examples import Example
from runners.inference.weights import load_base
from runners.models.resolve import Model
from runners.plan.train_config import TrainConfig
from runners.resources import machine
from runners.resources.model_shape import typical_shape
from runners.tokenization.chat_template import ChatTokenizer
from runners.train import fit
from runners.training import gradient_checkpointing, lora, loss

FEW = TrainConfig(epochs=1.0, rank=4, alpha=8.0, learning_rate=1e-2, batch_tokens=300)


def test_checkpointing_is_on_only_if_run_does_not_fit_or_on_request(tiny: Model) -> None:
    for free, on in ((64.0, False), (0.001, True), (None, False)):
        choice = gradient_checkpointing.choose_checkpointing(tiny.folder, FEW, 200, free, half=True)
        assert choice.on is on, choice.reason
        assert f"checkpointing {'on' if on else 'off'}:" in choice.reason
    for setting in ("on", "off"):
        choice = gradient_checkpointing.choose_checkpointing(
            tiny.folder, FEW.replace(checkpointing=setting), 200, 0.001, half=True
        )
        assert choice == gradient_checkpointing.CheckpointingChoice(
            setting == "on", f"checkpointing {setting}: asked for"
        )


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_memory_need_grows_with_the_size_of_a_run(method: str) -> None:
    shape, config = typical_shape(1.0), TrainConfig(method=method, rank=16)
    need = gradient_checkpointing.largest_pass_gib(shape, config, 512, True, False)
    assert gradient_checkpointing.largest_pass_gib(shape, config, 512, True, True) < need
    assert (
        gradient_checkpointing.largest_pass_gib(
            shape, config.replace(micro_tokens=8192, batch_tokens=8192), 512, True, False
        )
        > need
    )
    assert gradient_checkpointing.largest_pass_gib(shape, config, 8192, True, False) > need
    smaller = gradient_checkpointing.largest_pass_gib(
        shape, config.replace(optimizer="adafactor"), 512, True, False
    )
    assert smaller < need
    if method == "full":
        weights = shape.params / machine.GIB
        assert need > 18 * weights  # bf16 weights, fp32 masters, two moments and gradients
        assert smaller > 8 * weights


@pytest.mark.parametrize("method", ["lora", "full"])
def test_checkpointing_leaves_gradients_unchanged(
    tiny: Model, examples: tuple[Example, ...], method: str
) -> None:
    rows = [ChatTokenizer(tiny.folder).example(row) for row in examples[:5]]
    results = []
    for recompute in (False, True):
        torch.manual_seed(0)
        net = lora.prepare_model(tiny, FEW.replace(method=method), recompute).float()
        net.train()
        chosen = loss.choose_loss(net, rows)
        assert (chosen.path == "fast") is not recompute
        chosen(rows).backward()
        results.append({n: p.grad for n, p in lora.trainable_parameters(net).items()})
    for name, gradient in results[0].items():
        torch.testing.assert_close(results[1][name], gradient, rtol=1e-3, atol=1e-4)
    assert any(
        "layers.0" in name and gradient is not None and gradient.abs().sum() > 0
        for name, gradient in results[1].items()
    )


def test_checkpointing_choice_is_in_event_and_result(
    tiny: Model, examples: tuple[Example, ...], tmp_path: Path
) -> None:
    events: list[dict[str, object]] = []
    result = fit(examples, FEW.replace(checkpointing="on"), tiny, tmp_path / "out", on_event=events.append)
    assert events[0]["checkpointing"] == "checkpointing on: asked for"
    assert "checkpointing on: asked for" in result.notes
    assert result.path == "rows"


def test_embedding_noise_has_neftune_size_in_training_only(tiny: Model) -> None:
    model = load_base(tiny, "float32")
    ids = torch.arange(20)[None]
    clean = model.get_input_embeddings()(ids)
    lora.add_embedding_noise(model, 5.0)
    seen: list[torch.Tensor] = []
    model.get_input_embeddings().register_forward_hook(lambda module, args, out: seen.append(out))
    model.train()
    model(ids)
    size = 5.0 / (20 * clean.shape[-1]) ** 0.5
    noise = seen[-1] - clean
    assert 0.9 * size < float(noise.abs().max()) <= size
    assert abs(float(noise.mean())) < 0.1 * size
    model.eval()
    model(ids)
    assert torch.equal(seen[-1], clean)


def test_embedding_noise_is_reproducible_by_seed(
    tiny: Model, examples: tuple[Example, ...], tmp_path: Path
) -> None:
    results = []
    for name, alpha in (("a", 5.0), ("b", 5.0), ("c", 0.0)):
        fit(examples, FEW.replace(neftune=alpha), tiny, tmp_path / name)
        results.append((tmp_path / name / "adapter_model.safetensors").read_bytes())
    assert results[0] == results[1] != results[2]

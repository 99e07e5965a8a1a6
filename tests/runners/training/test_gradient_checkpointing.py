"""Gradient checkpointing only when memory asks for it, with the same gradients; NEFTune's noise."""

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


def test_it_is_on_only_where_the_run_does_not_fit(tiny: Model) -> None:
    for free, on in ((64.0, False), (0.001, True), (None, False)):
        choice = gradient_checkpointing.choose_checkpointing(tiny.folder, FEW, 200, free, half=True)
        assert choice.on is on, choice.reason
        assert f"checkpointing {'on' if on else 'off'}:" in choice.reason
    for asked in ("on", "off"):
        choice = gradient_checkpointing.choose_checkpointing(
            tiny.folder, FEW.replace(checkpointing=asked), 200, 0.001, half=True
        )
        assert choice == gradient_checkpointing.CheckpointingChoice(
            asked == "on", f"checkpointing {asked}: asked for"
        )


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_the_need_grows_with_what_makes_a_run_larger(method: str) -> None:
    shape, config = typical_shape(1.0), TrainConfig(method=method, rank=16)
    need = gradient_checkpointing.largest_pass_gib(shape, config, 512, True, False)
    assert gradient_checkpointing.largest_pass_gib(shape, config, 512, True, True) < need
    assert (
        gradient_checkpointing.largest_pass_gib(shape, config.replace(micro_tokens=8192), 512, True, False)
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
def test_gradients_are_the_same_and_reach_the_first_block(
    tiny: Model, examples: tuple[Example, ...], method: str
) -> None:
    rows = [ChatTokenizer(tiny.folder).example(row) for row in examples[:5]]
    found = []
    for again in (False, True):
        torch.manual_seed(0)
        net = lora.prepare_model(tiny, FEW.replace(method=method), again).float()
        net.train()
        chosen = loss.choose_loss(net, rows)
        assert (chosen.path == "fast") is not again
        chosen(rows).backward()
        found.append({n: p.grad for n, p in lora.trainable_parameters(net).items()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-3, atol=1e-4)
    assert any("layers.0" in name and gradient.abs().sum() > 0 for name, gradient in found[1].items())


def test_the_choice_is_told_and_kept(tiny: Model, examples: tuple[Example, ...], tmp_path: Path) -> None:
    events: list[dict[str, object]] = []
    result = fit(examples, FEW.replace(checkpointing="on"), tiny, tmp_path / "out", on_event=events.append)
    assert events[0]["checkpointing"] == "checkpointing on: asked for"
    assert "checkpointing on: asked for" in result.notes
    assert result.path == "rows"


def test_noise_is_of_neftunes_size_and_only_while_training(tiny: Model) -> None:
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


def test_noise_changes_a_run_and_the_same_seed_brings_it_back(
    tiny: Model, examples: tuple[Example, ...], tmp_path: Path
) -> None:
    found = []
    for name, alpha in (("a", 5.0), ("b", 5.0), ("c", 0.0)):
        fit(examples, FEW.replace(neftune=alpha), tiny, tmp_path / name)
        found.append((tmp_path / name / "adapter_model.safetensors").read_bytes())
    assert found[0] == found[1] != found[2]

"""LoRA's variants: training, saving for plain PEFT, the path of the loss, and continuing an adapter."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from rag.errors import BadInput
from runners.data.examples import Example
from runners.inference import weights
from runners.inference.weights import load_base
from runners.models.resolve import Model
from runners.plan.train_config import LORA_VARIANTS, TrainConfig
from runners.tokenization.chat_template import ChatTokenizer, EncodedRow
from runners.train import fit
from runners.training import lora, loss
from tests.support.limits import HANG_S

FEW = TrainConfig(epochs=1.0, rank=4, alpha=8.0, learning_rate=1e-2, batch_tokens=300)
PLAIN_PEFT = """
import sys, warnings
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
base, *folders = sys.argv[1:]
warnings.simplefilter("error")
# transformers, not the folder, warns about a name that peft still uses.
warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
for folder in folders:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, folder).eval()
    ids = AutoTokenizer.from_pretrained(folder)("When does the lounge open?", return_tensors="pt").input_ids
    torch.save(model(ids).logits.detach(), folder + ".pt")
"""


def fp32(tiny: Model, config: TrainConfig) -> PeftModel:
    """Return the tiny model in fp32 with an adapter that is changed as a few steps would change it."""
    torch.manual_seed(0)
    base = load_base(tiny, "float32")
    net = lora._with_adapter(base, config, tiny)
    with torch.no_grad():
        for parameter in lora.trainable_parameters(net).values():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return net


@pytest.fixture
def rows(tiny: Model, examples: tuple[Example, ...]) -> list[EncodedRow]:
    chat = ChatTokenizer(tiny.folder)
    return [chat.example(row) for row in examples[:6]]


@pytest.mark.parametrize("name", LORA_VARIANTS)
def test_saved_variant_equals_trained_model_on_unchanged_base(tiny: Model, tmp_path: Path, name: str) -> None:
    net = fp32(tiny, FEW.replace(variant=name)).eval()
    ids = torch.tensor([ChatTokenizer(tiny.folder).encode("When does the lounge open?")])
    lora._save_adapter(net, tmp_path, tiny)
    again = PeftModel.from_pretrained(load_base(tiny, "float32"), tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, net(ids).logits, rtol=1e-4, atol=1e-4)
    config = json.loads((tmp_path / "adapter_config.json").read_text("utf-8"))
    assert config["r"] == (8 if name == "pissa" else 4)
    assert config["lora_alpha"] / config["r"] == 2
    assert config["init_lora_weights"] is True


@pytest.mark.parametrize("name", LORA_VARIANTS)
def test_variant_loss_and_gradients_equal_plain_path(tiny: Model, rows: list[EncodedRow], name: str) -> None:
    net = fp32(tiny, FEW.replace(variant=name))
    net.train()
    chosen = loss.choose_loss(net, rows)
    gradients = {}
    for path in (chosen.path, "plain"):
        loss.restore_loss(net, path)(rows).backward()
        gradients[path] = {
            n: p.grad.clone() for n, p in lora.trainable_parameters(net).items() if p.grad is not None
        }
        assert len(gradients[path]) == len(lora.trainable_parameters(net))
        net.zero_grad()
    for key, gradient in gradients["plain"].items():
        torch.testing.assert_close(gradients[chosen.path][key], gradient, rtol=1e-3, atol=1e-4)


def test_plain_peft_loads_every_trained_variant_without_warning(
    tiny: Model, examples: tuple[Example, ...], tmp_path: Path
) -> None:
    folders = [tmp_path / name for name in LORA_VARIANTS]
    for out in folders:
        result = fit(examples, FEW.replace(variant=out.name, epochs=2.0), tiny, out)
        assert result.last_loss < result.first_loss - 0.2
    command = [sys.executable, "-c", PLAIN_PEFT, str(tiny.folder), *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG_S, check=False)
    assert done.returncode == 0, done.stderr
    ids = torch.tensor([ChatTokenizer(tiny.folder).encode("When does the lounge open?")])
    for out in folders:
        model, _ = weights.load_for_inference(tiny, out, "float32")
        with torch.no_grad():
            by_peft = torch.load(f"{out}.pt")
            torch.testing.assert_close(model(ids).logits, by_peft, rtol=1e-3, atol=1e-3)


def test_pissa_starts_at_base_output_with_largest_singular_values(tiny: Model) -> None:
    torch.manual_seed(0)
    net = lora._with_adapter(load_base(tiny, "float32"), FEW.replace(variant="pissa"), tiny).eval()
    bare = load_base(tiny, "float32")
    ids = torch.arange(10)[None]
    with torch.no_grad():
        torch.testing.assert_close(net(ids).logits, bare(ids).logits, rtol=1e-4, atol=1e-4)
    name = "model.layers.0.self_attn.q_proj"
    layer: Any = net.get_base_model().get_submodule(name)
    weight = bare.get_submodule(name).weight
    taken = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    assert float(taken.norm()) == pytest.approx(float(torch.linalg.svdvals(weight)[:4].norm()), rel=0.02)


def test_only_target_layers_get_adapters(tiny: Model) -> None:
    net = lora._with_adapter(load_base(tiny), FEW.replace(targets=("q_proj", "v_proj")), tiny)
    assert {n.split(".")[-4] for n in lora.trainable_parameters(net)} == {"q_proj", "v_proj"}


def test_invalid_targets_and_variant_combinations_are_refused(tiny: Model) -> None:
    with pytest.raises(BadInput, match="'query' is no linear layer") as caught:
        lora.prepare_model(tiny, FEW.replace(targets=("q_proj", "query")))
    assert "q_proj" in caught.value.hint
    with pytest.raises(BadInput, match="the narrowest has 16"):
        lora.prepare_model(tiny, FEW.replace(variant="pissa", rank=17))
    for wrong in (
        {"variant": "pissa", "method": "qlora"},
        {"variant": "dora", "method": "full"},
        {"lora_plus": 16.0, "method": "full"},
        {"targets": ()},
        {"targets": "q_proj"},
    ):
        with pytest.raises(BadInput):
            TrainConfig(**wrong)


def test_continued_adapter_keeps_its_rank_and_variant(
    tiny: Model, examples: tuple[Example, ...], tmp_path: Path
) -> None:
    fit(examples, FEW.replace(variant="dora"), tiny, tmp_path / "first")
    on = FEW.replace(rank=8, dropout=0.1, init_adapter=tmp_path / "first")
    result = fit(examples, on, tiny, tmp_path / "second")
    assert "rank 4 is that of the adapter given with --init-adapter, not 8" in result.notes
    config = json.loads((tmp_path / "second" / "adapter_config.json").read_text("utf-8"))
    assert (config["r"], config["use_dora"], config["lora_dropout"]) == (4, True, 0.1)
    recorded = json.loads((tmp_path / "second" / "manifest.json").read_text("utf-8"))["config"]
    assert (recorded["rank"], recorded["variant"], recorded["alpha"]) == (4, "dora", 8.0)
    with pytest.raises(BadInput, match="is a dora adapter"):
        fit(examples, on.replace(variant="rslora"), tiny, tmp_path / "third")


def test_adapter_of_another_base_is_not_continued(
    tiny: Model, other: Model, examples: tuple[Example, ...], tmp_path: Path
) -> None:
    fit(examples, FEW, tiny, tmp_path / "first")
    with pytest.raises(BadInput, match="another base") as caught:
        fit(examples, FEW.replace(init_adapter=tmp_path / "first"), other, tmp_path / "second")
    assert tiny.fingerprint[:16] in caught.value.message
    assert other.fingerprint[:16] in caught.value.message
    assert not (tmp_path / "second").exists()
    with pytest.raises(BadInput, match="none has no adapter to continue from"):
        fit(examples, FEW.replace(init_adapter=tmp_path / "none"), tiny, tmp_path / "second")


def test_continued_pissa_adapter_has_twice_the_rank(
    tiny: Model, examples: tuple[Example, ...], tmp_path: Path
) -> None:
    fit(examples, FEW.replace(variant="pissa"), tiny, tmp_path / "first")
    fit(examples, FEW.replace(init_adapter=tmp_path / "first"), tiny, tmp_path / "second")
    config = json.loads((tmp_path / "second" / "adapter_config.json").read_text("utf-8"))
    assert config["r"] == 8


@pytest.mark.parametrize("name", ["dora", "pissa"])
def test_interrupted_variant_resumes_to_identical_weights(
    tiny: Model, examples: tuple[Example, ...], tmp_path: Path, name: str
) -> None:
    config = FEW.replace(variant=name, dropout=0.1, checkpoint_steps=2)
    fit(examples, config, tiny, tmp_path / "whole")

    def stop(event: dict[str, object]) -> None:
        if event["event"] == "train.step" and event["step"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(examples, config, tiny, tmp_path / "parts", on_event=stop)
    torch.rand(100)
    fit(examples, config, tiny, tmp_path / "parts", resume=True)
    one, two = (tmp_path / folder / "adapter_model.safetensors" for folder in ("whole", "parts"))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_variants_attach_to_bf16_and_four_bit_base(tiny: Model, method: str) -> None:
    for name in ("lora", "rslora", "dora"):
        net = lora.prepare_model(tiny, FEW.replace(method=method, variant=name))
        assert isinstance(net, PeftModel)
        assert lora.variant_of(net) == name

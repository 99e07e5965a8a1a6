"""What each method trains, the adapter folder, and adapters of another base."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from rag.errors import BadInput
from runners.data.examples import Example
from runners.inference import weights
from runners.inference.weights import dtype_for, load_base, load_for_inference, load_tokenizer
from runners.models.resolve import Model
from runners.plan.train_config import TrainConfig
from runners.tokenization.chat_template import ChatTokenizer
from runners.train import fit
from runners.training import lora

FEW = TrainConfig(epochs=1.0, rank=4, alpha=8.0, learning_rate=1e-2, batch_tokens=300)


@pytest.fixture(scope="module")
def adapter(tiny: Model, examples: tuple[Example, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter trained on the tiny model."""
    out = tmp_path_factory.mktemp("adapter") / "lora"
    fit(examples, FEW, tiny, out)
    return out


def test_lora_parameter_count_equals_formula(tiny: Model) -> None:
    net = lora.prepare_model(tiny, FEW)
    trained = lora.trainable_parameters(net)
    shapes = [(32, 32), (16, 32), (16, 32), (32, 32), (64, 32), (64, 32), (32, 64)]
    assert sum(p.numel() for p in trained.values()) == 2 * sum(4 * (a + b) for a, b in shapes)
    assert {p.dtype for p in trained.values()} == {torch.float32}


def test_full_trains_all_parameters(tiny: Model) -> None:
    net = lora.prepare_model(tiny, TrainConfig(method="full"))
    assert len(lora.trainable_parameters(net)) == len(list(net.parameters()))


def test_adapter_folder_has_peft_tokenizer_card_and_manifest_files(tiny: Model, adapter: Path) -> None:
    assert {p.name for p in adapter.iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "generation_config.json",
        "manifest.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "training.jsonl",
    }
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == tiny.name


def test_reloaded_adapter_equals_merged_model(tiny: Model, adapter: Path) -> None:
    ids = torch.tensor([ChatTokenizer(tiny.folder).encode("When does the lounge open?")])
    apart = weights.load_adapter(load_base(tiny, "float32"), adapter, tiny).eval()
    merged, tokenizer = load_for_inference(tiny, adapter, "float32")
    bare, _ = load_for_inference(tiny, None, "float32")
    with torch.no_grad():
        logits = [m(ids).logits for m in (apart, merged, bare)]
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(logits[0], logits[2], atol=1e-2)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_adapter_of_another_base_is_refused_with_fingerprints(
    tiny: Model, other: Model, adapter: Path
) -> None:
    with pytest.raises(BadInput, match="another base") as caught:
        load_for_inference(other, adapter)
    assert tiny.fingerprint[:16] in str(caught.value)
    assert other.fingerprint[:16] in str(caught.value)


def test_changed_chat_template_is_refused(tiny: Model, adapter: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny.folder, tmp_path / "model")
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}", encoding="utf-8")
    from runners.models.resolve import resolve_model

    with pytest.raises(BadInput, match="another chat template"):
        load_for_inference(resolve_model(str(folder)), adapter)


def test_damaged_adapter_folder_is_refused(tiny: Model, adapter: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(adapter, tmp_path / "damaged")
    with (damaged / "adapter_model.safetensors").open("r+b") as stream:
        stream.seek(3000)
        stream.write(b"\0\1\2\3")
    with pytest.raises(BadInput, match="SHA-256 of adapter_model"):
        load_for_inference(tiny, damaged)
    (damaged / "manifest.json").unlink()
    with pytest.raises(BadInput, match=r"no manifest\.json"):
        load_for_inference(tiny, damaged)


def test_tokenizer_does_not_pad_with_end_token(tiny: Model, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny.folder, tmp_path / "model")
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "pad_token": config["eos_token"]}), encoding="utf-8")
    tokenizer = load_tokenizer(folder)
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|endoftext|>", "<|im_end|>")


def test_dtype_has_reason_and_unknown_is_refused() -> None:
    dtype, how = dtype_for()
    assert dtype in (torch.bfloat16, torch.float32)
    assert how
    with pytest.raises(BadInput, match="int8"):
        dtype_for("int8")

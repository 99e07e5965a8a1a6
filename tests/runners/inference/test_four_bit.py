"""Answers of a base in 4 bits with its adapter beside it: those of transformers, bitsandbytes and PEFT."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from runners.data.examples import Example
from runners.inference.local import LocalGenerator, local_generator
from runners.inference.weights import in_evaluation_mode
from runners.models import resolve
from runners.models.fingerprint import read_json
from runners.models.resolve import Model
from runners.plan.train_config import TrainConfig
from runners.train import fit

FAMILIES = ("llama", "qwen2")
TOKENS = 10
Pair = tuple[Model, Path]


def config_of(family: str, vocabulary: int, hidden: int) -> Any:
    """Return a transformers config of a family; layers as wide as nf4's blocks, where ``hidden`` is a multiple of 64."""
    from transformers import LlamaConfig, Qwen2Config

    kinds = {"llama": LlamaConfig, "qwen2": Qwen2Config}
    return kinds[family](
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        eos_token_id=2,
        pad_token_id=0,
        bos_token_id=1,
        tie_word_embeddings=True,
    )


def build(folder: Path, tiny: Model, family: str, hidden: int = 64) -> Model:
    """Write a model of a family with the tiny model's tokenizer, and resolve it."""
    from transformers import AutoModelForCausalLM

    shutil.copytree(tiny.folder, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    vocabulary = len(read_json(tiny.folder / "tokenizer.json")["model"]["vocab"]) + 3
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config_of(family, vocabulary, hidden))
    model.to(torch.bfloat16).save_pretrained(folder)
    return resolve.resolve_model(str(folder))


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, tiny: Model, examples: Sequence[Example]
) -> Callable[..., Pair]:
    """Return the maker of a base of a family and a qlora adapter of it, made once each."""
    made: dict[tuple[str, str], Pair] = {}

    def make(family: str, variant: str = "lora") -> Pair:
        if (family, variant) not in made:
            folder = tmp_path_factory.mktemp(f"{family}-{variant}")
            base = build(folder / "base", tiny, family)
            settings = TrainConfig(method="qlora", epochs=3, learning_rate=2e-2, variant=variant)
            fit(examples, settings, base, folder / "adapter")
            made[family, variant] = base, folder / "adapter"
        return made[family, variant]

    return make


def chats(examples: Sequence[Example], count: int = 3) -> list[list[dict[str, Any]]]:
    return [list(example.messages[:-1]) for example in examples[:count]]


def plain_answers(base: Model, adapter: Path | None, asked: Sequence[Any], repack: bool = True) -> list[str]:
    """Answer one by one with transformers, bitsandbytes and PEFT alone."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, BatchEncoding, BitsAndBytesConfig

    four_bit = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model: Any = AutoModelForCausalLM.from_pretrained(
        base.folder, dtype=torch.bfloat16, quantization_config=four_bit, device_map={"": "cpu"}
    )
    if adapter:
        model = PeftModel.from_pretrained(model, str(adapter))
    model.eval()
    if not repack:
        for layer in model.modules():
            if type(layer).__name__ == "Linear4bit":
                layer.train()
    tokenizer = AutoTokenizer.from_pretrained(base.folder)
    answers = []
    for chat in asked:
        inputs = tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        assert isinstance(inputs, BatchEncoding)
        inputs.pop("token_type_ids", None)
        with torch.inference_mode():
            row = model.generate(
                **inputs, max_new_tokens=TOKENS, do_sample=False, pad_token_id=0, eos_token_id=2
            )
        text = tokenizer.decode(row[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        answers.append(str(text).strip())
    return answers


def four_bit_generator(base: Model, adapter: Path | None, kernels: str = "auto") -> LocalGenerator:
    return local_generator(base, adapter, "bfloat16", kernels, quantization="nf4")


def one_by_one(generator: LocalGenerator, asked: Sequence[Any]) -> list[str]:
    return [generator.generate([chat], TOKENS)[0].text for chat in asked]


def layer_types(generator: LocalGenerator) -> set[str]:
    return {type(module).__name__ for module in generator.model.modules() if "inear" in type(module).__name__}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kernels", ["auto", "plain"])
def test_answers_from_nf4_equal_transformers_bitsandbytes_and_peft(
    trained: Callable[..., Pair], examples: Sequence[Example], family: str, kernels: str
) -> None:
    base, adapter = trained(family)
    asked = chats(examples)
    generator = four_bit_generator(base, None, kernels)
    assert "Linear4bit" in layer_types(generator)
    bare, tuned = plain_answers(base, None, asked), plain_answers(base, adapter, asked)
    assert one_by_one(generator, asked) == bare
    generator.use(adapter)
    assert one_by_one(generator, asked) == tuned
    assert bare != tuned
    if kernels == "auto":
        (piece,) = [generator.stream(asked[0], TOKENS)]
        assert piece.finish().text == tuned[0]
    generator.use(None)
    assert one_by_one(generator, asked) == bare


def test_switching_keeps_four_bit_weights_and_needs_no_copy(
    trained: Callable[..., Pair], examples: Sequence[Example]
) -> None:
    base, adapter = trained("llama")
    asked = chats(examples)
    generator = four_bit_generator(base, adapter)
    first = generator.model
    tuned = [row.text for row in generator.generate(asked, TOKENS)]
    for _ in range(2):
        generator.use(None)
        assert not any("lora" in name for name, _ in generator.model.named_parameters())
        generator.use(adapter)
        assert [row.text for row in generator.generate(asked, TOKENS)] == tuned
    assert generator.model is first
    assert generator._weights._copy is None
    owners = {four_bit_generator(base, adapter)._weights.owner, LocalGenerator(base, adapter)._weights.owner}
    assert len(owners) == 2


def test_dora_on_nf4_reads_weights_that_are_not_repacked(
    trained: Callable[..., Pair], examples: Sequence[Example]
) -> None:
    """bitsandbytes repacks 4-bit weights in evaluation mode on some CPUs, and DoRA would normalise by nonsense."""
    base, adapter = trained("llama", "dora")
    asked = chats(examples)
    generator = four_bit_generator(base, None)
    bare = one_by_one(generator, asked)  # repacks the layers where the CPU has AVX512-BF16
    generator.use(adapter)
    assert one_by_one(generator, asked) == plain_answers(base, adapter, asked, repack=False)
    generator.use(None)
    assert one_by_one(generator, asked) == bare


def test_layers_that_cannot_be_repacked_still_answer(
    tmp_path: Path, tiny: Model, examples: Sequence[Example]
) -> None:
    """A width of 48 is no multiple of nf4's blocks of 64: plain bitsandbytes fails on CPUs with AVX512-BF16."""
    base = build(tmp_path / "narrow", tiny, "llama", hidden=48)
    asked = chats(examples, 2)
    assert one_by_one(four_bit_generator(base, None), asked) == plain_answers(base, None, asked, repack=False)


def test_model_tuned_in_full_is_held_in_four_bits_too(
    tmp_path: Path, tiny: Model, examples: Sequence[Example]
) -> None:
    base = build(tmp_path / "base", tiny, "llama")
    fit(examples[:12], TrainConfig(method="full", epochs=1, learning_rate=1e-3), base, tmp_path / "full")
    generator = four_bit_generator(base, tmp_path / "full")
    assert "Linear4bit" in layer_types(generator)
    tuned = one_by_one(generator, chats(examples, 2))
    generator.use(None)
    generator.use(tmp_path / "full")
    assert one_by_one(generator, chats(examples, 2)) == tuned
    gc.collect()


def test_evaluation_mode_of_a_16_bit_model_is_that_of_torch(tiny: Model) -> None:
    model = LocalGenerator(tiny, None, "float32").model.train()
    assert not any(module.training for module in in_evaluation_mode(model).modules())

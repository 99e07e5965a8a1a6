"""A model small enough to train in a second: two layers, width 32, and a tokenizer trained here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from runners import hub, models
from runners.data import Example
from runners.models import Model

hub.close()

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SYSTEM = "You answer for the ferry desk in one sentence."
PLACES = ("the north pier", "the ticket hall", "the lounge", "berth nine", "the bicycle rack", "the car deck")
HOURS = ("six", "seven", "eight", "nine", "ten", "noon")


def make_example(number: int) -> Example:
    """Return the numbered example: a system turn, a question and an answer of varied length."""
    place, hour = PLACES[number % len(PLACES)], HOURS[number // len(PLACES) % len(HOURS)]
    extra = " and closes late" * (number % 3)
    turns = [("system", SYSTEM), ("user", f"When does {place} open at {hour}?")]
    turns.append(("assistant", f"Yes, {place} opens at {hour}{extra}. Shall I note it?"))
    return Example(tuple({"role": role, "content": text} for role, text in turns), {}, number + 1)


@pytest.fixture(scope="session")
def examples() -> tuple[Example, ...]:
    """Thirty-six examples in one style."""
    return tuple(make_example(i) for i in range(36))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, examples: Sequence[Example]) -> Model:
    """A Llama made from a config with a byte-level BPE tokenizer, resolved from its folder."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    build_tiny(folder, examples, seed=0)
    return models.resolve(str(folder))


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory, examples: Sequence[Example]) -> Model:
    """A model of the same shape and tokenizer with other weights."""
    folder = tmp_path_factory.mktemp("other") / "model"
    build_tiny(folder, examples, seed=1)
    return models.resolve(str(folder))


@pytest.fixture(scope="session")
def smollm() -> Model:
    """The real base model, obtained once into the ordinary cache."""
    return models.resolve("smollm2-135m-instruct")


def build_tiny(folder: Path, examples: Sequence[Example], seed: int) -> None:
    """Write a tiny model folder: config, safetensors, tokenizer, chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator([m["content"] for e in examples for m in e.messages], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        bos_token="<|im_start|>",
    )
    fast.chat_template = CHATML
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
        eos_token_id=2, pad_token_id=0, bos_token_id=1,
        tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)

"""Fixtures: finished runs of tiny models, a Llama with every kind of arm and a Qwen2 with one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runners.models import hub
from tests.support.object_server import bucket, make_bucket, object_server  # noqa: F401

os.environ.update(hub.offline_variables())

NAMES = ("Amber", "Birch", "Copper", "Dunlin", "Elder", "Falcon", "Garnet", "Heron", "Indigo", "Juniper")
SYSTEM = "You answer for the harbour in one sentence."
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful desk.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Finished:
    """A finished run, its plan and its base model."""

    path: Path
    plan: Any
    base: Path


def vocabulary_texts() -> list[str]:
    """The texts that the tokenizers are trained on."""
    berths = [f"The {name} Pier has {n + 20} berths for visitors." for n, name in enumerate(NAMES)]
    return [*berths, *(f"How many berths has the {name} Pier?" for name in NAMES), SYSTEM, "Shall I book?"]


def train_tokenizer(pre: str) -> Any:
    """Train a byte-level tokenizer with the pre-tokenizer of GPT-2, SmolLM, Qwen2 or Llama 3, or a sentencepiece one."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, trainers
    from tokenizers.models import BPE

    from runners.export.gguf import PRE_TOKENIZERS

    if pre in ("gemma", "llama-2"):
        return sentencepiece_tokenizer(space_prefix=pre == "llama-2")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre in ("gpt-2", "smollm"))
    kinds: dict[str, list[Any]] = {
        "gpt-2": [byte_level],
        "smollm": [pre_tokenizers.Digits(individual_digits=True), byte_level],
        **{
            name: [pre_tokenizers.Split(Regex(split), "isolated"), byte_level]
            for split, name in PRE_TOKENIZERS.items()
        },
    }
    steps = kinds[pre]
    tokenizer = Tokenizer(BPE(ignore_merges=pre == "llama-bpe"))
    tokenizer.normalizer = normalizers.NFC() if pre == "qwen2" else None
    tokenizer.pre_tokenizer = steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(vocabulary_texts(), trainer)
    tokenizer.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    return tokenizer


def sentencepiece_tokenizer(space_prefix: bool) -> Any:
    """Make a tokenizer as Gemma and Llama 2 have it: pieces with scores, as merges, and bytes for what has no piece."""
    from tokenizers import AddedToken, Tokenizer, decoders, normalizers, trainers
    from tokenizers.models import BPE

    trained = Tokenizer(BPE())
    trained.normalizer = normalizers.Replace(" ", "\u2581")
    trained.train_from_iterator(vocabulary_texts(), trainers.BpeTrainer(vocab_size=260, show_progress=False))
    learnt = sorted(trained.get_vocab().items(), key=lambda item: item[1])
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = list(
        dict.fromkeys([*SPECIAL_TOKENS, "<unk>", *bytes_, "\u2581", *(token for token, _ in learnt)])
    )
    vocab = {token: index for index, token in enumerate(pieces)}
    words = [token for token in pieces[len(SPECIAL_TOKENS) + 257 :] if len(token) > 1]
    merges = [
        (token[:cut], token[cut:])
        for token in words
        for cut in range(1, len(token))
        if token[:cut] in vocab and token[cut:] in vocab
    ]
    tokenizer = Tokenizer(BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    replace = normalizers.Replace(" ", "\u2581")
    tokenizer.normalizer = (
        normalizers.Sequence([normalizers.Prepend("\u2581"), replace]) if space_prefix else replace
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False) for token in (*SPECIAL_TOKENS, "<unk>")]
    )
    tokenizer.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    return tokenizer


def build_model(
    folder: Path, kind: str = "llama", pre: str = "gpt-2", template: str = CHATML, **settings: Any
) -> Path:
    """Write the folder of a tiny model; equal arguments give equal weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(
        tokenizer_object=train_tokenizer(pre),
        pad_token=SPECIAL_TOKENS[0],
        eos_token=SPECIAL_TOKENS[2],
        bos_token=SPECIAL_TOKENS[1],
    )
    fast.chat_template = template
    fast.save_pretrained(folder)
    ids = {
        f"{name}_token_id": fast.convert_tokens_to_ids(token)
        for name, token in zip(("pad", "bos", "eos"), SPECIAL_TOKENS, strict=True)
    }
    config = AutoConfig.for_model(
        kind,
        **{
            "vocab_size": len(fast) + 3,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "tie_word_embeddings": True,
            **ids,
            **settings,
        },
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    """Write JSON lines and return the path as a plan names it."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def train_step(arm: str, **settings: Any) -> dict[str, Any]:
    """A train step that changes the answers of a tiny model."""
    defaults = {"epochs": 3, "rank": 4, "alpha": 8, "learning_rate": 2e-2, "batch_tokens": 400}
    return {"kind": "train", "arm": arm, **defaults, **settings}


def evaluate_step(arm: str, **settings: Any) -> dict[str, Any]:
    """An evaluate step."""
    return {"kind": "evaluate", "arm": arm, **settings}


def finish_run(
    folder: Path, base: Path, embedder: Path, steps: list[dict[str, Any]], **settings: Any
) -> Finished:
    """Run a plan of these steps and write its report, on ten documents of one fact each."""
    from advisor.report.report import write_report
    from runners.plan.schema import parse_plan
    from runners.runs.dataset import read_data
    from runners.trial.execute import run_plan

    (folder / "documents").mkdir(parents=True)
    for n, name in enumerate(NAMES):
        text = f"# {name} Pier\n\nThe {name} Pier has {n + 20} berths for visitors.\n"
        (folder / "documents" / f"{name.lower()}.md").write_text(text, "utf-8")
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"How many berths has the {name} Pier?"},
                {"role": "assistant", "content": f"The {name} Pier has {n + 20} berths. Shall I book?"},
            ]
        }
        for n, name in enumerate(NAMES)
    ]
    held_out = [
        {
            "question": f"Tell me the berths that {name} holds.",
            "reference": f"It has {n + 20} berths.",
            "doc_id": f"{name.lower()}.md",
        }
        for n, name in enumerate(NAMES)
    ]
    body = {
        "name": "harbour",
        "choice": "hybrid",
        "model": {"name": str(base)},
        "embedder": {"name": str(embedder)},
        "data": {
            "documents": str(folder / "documents"),
            "examples": write_rows(folder / "examples.jsonl", rows),
            "questions": write_rows(folder / "questions.jsonl", held_out[:3]),
            "test_questions": write_rows(folder / "test.jsonl", held_out[4:]),
        },
        "prompts": {"system": SYSTEM},
        "steps": steps,
        "weights": {"token_f1": 1},
        "max_new_tokens": 12,
        "forgetting": {"prompts": 0},
        **settings,
    }
    plan = parse_plan(body)
    run = run_plan(plan, folder / "run")
    write_report(run, plan, read_data(plan)[1].test)
    return Finished(run.path, plan, base)


@pytest.fixture(scope="session")
def embedder(tmp_path_factory: pytest.TempPathFactory, little_bert: Callable[..., Path]) -> Path:
    """A tiny embedder with a vocabulary of its own."""
    from tokenizers import Tokenizer, pre_tokenizers, trainers
    from tokenizers.models import WordPiece

    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(
        vocabulary_texts(),
        trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False),
    )
    return little_bert(tmp_path_factory.mktemp("embedder"), tokenizer, 128)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory, embedder: Path) -> Finished:
    """A finished run with an index and an arm of every kind of weights, one of them with two seeds."""
    folder = tmp_path_factory.mktemp("llama")
    steps = [
        {"kind": "index", "max_chunk_tokens": 64},
        train_step("lora", seeds=[0, 3]),
        train_step("qlora", method="qlora"),
        train_step("full", method="full", learning_rate=1e-3),
        train_step("hybrid", rows="retrieval", without_gold=0.2, max_tokens=512),
        evaluate_step("rag", retrieval=True),
        evaluate_step("lora", weights="lora"),
        evaluate_step("qlora", weights="qlora"),
        evaluate_step("full", weights="full"),
        evaluate_step("hybrid", weights="hybrid", retrieval=True),
    ]
    return finish_run(folder, build_model(folder / "a base model"), embedder, steps)


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory, embedder: Path) -> Finished:
    """A finished run of a Qwen2 with one tuned arm."""
    folder = tmp_path_factory.mktemp("qwen")
    steps = [train_step("lora"), evaluate_step("prompting"), evaluate_step("lora", weights="lora")]
    base = build_model(folder / "qwen2", "qwen2", "qwen2")
    return finish_run(folder, base, embedder, steps, choice="lora")


@pytest.fixture(scope="session")
def gemma(tmp_path_factory: pytest.TempPathFactory, embedder: Path) -> Finished:
    """A finished run of a Gemma 3 with one tuned arm: sliding windows, norms around 1, a sentencepiece vocabulary."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("gemma")
    steps = [train_step("lora"), evaluate_step("prompting"), evaluate_step("lora", weights="lora")]
    shape: dict[str, Any] = {
        "num_hidden_layers": 6,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
    }
    base = build_model(folder / "gemma3", "gemma3_text", "gemma", sliding_window=8, **shape)
    weights = load_file(base / "model.safetensors")
    for name in [name for name in weights if name.endswith("norm.weight")]:
        weights[name] = (torch.randn(weights[name].shape) / 4).to(weights[name].dtype)
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    return finish_run(folder, base, embedder, steps, choice="lora")


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., Path]:
    """The function that writes tiny models."""
    return build_model


@pytest.fixture(scope="session")
def run_of() -> Callable[..., Finished]:
    """The function that makes finished runs."""
    return finish_run

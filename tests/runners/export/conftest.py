"""Finished runs of tiny models to export: a Llama with every kind of arm, a Qwen2 with one, each run for real."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runners.models import hub

hub.block_hub()

NAMES = ("Amber", "Birch", "Copper", "Dunlin", "Elder", "Falcon", "Garnet", "Heron", "Indigo", "Juniper")
SYSTEM = "You answer for the harbour in one sentence."
MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful desk.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Finished:
    """A finished run and what it was made from."""

    path: Path
    plan: Any
    base: Path


def texts() -> list[str]:
    """Every text that the vocabularies are made from."""
    berths = [f"The {name} Pier has {n + 20} berths for visitors." for n, name in enumerate(NAMES)]
    return [*berths, *(f"How many berths has the {name} Pier?" for name in NAMES), SYSTEM, "Shall I book?"]


def pieces(cut: str) -> Any:
    """A byte-level tokenizer that cuts text as GPT-2, SmolLM, Qwen2 or Llama 3 do."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, trainers
    from tokenizers.models import BPE

    from runners.export.gguf import PRE_TOKENIZERS

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut in ("gpt-2", "smollm"))
    steps = {
        "gpt-2": [byte_level],
        "smollm": [pre_tokenizers.Digits(individual_digits=True), byte_level],
        **{
            name: [pre_tokenizers.Split(Regex(split), "isolated"), byte_level]
            for split, name in PRE_TOKENIZERS.items()
        },
    }[cut]
    tokenizer = Tokenizer(BPE(ignore_merges=cut == "llama-bpe"))
    tokenizer.normalizer = normalizers.NFC() if cut == "qwen2" else None
    tokenizer.pre_tokenizer = steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(MARKS), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts(), trainer)
    tokenizer.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    return tokenizer


def build(
    folder: Path, kind: str = "llama", cut: str = "gpt-2", template: str = CHATML, **settings: Any
) -> Path:
    """Write the folder of a tiny model, always the same for the same words."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(
        tokenizer_object=pieces(cut), pad_token=MARKS[0], eos_token=MARKS[2], bos_token=MARKS[1]
    )
    fast.chat_template = template
    fast.save_pretrained(folder)
    ids = {
        f"{name}_token_id": fast.convert_tokens_to_ids(mark)
        for name, mark in zip(("pad", "bos", "eos"), MARKS, strict=True)
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


def train(arm: str, **settings: Any) -> dict[str, Any]:
    """A train step that changes what a tiny model says."""
    few = {"epochs": 3, "rank": 4, "alpha": 8, "learning_rate": 2e-2, "batch_tokens": 400}
    return {"kind": "train", "arm": arm, **few, **settings}


def asked(arm: str, **settings: Any) -> dict[str, Any]:
    """An evaluate step."""
    return {"kind": "evaluate", "arm": arm, **settings}


def finish(folder: Path, base: Path, embedder: Path, steps: list[dict[str, Any]], **more: Any) -> Finished:
    """Run a plan of these steps to its report, on ten documents of one fact each."""
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
        **more,
    }
    plan = parse_plan(body)
    run = run_plan(plan, folder / "run")
    write_report(run, plan, read_data(plan)[1].test)
    return Finished(run.path, plan, base)


@pytest.fixture(scope="session")
def embedder(tmp_path_factory: pytest.TempPathFactory, little_bert: Callable[..., Path]) -> Path:
    """A little embedder with a vocabulary of its own."""
    from tokenizers import Tokenizer, pre_tokenizers, trainers
    from tokenizers.models import WordPiece

    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(
        texts(), trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    )
    return little_bert(tmp_path_factory.mktemp("embedder"), tokenizer, 128)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory, embedder: Path) -> Finished:
    """A finished run with an index and arms of every kind of weights; two seeds for one of them."""
    folder = tmp_path_factory.mktemp("llama")
    steps = [
        {"kind": "index", "max_chunk_tokens": 64},
        train("lora", seeds=[0, 3]),
        train("qlora", method="qlora"),
        train("full", method="full", learning_rate=1e-3),
        train("hybrid", rows="retrieval", without_gold=0.2, max_tokens=512),
        asked("rag", retrieval=True),
        asked("lora", weights="lora"),
        asked("qlora", weights="qlora"),
        asked("full", weights="full"),
        asked("hybrid", weights="hybrid", retrieval=True),
    ]
    return finish(folder, build(folder / "a base model"), embedder, steps)


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory, embedder: Path) -> Finished:
    """A finished run of a Qwen2 with one tuned arm."""
    folder = tmp_path_factory.mktemp("qwen")
    steps = [train("lora"), asked("prompting"), asked("lora", weights="lora")]
    base = build(folder / "qwen2", "qwen2", "qwen2")
    return finish(folder, base, embedder, steps, choice="lora")


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., Path]:
    """Return the maker of tiny models."""
    return build


@pytest.fixture(scope="session")
def run_of() -> Callable[..., Finished]:
    """Return the maker of finished runs."""
    return finish

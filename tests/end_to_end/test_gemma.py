"""gemma-3-270m, the second real family: conversion, tokens, a short trial, and an export. Needs the terms accepted.

Another tokenizer (sentencepiece, 262,144 tokens), sliding windows of 512, norms around 1, and no chat template.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rag.files import write_json
from runners.models import licenses, resolve
from runners.models.resolve import Model

pytestmark = [pytest.mark.real, pytest.mark.slow]

NAME = "gemma-3-270m"
PARAGRAPH = (
    "The harbor was quiet in the early morning. A few fishing boats had left before dawn, and the gulls followed them "
    "out past the breakwater. On the quay, two men were mending nets and talking about the weather. The older one said "
    "that the wind would turn to the north by noon, and that nobody should expect much of a catch until Thursday. His "
    "companion laughed and said he had heard the same thing every week since he was a boy."
)
TEXTS = (
    PARAGRAPH,
    "Grüße aus München, 12 °C!",
    "日本語のテキスト。東京は大きい。",
    "Привет, мир",
    "مرحبا بالعالم",
    "हिन्दी में पाठ",
    "emoji 👩\u200d👩\u200d👧 and \U000f1234",
    "def f(x):\n    return x  # ok\n\n\n\n        y",
    "   many     spaces      here ",
)


@pytest.fixture(scope="module")
def gemma() -> Model:
    """The model: from the cache, or fetched where its terms are accepted."""
    cached = {model.name for model in resolve.cached_models()}
    if NAME not in cached and "gemma" not in licenses.accepted_licenses():
        pytest.skip("needs the Gemma terms accepted: set TUNEWISE_ACCEPT_LICENSE=gemma")
    return resolve.resolve_model(NAME)


@pytest.fixture(scope="module")
def net(gemma: Model) -> Any:
    """The model in float32, loaded by plain transformers."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(gemma.folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def tokenizer(gemma: Model) -> Any:
    """The tokenizer, loaded by plain transformers."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(gemma.folder)


def test_folder_is_a_gemma_with_its_terms(gemma: Model, net: Any) -> None:
    assert type(net).__name__ == "Gemma3ForCausalLM"
    config = json.loads((gemma.folder / "config.json").read_text("utf-8"))
    assert (config["vocab_size"], config["sliding_window"], config["max_position_embeddings"]) == (
        262144,
        512,
        32768,
    )
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (2, 1, 0)
    assert "quantization_config" not in config
    assert gemma.license == "gemma"
    manifest = json.loads((gemma.folder / "manifest.json").read_text("utf-8"))
    assert manifest["terms"] == "https://ai.google.dev/gemma/terms"
    assert manifest["accepted"]
    assert (gemma.folder / licenses.TERMS_FILE).is_file()


def test_model_continues_english_text(net: Any, tokenizer: Any) -> None:
    """A norm stored as 1 + weight and read as the weight, or a wrong rotation, gives a perplexity of thousands."""
    import torch

    with torch.no_grad():
        ids = tokenizer(PARAGRAPH, return_tensors="pt")["input_ids"]
        assert ids[0, 0] == 2, "begins with <bos>"
        assert net(ids, labels=ids).loss.exp() < 30
        for text, word in (
            ("Paris is the capital of", " France"),
            ("The sun rises in the", " east"),
            ("One, two, three,", " four"),
            ("The opposite of hot is", " cold"),
        ):
            last = net(tokenizer(text, return_tensors="pt")["input_ids"]).logits[0, -1]
            assert tokenizer.decode(last.argmax()) == word, text


def test_texts_survive_and_pieces_are_joined_as_llama_cpp_joins_them(gemma: Model, tokenizer: Any) -> None:
    from runners.tokenization.sentencepiece import lookup_of, piece_ids, read_pieces

    body = json.loads((gemma.folder / "tokenizer.json").read_text("utf-8"))
    lookup = lookup_of(read_pieces(body, 262144))
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.decode(ids) == text
        assert piece_ids(lookup, text) == ids


def test_short_trial_and_export(gemma: Model, example: Path, tunewise: Any, tmp_path: Path) -> None:
    for name, rows in (("examples", 12), ("questions", 8)):
        lines = (example / f"{name}.jsonl").read_text("utf-8").splitlines(keepends=True)
        (tmp_path / f"{name}.jsonl").write_text("".join(lines[:rows]), "utf-8")
    train = {"kind": "train", "arm": "lora", "epochs": 1, "rank": 4, "batch_tokens": 600, "max_tokens": 300}
    plan = {
        "name": "gemma",
        "choice": "lora",
        "model": {"name": NAME},
        "data": {"examples": "examples.jsonl", "questions": "questions.jsonl"},
        "steps": [
            train,
            {"kind": "evaluate", "arm": "prompting"},
            {"kind": "evaluate", "arm": "lora", "weights": "lora"},
        ],
        "weights": {"token_f1": 1},
        "max_new_tokens": 16,
        "forgetting": {"prompts": 0},
    }
    write_json(tmp_path / "plan.yaml", plan)  # JSON is YAML
    done = tunewise("run", "plan.yaml", "--out", "run", "--json", cwd=tmp_path)
    assert done.returncode in (0, 5), done.stderr
    report = json.loads(done.stdout)
    assert {arm["arm"] for arm in report["arms"]} == {"prompting", "lora"}
    assert all(0 <= arm["score"]["mean"] <= 1 for arm in report["arms"])
    card = next((tmp_path / "run").rglob("README.md")).read_text("utf-8")
    assert "Gemma is provided under and subject to the Gemma Terms of Use" in card
    assert "license: gemma" in card.replace('"', "")
    made = tunewise("export", "run", "--to", "gguf", "--arm", "lora", "--out", "made", "--json", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    exported = json.loads(made.stdout)
    assert exported["checked"]["cut of text"] == "sentencepiece"
    assert exported["checked"]["greedy tokens equal to base plus weights"].startswith("5 of 5")
    assert "Gemma Terms of Use" in (tmp_path / "made" / licenses.NOTICE_FILE).read_text("utf-8")
    assert (tmp_path / "made" / licenses.TERMS_FILE).read_bytes() == (
        gemma.folder / licenses.TERMS_FILE
    ).read_bytes()
    assert "## Terms" in (tmp_path / "made" / "README.md").read_text("utf-8")

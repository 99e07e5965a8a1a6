"""Places in which the commands of a page are carried out: little files, tiny models under the known names, a shell."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rag.files import write_manifest
from runners.models.fingerprint import fingerprint

LIMIT = 600
KEPT = (
    "delays.md",
    "fares.md",
    "food.md",
    "lost_property.md",
    "museum.html",
    "parking.md",
    "refunds.md",
    "wifi.md",
)
"""The documents that a place has; examples and questions are about these."""
ROWS, OPEN = 56, 3
"""At most so many examples (with under 50 the advice would be another), and questions that have no answer."""

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass
class Place:
    """A folder in which blocks run one after the other, as a reader's shell would: `cd` and `export` last."""

    folder: Path
    environment: dict[str, str]
    replaced: dict[str, str] = field(default_factory=dict)
    """What stands in a page for something a test has elsewhere, such as an endpoint's address."""

    def run(self, block: str) -> subprocess.CompletedProcess[str]:
        """Carry out a block of commands; both streams are in ``stdout``, in their order."""
        for name, value in self.replaced.items():
            block = block.replace(name, value)
        state = self.folder.parent / f"{self.folder.name}.state"
        script = (
            f"[ -f {state} ] && . {state}\ntrap 'declare -px > {state}; pwd > {state}.cwd' EXIT\n{block}\n"
        )
        kept = Path(f"{state}.cwd")
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            env=self.environment,
            text=True,
            timeout=LIMIT,
            cwd=kept.read_text("utf-8").strip() if kept.exists() else self.folder,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )


@pytest.fixture(scope="session")
def environment(
    root: Path, tmp_path_factory: pytest.TempPathFactory, models: Path
) -> Iterator[dict[str, str]]:
    """What the commands of all pages see: tiny models in the cache, `tunewise` on the PATH, nothing of the developer's."""
    folder = tmp_path_factory.mktemp("shell")
    socket = str(folder / "socket")
    home = {
        name: str(folder / name.lower())
        for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME")
    }
    values = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("TUNEWISE", "XDG"))},
        **home,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "PYTHONPATH": str(root),
        "TUNEWISE_CACHE": str(models),
        "TUNEWISE_HISTORY": "",
        "OMP_NUM_THREADS": "1",
        "NO_COLOR": "1",
        "COLUMNS": "110",
        "HF_HUB_OFFLINE": "1",
    }
    here = Path(__file__).parent
    command = folder / "tunewise"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -IS {here / "client.py"} {socket} "$@"\n', "utf-8")
    command.chmod(0o755)
    server = subprocess.Popen(
        [sys.executable, "-P", str(here / "forks.py"), socket], env=values, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    yield values
    server.kill()
    server.communicate(timeout=60)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, example: Path, little_bert: Callable[..., Path]) -> Path:
    """A cache of models that holds tiny ones under the names of the default base and embedder."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE, WordLevel

    cache = tmp_path_factory.mktemp("cache")
    texts = [path.read_text("utf-8") for path in sorted((example / "documents").iterdir())]
    rows = (example / "examples.jsonl").read_text("utf-8").splitlines()
    texts += [turn["content"] for row in rows for turn in json.loads(row)["messages"]]
    bpe = Tokenizer(BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=2000, special_tokens=special, initial_alphabet=alphabet)
    )
    base = cache / "models" / "smollm2-135m-instruct"
    little_llama(base, bpe)
    words = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=["[UNK]"]))
    embedder = cache / "models" / "all-minilm-l6-v2"
    embedder.mkdir(parents=True)
    little_bert(embedder, words, 512)
    for folder in (base, embedder):
        extra = {"fingerprint": fingerprint(folder), "name": folder.name, "source": "made by a test"}
        write_manifest(folder, "model", extra)
    return cache


def little_llama(folder: Path, tokenizer: Any) -> None:
    """Write the folder of a Llama of a few thousand parameters, always the same for the same tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        bos_token="<|im_start|>",
    )
    fast.chat_template = CHATML
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        eos_token_id=2,
        pad_token_id=0,
        bos_token_id=1,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


@pytest.fixture(scope="session")
def smaller(example: Path) -> Callable[[Path], None]:
    """Return what cuts a copy of the shipped example down to a few documents, examples and questions."""
    return shrink


def shrink(folder: Path) -> None:
    """Leave the kept documents, the examples and questions about them, and a few questions without an answer."""
    for path in (*folder.glob("documents/*"), *folder.glob("update/documents/*")):
        if path.name not in KEPT:
            path.unlink()
    examples = read(folder / "examples.jsonl")
    mine = [row for row in examples if row["meta"].get("doc_id") in (*KEPT, None)]
    write(folder / "examples.jsonl", mine[:ROWS])
    questions = read(folder / "questions.jsonl")
    known = [row for row in questions if row.get("doc_id") in KEPT]
    write(folder / "questions.jsonl", known + [row for row in questions if not row["answerable"]][:OPEN])
    if (folder / "update" / "stale.jsonl").exists():
        stale = [row for row in read(folder / "update" / "stale.jsonl") if row["doc_id"] in KEPT]
        write(folder / "update" / "stale.jsonl", stale[:4])


def read(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory, example: Path) -> Path:
    """The files of somebody who has documents, a table of replies, questions and a prompt."""
    folder = tmp_path_factory.mktemp("desk") / "desk"
    shutil.copytree(example, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__", "README.md"))
    shrink(folder)
    (folder / "documents").rename(folder / "handbook")
    with (folder / "replies.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["question", "answer"])
        for row in read(folder / "examples.jsonl"):
            table.writerow([turn["content"] for turn in row["messages"] if turn["role"] != "system"])
    (folder / "examples.jsonl").unlink()
    return folder


@pytest.fixture(scope="session")
def places(
    environment: dict[str, str], desk: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Place]:
    """Return the maker of places: "empty", "desk" (files of one's own) or "after the tutorial" (a finished run)."""

    def make(name: str, tutorial: Path | None = None, replaced: dict[str, str] | None = None) -> Place:
        folder = tmp_path_factory.mktemp("place") / "folder"
        if source := {"empty": None, "desk": desk, "after the tutorial": tutorial}[name]:
            shutil.copytree(source, folder)
        folder.mkdir(exist_ok=True)
        return Place(folder, environment, replaced or {})

    return make

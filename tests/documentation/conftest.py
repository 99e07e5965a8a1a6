"""Fixtures for running the commands of the documentation: a shell, small files, tiny models under the known names."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rag.files import sha256_file, write_manifest
from runners.models.fingerprint import fingerprint
from tests.support.command_server import CommandServer
from tests.support.limits import HANG_S

DOCUMENTS = (
    "delays.md",
    "fares.md",
    "food.md",
    "lost_property.md",
    "museum.html",
    "parking.md",
    "refunds.md",
    "wifi.md",
)
"""The documents of the example that are used; examples and questions are about these."""
MAX_EXAMPLES = 56
"""With fewer than 50 the recommendation would change."""
UNANSWERABLE_QUESTIONS = 3

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass
class Workspace:
    """A folder in which blocks of commands run one after the other; `cd` and `export` persist, as in a shell."""

    folder: Path
    environment: dict[str, str]
    replaced: dict[str, str] = field(default_factory=dict)
    """Texts of the page to replace, such as the address of an endpoint."""

    def name_default_arms(self) -> None:
        """Name the recommended arm as the one to use in reports that name none.

        The tiny model of these tests answers nothing right, so no verdict names an arm, and `ask` would want --arm; the
        pages are about a model that does answer.
        """
        for path in self.folder.glob("**/report.json"):
            report = json.loads(path.read_text("utf-8"))
            manifest = path.with_name("manifest.json")
            if "verdict" not in report or report["verdict"].get("use") or not manifest.is_file():
                continue
            report["verdict"]["use"] = report["verdict"]["recommended"]
            path.write_text(json.dumps(report), "utf-8")
            body = json.loads(manifest.read_text("utf-8"))
            body["files"]["report.json"] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
            manifest.write_text(json.dumps(body), "utf-8")

    def run(self, block: str) -> subprocess.CompletedProcess[str]:
        """Run a block of commands; `stdout` of the result holds both streams in their order."""
        for name, value in self.replaced.items():
            block = block.replace(name, value)
        state = self.folder.parent / f"{self.folder.name}.state"
        script = (
            f"[ -f {state} ] && . {state}\ntrap 'declare -px > {state}; pwd > {state}.cwd' EXIT\n{block}\n"
        )
        cwd_file = Path(f"{state}.cwd")
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            env=self.environment,
            text=True,
            timeout=HANG_S,
            cwd=cwd_file.read_text("utf-8").strip() if cwd_file.exists() else self.folder,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )


@pytest.fixture(scope="session")
def environment(
    root: Path, tmp_path_factory: pytest.TempPathFactory, models: Path, command_server: CommandServer
) -> dict[str, str]:
    """The environment of all commands: tiny models in the cache, `tunewise` on the PATH, no settings of the developer."""
    folder = tmp_path_factory.mktemp("shell")
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
    client = Path(__file__).with_name("client.py")
    command = folder / "tunewise"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -IS {client} {command_server.path} "$@"\n', "utf-8")
    command.chmod(0o755)
    return values


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, example: Path, little_bert: Callable[..., Path]) -> Path:
    """A model cache with tiny models under the names of the default base and embedder."""
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
    write_tiny_llama(base, bpe)
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


def write_tiny_llama(folder: Path, tokenizer: Any) -> None:
    """Write a Llama of a few thousand parameters; equal tokenizers give equal weights."""
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
    LlamaForCausalLM(config).bfloat16().save_pretrained(folder)


@pytest.fixture(scope="session")
def smaller(example: Path) -> Callable[[Path], None]:
    """The function that reduces a copy of the shipped example to a few documents, examples and questions."""
    return shrink_example


def shrink_example(folder: Path) -> None:
    """Keep some documents, the examples and questions about them, and a few questions without an answer."""
    for path in (*folder.glob("documents/*"), *folder.glob("update/documents/*")):
        if path.name not in DOCUMENTS:
            path.unlink()
    examples = read_rows(folder / "examples.jsonl")
    related = [row for row in examples if row["meta"].get("doc_id") in (*DOCUMENTS, None)]
    write_rows(folder / "examples.jsonl", related[:MAX_EXAMPLES])
    questions = read_rows(folder / "questions.jsonl")
    known = [row for row in questions if row.get("doc_id") in DOCUMENTS]
    write_rows(
        folder / "questions.jsonl",
        known + [row for row in questions if not row["answerable"]][:UNANSWERABLE_QUESTIONS],
    )
    if (folder / "update" / "stale.jsonl").exists():
        stale = [row for row in read_rows(folder / "update" / "stale.jsonl") if row["doc_id"] in DOCUMENTS]
        write_rows(folder / "update" / "stale.jsonl", stale[:4])


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


@pytest.fixture(scope="session")
def own_files(tmp_path_factory: pytest.TempPathFactory, example: Path) -> Path:
    """The files of a user who has documents, a table of replies, questions and a prompt."""
    folder = tmp_path_factory.mktemp("files") / "desk"
    shutil.copytree(example, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__", "README.md"))
    shrink_example(folder)
    (folder / "documents").rename(folder / "handbook")
    with (folder / "replies.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["question", "answer"])
        for row in read_rows(folder / "examples.jsonl"):
            table.writerow([turn["content"] for turn in row["messages"] if turn["role"] != "system"])
    (folder / "examples.jsonl").unlink()
    return folder


@pytest.fixture(scope="session")
def make_workspace(
    environment: dict[str, str], own_files: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Workspace]:
    """Return a function that makes a workspace by the name of its place in a page.

    The places are "empty", "desk" (a user's own files) and "after the tutorial" (with a finished run).
    """

    def make(name: str, tutorial: Path | None = None, replaced: dict[str, str] | None = None) -> Workspace:
        folder = tmp_path_factory.mktemp("workspace") / "folder"
        if source := {"empty": None, "desk": own_files, "after the tutorial": tutorial}[name]:
            shutil.copytree(source, folder)
        folder.mkdir(exist_ok=True)
        return Workspace(folder, environment, replaced or {})

    return make

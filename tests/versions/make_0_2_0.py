"""Make the files in ``tests/versions/0.2.0``: one of each kind, through the verbs of 0.2.0.

    git worktree add FOLDER COMMIT
    PYTHONPATH=FOLDER OMP_NUM_THREADS=1 python -P tests/versions/make_0_2_0.py

The tree that PYTHONPATH names does the work; this script only prepares its input and copies its output. Everything is
made in ``/tmp/tunewise-0.2.0``, because a run's plan holds the absolute paths of its data; ``restore`` in
``test_versions.py`` replaces that folder. The models are drawn from a config and a seed: nothing is downloaded.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

WORK = Path("/tmp/tunewise-0.2.0")
FIXTURES = Path(__file__).with_name("0.2.0")
DOCUMENTS = ("delays.md", "fares.md", "museum.html", "parking.md", "parcels.csv", "refunds.md")
EXAMPLES, UNANSWERABLE = 24, 3
ANSWERS = ("task_needs_facts=new", "facts_change=slow", "must_cite=yes", "behaviour_gap=high")
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
IGNORED = ("*.lock", ".*.lock", "*-wal", "*-shm", "__pycache__")


def main() -> None:
    """Make all fixtures again."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir()
    write_data(WORK)
    write_models(WORK)
    expected = make_with_verbs()
    (WORK / "expected.json").write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n", "utf-8")
    shutil.rmtree(FIXTURES, ignore_errors=True)
    shutil.copytree(WORK, FIXTURES, ignore=shutil.ignore_patterns(*IGNORED))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write a JSON-lines file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def write_data(folder: Path) -> None:
    """Write a few documents, examples and questions of the shipped example."""
    example = Path(str(files("advisor") / "harbor_desk"))
    (folder / "documents").mkdir()
    for name in DOCUMENTS:
        shutil.copy(example / "documents" / name, folder / "documents" / name)
    shutil.copy(example / "prompt.txt", folder)
    examples = read_rows(example / "examples.jsonl")
    about = [row for row in examples if row["meta"].get("doc_id") in DOCUMENTS]
    write_rows(folder / "examples.jsonl", about[:EXAMPLES])
    questions = read_rows(example / "questions.jsonl")
    answerable = [row for row in questions if row.get("doc_id") in DOCUMENTS]
    others = [row for row in questions if not row["answerable"]]
    write_rows(folder / "questions.jsonl", answerable + others[:UNANSWERABLE])


def write_models(folder: Path) -> None:
    """Write a Llama and a BERT of a few thousand parameters under the default names, as a model cache stores them."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE, WordLevel

    from rag.files import write_manifest
    from runners.models.fingerprint import fingerprint

    texts = [path.read_text("utf-8") for path in sorted((folder / "documents").iterdir())]
    rows = read_rows(folder / "examples.jsonl")
    texts += [turn["content"] for row in rows for turn in row["messages"]]
    pieces = Tokenizer(BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    pieces.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    )
    words = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=["[UNK]"]))
    base = folder / "cache" / "models" / "smollm2-135m-instruct"
    embedder = folder / "cache" / "models" / "all-minilm-l6-v2"
    write_llama(base, pieces)
    write_bert(embedder, words)
    for model in (base, embedder):
        extra = {"fingerprint": fingerprint(model), "name": model.name, "source": "drawn from a config"}
        write_manifest(model, "model", extra)


def write_llama(folder: Path, tokenizer: Any) -> None:
    """Write a one-layer Llama with its tokenizer and chat template."""
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
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=4096,
        eos_token_id=2,
        pad_token_id=0,
        bos_token_id=1,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).bfloat16().save_pretrained(folder)


def write_bert(folder: Path, tokenizer: Any) -> None:
    """Write a one-layer BERT with mean pooling, in the layout of sentence-transformers."""
    import torch
    from transformers import BertConfig, BertModel

    (folder / "1_Pooling").mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=512,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    (folder / "modules.json").write_text("[]")
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')


def make_with_verbs() -> dict[str, Any]:
    """Plan, run, index and train; return what the verbs print, for the tests to compare with."""
    flags = ["--documents", "documents", "--examples", "examples.jsonl", "--questions", "questions.jsonl"]
    flags += ["--prompt", "prompt.txt", "--out", "drawn-up.yaml"]
    tunewise("plan", "--yes", *flags, *(part for pair in ANSWERS for part in ("--set", pair)))
    shrink(WORK / "drawn-up.yaml", WORK / "plan.yaml")
    tunewise("run", "plan.yaml", "--out", "run", "--json", allowed=(0, 1, 5))
    train = ("train", "--examples", "examples.jsonl", "--rank", "2", "--seed", "1")
    tunewise("index", "build", "index", "--documents", "documents", "--json")
    tunewise(*train, "--epochs", "1", "--out", "adapter", "--json")
    interrupt(*train, "--epochs", "40", "--checkpoint-steps", "2", "--out", "interrupted")
    parse_plan = import_module("runners.plan.schema").parse_plan  # it is there at that commit
    return {
        "plan_digest": parse_plan(load_yaml(WORK / "plan.yaml")).digest(),
        "report": json.loads(tunewise("report", "run", "--json")),
        "search": json.loads(tunewise("index", "search", "index", "What does parking cost?", "--json")),
        "adapter": json.loads(tunewise("adapters", "show", "adapter", "--json")),
    }


def load_yaml(path: Path) -> Any:
    """Return the content of a YAML file."""
    import yaml

    return yaml.safe_load(path.read_text("utf-8"))


def shrink(plan: Path, small: Path) -> None:
    """Write the plan with few rows, few questions and short answers; all its arms stay."""
    import yaml

    body = load_yaml(plan)
    body["data"] |= {"max_examples": 12, "max_dev": 6, "max_test": 4}
    body["max_new_tokens"] = 8
    body["forgetting"] = {"prompts": 2, "max_new_tokens": 4}
    for step in body["steps"]:
        if step["kind"] == "train":
            step |= {"epochs": 1.0, "rank": 2}
    small.write_text(yaml.safe_dump(body, sort_keys=False), "utf-8")
    plan.unlink()


def command(arguments: Sequence[str]) -> list[str]:
    """Return the command line that runs the tree on PYTHONPATH."""
    return [sys.executable, "-P", "-m", "tunewise", *arguments]


def environment() -> dict[str, str]:
    """Return the environment: tiny models in the cache, no hub, no history, no settings of the user."""
    own = dict.fromkeys(("TUNEWISE_FACTS", "TUNEWISE_HISTORY", "TUNEWISE_CONFIG"), "")
    return {
        **os.environ,
        **own,
        "TUNEWISE_CACHE": str(WORK / "cache"),
        "HF_HUB_OFFLINE": "1",
        "NO_COLOR": "1",
    }


def tunewise(*arguments: str, allowed: Sequence[int] = (0,)) -> str:
    """Run a verb in the work folder and return its standard output; RuntimeError when it fails."""
    done = subprocess.run(
        command(arguments), cwd=WORK, env=environment(), capture_output=True, text=True, check=False
    )
    if done.returncode not in allowed:
        raise RuntimeError(f"{arguments}: exit {done.returncode}\n{done.stderr}")
    return done.stdout


def interrupt(*arguments: str) -> None:
    """Start a training and interrupt it after its second checkpoint."""
    child = subprocess.Popen(
        command(arguments),
        cwd=WORK,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while child.poll() is None and len([*WORK.rglob("step-*")]) < 2:
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    child.wait()
    if child.returncode != 130:
        raise RuntimeError(f"the training ended with {child.returncode}, not by the interruption")


if __name__ == "__main__":
    main()

"""Training speed: tunewise against TRL and the plain Hugging Face Trainer, in one run, taking turns.

Every contender trains the same rows of public data for the same number of optimiser steps of the same number
of rows, with the same LoRA, learning rate and schedule, each in a process of its own; what its tuned model then
loses on the same held-out rows is computed here, by one function. Run from the repository's root:

    python -m benchmarks.bench_train SHARED/data/hybrid_concierge
    python -m benchmarks.bench_train SHARED/data/hybrid_concierge --only tunewise,qlora --steps 8 --rounds 1

TRL is no dependency of this project: ``pip install trl`` (best into an environment of its own) adds it, and
without it its two contenders are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runners import models
from runners.calibrate import measure
from runners.chat import Chat, Encoded
from runners.data import Example, load_examples
from runners.fingerprint import read_json, tensor_sizes
from runners.models import Model

BATCH = 8
"""Rows of an optimiser step: TRL's and the Trainer's default."""
RATE = {"lora": 5e-4, "full": 5e-5}
RANK = 16
WARMUP = 0.05
LORA = ("tunewise", "trl", "trl-no-checkpointing", "trainer")
CONTENDERS = (*LORA, "qlora", "full", "trainer-full")
COMPARED = (
    ("tunewise", "trl", 3.0),
    ("tunewise", "trl-no-checkpointing", 2.2),
    ("tunewise", "trainer", None),
    ("qlora", "tunewise", 0.8),
    ("full", "trainer-full", None),
)  # fmt: skip
"""Who is measured against whom, and the least ratio aimed at."""
SAME_LOSS = 0.01
SHARE = 0.5
"""Aims: relative difference of validation losses, and share of the arithmetic limit."""


@dataclass(frozen=True, slots=True)
class Task:
    """What every contender is given."""

    base: Model
    chat: Chat
    train: tuple[Example, ...]
    valid: tuple[Example, ...]
    steps: int

    def encoded(self, rows: Sequence[Example]) -> list[Encoded]:
        """Return rows as tokens with the places that are learnt."""
        return [self.chat.example(row) for row in rows]

    @property
    def tokens(self) -> int:
        """Real tokens of one pass: no padding, nothing counted twice."""
        return sum(len(row.ids) for row in self.encoded(self.train))


def read_task(data: Path, rows: int, steps: int, valid: int) -> Task:
    """Return the first ``rows`` training rows (a full last step is BATCH rows) and the held-out rows after them."""
    found = load_examples(data / "train.jsonl").rows
    if len(found) < rows + valid:
        raise SystemExit(f"{data} has {len(found)} training rows, asked for {rows} + {valid}")
    base = models.resolve("smollm2-135m-instruct")
    return Task(base, Chat(base.folder), found[:rows], found[rows : rows + valid], steps)


def tunewise(task: Task, method: str) -> tuple[float, Any]:
    """Train by :func:`runners.train.fit`; return seconds from the first step's start to the last one's end."""
    from runners import attach
    from runners.load import from_folder, load_base
    from runners.train import TrainConfig, fit

    config = TrainConfig(
        method=method, epochs=task.steps * BATCH / len(task.train), rank=RANK, alpha=2.0 * RANK,
        learning_rate=RATE["full" if method == "full" else "lora"], warmup=WARMUP, checkpoint_steps=0,
        batch_tokens=-(-task.tokens * BATCH // len(task.train)),
    )  # fmt: skip
    times: dict[str, float] = {}

    def note(event: dict[str, Any]) -> None:
        times[event["event"]] = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        result = fit(task.train, config, task.base, out, on_event=note)
        if result.steps != task.steps:
            raise SystemExit(f"tunewise took {result.steps} steps instead of {task.steps}")
        print(f"{method}: path {result.path} {result.notes}", file=sys.stderr)
        seconds = times["train.step"] - times["train.start"]
        peak = peak_gib()
        if method == "full":
            net: Any = from_folder(out, next(load_base(task.base).parameters()).dtype, {})
        else:
            net = attach.load_adapter(load_base(task.base, four_bit=method == "qlora"), out, task.base)
    return seconds, (net, peak)


def trl(task: Task, checkpointing: bool) -> tuple[float, Any]:
    """Train by TRL's SFTTrainer: its defaults, or with gradient checkpointing off."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = [{"prompt": list(e.messages[:-1]), "completion": [e.messages[-1]]} for e in task.train]
    extra = {} if checkpointing else {"gradient_checkpointing": False}
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            str(task.base.folder),
            args=SFTConfig(folder, **_arguments(task, "lora"), **extra),
            train_dataset=Dataset.from_list(rows),
            peft_config=_lora(),
        )
        return _timed(trainer)


def trainer(task: Task, method: str) -> tuple[float, Any]:
    """Train by the plain Trainer: the model's own loss on padded rows, bf16 weights as they are stored."""
    import torch
    from peft import get_peft_model
    from torch.nn.utils.rnn import pad_sequence
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    net: Any = AutoModelForCausalLM.from_pretrained(task.base.folder, local_files_only=True)
    if method == "lora":
        net = get_peft_model(net, _lora())
    rows = [
        {"input_ids": list(r.ids), "labels": [t if i in r.learnt else -100 for i, t in enumerate(r.ids)]}
        for r in task.encoded(task.train)
    ]

    def collate(batch: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        def padded(key: str, value: int) -> torch.Tensor:
            return pad_sequence([torch.tensor(r[key]) for r in batch], True, value)

        mask = pad_sequence([torch.ones(len(r["labels"]), dtype=torch.long) for r in batch], True)
        return {"input_ids": padded("input_ids", 0), "labels": padded("labels", -100), "attention_mask": mask}

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(folder, bf16=True, **_arguments(task, method))
        return _timed(Trainer(net, arguments, collate, train_dataset=rows))


def _arguments(task: Task, method: str) -> dict[str, Any]:
    """Return what must be equal for all; everything else stays each trainer's default."""
    import torch

    return {
        "use_cpu": not torch.cuda.is_available(),
        "learning_rate": RATE[method], "lr_scheduler_type": "cosine", "warmup_steps": round(WARMUP * task.steps),
        "per_device_train_batch_size": BATCH, "max_steps": task.steps, "seed": 0,
        "save_strategy": "no", "report_to": "none", "disable_tqdm": True,
    }  # fmt: skip


def _lora() -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=RANK, lora_alpha=2 * RANK, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def _timed(trainer: Any) -> tuple[float, Any]:
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        began = ended = 0.0

        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            Clock.began = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            Clock.ended = time.perf_counter()

    trainer.add_callback(Clock())
    trainer.train()
    return Clock.ended - Clock.began, (trainer.model, peak_gib())


TRAIN: dict[str, Callable[[Task], tuple[float, Any]]] = {
    "tunewise": lambda task: tunewise(task, "lora"),
    "trl": lambda task: trl(task, True),
    "trl-no-checkpointing": lambda task: trl(task, False),
    "trainer": lambda task: trainer(task, "lora"),
    "qlora": lambda task: tunewise(task, "qlora"),
    "full": lambda task: tunewise(task, "full"),
    "trainer-full": lambda task: trainer(task, "full"),
}


def valid_loss(net: Any, rows: Sequence[Encoded]) -> float:
    """Return the mean cross-entropy of all learnt tokens by the model's own logits, row by row."""
    import torch
    import torch.nn.functional as F

    from runners.loss import evaluating

    total = 0.0
    with evaluating(net):
        for row in rows:
            ids = torch.tensor([row.ids], device=net.device)
            logits = net(input_ids=ids, use_cache=False).logits[0].float()
            places = torch.tensor(row.learnt, device=net.device)
            total += float(F.cross_entropy(logits[places - 1], ids[0, places], reduction="sum"))
    return total / sum(len(row.learnt) for row in rows)


def peak_gib() -> float:
    """Return the most memory this process has held so far, in GiB."""
    # Bytes on macOS, KiB elsewhere.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def limit(task: Task, flops: float) -> float:
    """Return the tokens per second that products alone allow: each weight once forward and once back.

    A LoRA step needs no weight gradients, so 4 operations per parameter and token; the head only where a
    token is learnt.
    """
    config = read_json(task.base.folder / "config.json")
    head = config["vocab_size"] * config["hidden_size"]
    inner = sum(tensor_sizes(task.base.folder)) - head * (1 if config.get("tie_word_embeddings") else 2)
    rows = task.encoded(task.train)
    share = sum(len(row.learnt) for row in rows) / sum(len(row.ids) for row in rows)
    return flops / (4 * inner + 4 * head * share)


def contend(name: str, task: Task) -> dict[str, float]:
    """Train as one contender; return its speed, validation loss and peak memory (weights and imports in it)."""
    seconds, (net, peak) = TRAIN[name](task)
    speed = task.tokens * task.steps * BATCH / len(task.train) / seconds
    return {"tokens_per_s": speed, "valid_loss": valid_loss(net, task.encoded(task.valid)), "peak_gib": peak}


def in_child(name: str, given: argparse.Namespace) -> dict[str, float]:
    """Run one contender in a process of its own, so that its peak memory is its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        command = [sys.executable, "-m", "benchmarks.bench_train", str(given.data), "--child", name]
        command += ["--rows", str(given.rows), "--steps", str(given.steps), "--valid", str(given.valid)]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(
            [*command, "--out", str(out)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        if done.returncode:
            raise SystemExit(f"{name} failed:\n{done.stderr.decode('utf-8', 'replace')[-3000:]}")
        result: dict[str, float] = json.loads(out.read_text("utf-8"))
    return result


def report(found: dict[str, list[dict[str, float]]], top: float, flops: float) -> None:
    """Print speeds, losses, memory and each ratio with its aim; ratios are medians over the rounds."""
    print("\n| contender | tokens/s, median (all) | validation loss | peak GiB | of the limit |")
    print("|---|---|---|---|---|")
    for name, rounds in found.items():
        speeds = [r["tokens_per_s"] for r in rounds]
        middle = statistics.median(speeds)
        share = f"{middle / top:.0%}" if name in (*LORA, "qlora") else ""
        loss, peak = rounds[0]["valid_loss"], max(r["peak_gib"] for r in rounds)
        every = ", ".join(f"{s:.0f}" for s in speeds)
        print(f"| {name} | {middle:.0f} ({every}) | {loss:.4f} | {peak:.2f} | {share} |")
    print(f"\nlimit {top:.0f} tokens/s: measured {flops / 1e9:.0f} GFLOP/s / operations per real token")
    for a, b, aim in COMPARED:
        if a in found and b in found:
            pairs = zip(found[a], found[b], strict=True)
            ratio = statistics.median(x["tokens_per_s"] / y["tokens_per_s"] for x, y in pairs)
            apart = found[a][0]["valid_loss"] / found[b][0]["valid_loss"] - 1
            said = f" (aim {aim}: {'met' if ratio >= aim else 'MISSED'})" if aim else ""
            same = "" if abs(apart) <= SAME_LOSS else ", more than 1 % apart"
            print(f"{a} / {b}: {ratio:.2f}x{said}; validation loss {apart:+.2%}{same}")
    if "tunewise" in found:
        share = statistics.median(r["tokens_per_s"] for r in found["tunewise"]) / top
        print(f"tunewise reaches {share:.0%} of the limit (aim {SHARE:.0%})")


def main() -> None:
    """Measure, round by round, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=16, help="optimiser steps of 8 rows")
    parser.add_argument(
        "--rows", type=int, help="training rows; default: as many as the steps take in one pass"
    )
    parser.add_argument("--valid", type=int, default=64, help="held-out rows")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", help=f"some of {','.join(CONTENDERS)}")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.rows = given.rows or given.steps * BATCH
    task = read_task(given.data, given.rows, given.steps, given.valid)
    if given.child:
        given.out.write_text(json.dumps(contend(given.child, task)), "utf-8")
        return
    names = given.only.split(",") if given.only else list(CONTENDERS)
    if unknown := set(names) - set(CONTENDERS):
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(CONTENDERS)}")
    if importlib.util.find_spec("trl") is None and any(n.startswith("trl") for n in names):
        print("TRL is not installed here, its contenders are left out; add it with: pip install trl")
        names = [n for n in names if not n.startswith("trl")]
    print(f"{given.rows} rows of {task.tokens / given.rows:.0f} tokens, {given.steps} steps of {BATCH} rows")
    flops: list[float] = []
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for number in range(given.rounds):
        flops.append(measure().cpu.flops["bf16"])
        for name in names:
            found[name].append(in_child(name, given))
            print(f"round {number + 1} {name}: {found[name][-1]}", flush=True)
    report(found, limit(task, max(flops)), max(flops))


if __name__ == "__main__":
    main()

"""Those that :mod:`benchmarks.bench_train` compares: each trains the same task in its own way."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runners.data.examples import Example
from runners.models.resolve import Model
from runners.resources.machine import GIB
from runners.tokenization.chat_template import ChatTokenizer, EncodedRow

BATCH = 8
"""Rows of an optimiser step: TRL's and the Trainer's default."""
RATE = {"lora": 5e-4, "full": 5e-5}
RANK = 16
WARMUP = 0.05


@dataclass(frozen=True, slots=True)
class Task:
    """What every contender is given."""

    base: Model
    chat: ChatTokenizer
    train: tuple[Example, ...]
    valid: tuple[Example, ...]
    steps: int

    def encoded(self, rows: Sequence[Example]) -> list[EncodedRow]:
        """Return rows as tokens with the places that are learnt."""
        return [self.chat.example(row) for row in rows]

    @property
    def tokens(self) -> int:
        """Real tokens of one pass: no padding, nothing counted twice."""
        return sum(len(row.ids) for row in self.encoded(self.train))


def batch_tokens(task: Task) -> int:
    """Return the tokens of BATCH rows, rounded up."""
    return -(-task.tokens * BATCH // len(task.train))


@dataclass(frozen=True, slots=True)
class Trained:
    """What a contender leaves: the tuned model and what training it took."""

    net: Any
    seconds: float
    """From the first step's start to the last one's end."""
    peak_gib: float
    """Most memory of the process, weights and imports in it."""
    expected_gib: float | None = None
    """The memory estimate, for tunewise."""


def tunewise(task: Task, method: str) -> Trained:
    """Train by :func:`runners.train.fit`."""
    from runners.inference import weights
    from runners.inference.weights import load_base, load_model_folder
    from runners.plan.train_config import TrainConfig
    from runners.train import fit

    config = TrainConfig(
        method=method,
        epochs=task.steps * BATCH / len(task.train),
        rank=RANK,
        alpha=2.0 * RANK,
        learning_rate=RATE["full" if method == "full" else "lora"],
        warmup=WARMUP,
        checkpoint_steps=0,
        batch_tokens=batch_tokens(task),
    )
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
            net: Any = load_model_folder(out, next(load_base(task.base).parameters()).dtype, {})
        else:
            net = weights.load_adapter(load_base(task.base, four_bit=method == "qlora"), out, task.base)
    return Trained(net, seconds, peak, result.expected_gib)


def trl(task: Task, checkpointing: bool) -> Trained:
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


def trainer(task: Task, method: str) -> Trained:
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
        "learning_rate": RATE[method],
        "lr_scheduler_type": "cosine",
        "warmup_steps": round(WARMUP * task.steps),
        "per_device_train_batch_size": BATCH,
        "max_steps": task.steps,
        "seed": 0,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def _lora() -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=RANK, lora_alpha=2 * RANK, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def _timed(trainer: Any) -> Trained:
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        began = ended = 0.0

        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            Clock.began = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            Clock.ended = time.perf_counter()

    trainer.add_callback(Clock())
    trainer.train()
    return Trained(trainer.model, Clock.ended - Clock.began, peak_gib())


TRAIN: dict[str, Callable[[Task], Trained]] = {
    "tunewise": lambda task: tunewise(task, "lora"),
    "trl": lambda task: trl(task, True),
    "trl-no-checkpointing": lambda task: trl(task, False),
    "trainer": lambda task: trainer(task, "lora"),
    "qlora": lambda task: tunewise(task, "qlora"),
    "full": lambda task: tunewise(task, "full"),
    "trainer-full": lambda task: trainer(task, "full"),
}


def contend(name: str, task: Task) -> dict[str, float]:
    """Train as one contender; return its speed, validation loss and peak memory (weights and imports in it)."""
    trained = TRAIN[name](task)
    speed = task.tokens * task.steps * BATCH / len(task.train) / trained.seconds
    loss = valid_loss(trained.net, task.encoded(task.valid))
    result = {"tokens_per_s": speed, "valid_loss": loss, "peak_gib": trained.peak_gib}
    return result if trained.expected_gib is None else {**result, "expected_gib": trained.expected_gib}


def valid_loss(net: Any, rows: Sequence[EncodedRow]) -> float:
    """Return the mean cross-entropy of all learnt tokens by the model's own logits, row by row."""
    import torch
    import torch.nn.functional as F

    from runners.training.loss import evaluation_mode

    total = 0.0
    with evaluation_mode(net):
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
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB

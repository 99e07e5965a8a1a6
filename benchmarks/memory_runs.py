"""Peak memory and time of real training runs on this machine's CPU, beside their estimates: each run in its own process.

The models are SmolLM2-135M, where it is in the cache, and models of random weights in the shapes of others, with the
tokenizer of SmolLM2. A run is :func:`runners.train.fit` on rows of the shipped example, for a few steps; the peak is the
highest resident set of its whole process. From the repository's root:

    python -m benchmarks.memory_runs                  every case
    python -m benchmarks.memory_runs lora full --threads 1
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from advisor.harbor_desk.folder import example_folder
from runners.data.examples import Example, load_examples
from runners.models import resolve
from runners.models.resolve import Model
from runners.plan.train_config import TrainConfig
from runners.tokenization.chat_template import ChatTokenizer

REAL_MODEL = "smollm2-135m-instruct"
SHAPES: dict[str, dict[str, Any]] = {
    "smollm2-360m": {
        "model_type": "llama",
        "hidden_size": 960,
        "num_hidden_layers": 32,
        "num_attention_heads": 15,
        "num_key_value_heads": 5,
        "intermediate_size": 2560,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    },
    "gemma3-270m": {
        "model_type": "gemma3_text",
        "hidden_size": 640,
        "num_hidden_layers": 18,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "intermediate_size": 2048,
        "vocab_size": 262144,
        "sliding_window": 512,
        "tie_word_embeddings": True,
    },
    "gpt2": {
        "model_type": "gpt2",
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "vocab_size": 50257,
        "n_positions": 4096,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "tie_word_embeddings": True,
    },
    "qwen2.5-0.5b": {
        "model_type": "qwen2",
        "hidden_size": 896,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "intermediate_size": 4864,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "qwen3-moe": {
        "model_type": "qwen3_moe",
        "hidden_size": 512,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "moe_intermediate_size": 512,
        "intermediate_size": 512,
        "num_experts": 16,
        "num_experts_per_tok": 2,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    },
}
"""Configs whose model is made with random weights."""


@dataclass(frozen=True)
class Case:
    """One run to measure."""

    name: str
    model: str = REAL_MODEL
    method: str = "lora"
    kernels: str = "auto"
    row_tokens: int = 0
    """Tokens of a row, by repeating replies; 0 for the example's own rows."""
    passages: bool = False
    """Whether rows hold three passages of the documents, as those of a hybrid do."""
    rows: int = 357
    epochs: float = 1.0
    batch_tokens: int = 1024
    optimizer: str = "adamw"
    dtype: str = "auto"
    """float32 for a machine without bf16."""


CASES = (
    Case("lora"),
    Case("lora-few", rows=150),
    Case("full", method="full", rows=120),
    Case("qlora", method="qlora", rows=120),
    Case("hybrid", passages=True, rows=100),
    Case("lora-plain", kernels="plain", rows=120),
    Case("full-plain", method="full", kernels="plain", rows=120),
    Case("full-8bit", method="full", optimizer="adamw_8bit", rows=120),
    Case("lora-long", row_tokens=900, rows=16),
    Case("full-long", method="full", row_tokens=900, rows=12),
    Case("lora-fp32", dtype="float32", rows=80),
    Case("full-fp32", method="full", dtype="float32", rows=80),
    Case("360m-lora", "smollm2-360m", rows=60),
    Case("360m-full", "smollm2-360m", "full", rows=40),
    Case("360m-qlora", "smollm2-360m", "qlora", rows=40),
    Case("gemma-lora", "gemma3-270m", rows=60),
    Case("gemma-lora-plain", "gemma3-270m", kernels="plain", rows=40),
    Case("gemma-full", "gemma3-270m", "full", rows=40),
    Case("gemma-qlora", "gemma3-270m", "qlora", rows=40),
    Case("gpt2-lora", "gpt2", rows=60),
    Case("gpt2-full", "gpt2", "full", rows=40),
    Case("gpt2-long", "gpt2", row_tokens=900, rows=12),
    Case("qwen-lora", "qwen2.5-0.5b", rows=40),
    Case("qwen-full", "qwen2.5-0.5b", "full", rows=24),
    Case("qwen-qlora-plain", "qwen2.5-0.5b", "qlora", kernels="plain", rows=24),
    Case("qwen-long", "qwen2.5-0.5b", row_tokens=900, rows=8),
    Case("moe-lora", "qwen3-moe", rows=40),
    Case("moe-qlora", "qwen3-moe", "qlora", rows=40),
    Case("moe-full", "qwen3-moe", "full", rows=40),
)


def example_rows(case: Case) -> list[Example]:
    """Return the rows of a case: the shipped example's, longer or with passages where the case asks for it."""
    rows = list(load_examples(example_folder() / "examples.jsonl").rows)[: case.rows]
    if case.passages:
        texts = [path.read_text("utf-8") for path in sorted((example_folder() / "documents").rglob("*.md"))]
        words = " ".join(texts).split()
        rows = [_with_context(row, " ".join(words[41 * n % 5000 :][:130])) for n, row in enumerate(rows)]
    if case.row_tokens:
        rows = [_longer(row, case.row_tokens - 7 * (n % 9)) for n, row in enumerate(rows)]
    return rows


def _with_context(row: Example, text: str) -> Example:
    messages = [dict(message) for message in row.messages]
    messages[-2]["content"] = f"{text}\n\n{messages[-2]['content']}"
    return replace(row, messages=tuple(messages))


def _longer(row: Example, tokens: int) -> Example:
    messages = [dict(message) for message in row.messages]
    words = messages[-1]["content"].split()
    # About 1.3 tokens a word.
    messages[-1]["content"] = " ".join((words * tokens)[: int(tokens / 1.45)])
    return replace(row, messages=tuple(messages))


def model_of(name: str, folder: Path) -> Model:
    """Return a model: the cached one, or one with random weights of a shape, written into ``folder``."""
    real = resolve.resolve_model(REAL_MODEL)
    if name == REAL_MODEL:
        return real
    import shutil

    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    target = folder / name
    if not target.exists():
        config = dict(SHAPES[name])
        torch.manual_seed(0)
        net = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.bfloat16)
        net.save_pretrained(target)
        for file in real.folder.iterdir():
            if file.name.startswith(("tokenizer", "special", "vocab", "merges", "chat_template")):
                shutil.copy(file, target)
    return resolve.resolve_model(str(target))


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Train in this process; return peak, estimate, seconds and the resident set after each step, in GiB."""
    from runners.resources import usage

    base = model_of(case.model, folder)
    rows = example_rows(case)
    if case.dtype != "auto":
        import torch

        from runners.training import runtime

        runtime.dtype_for = lambda name="auto": (torch.float32, "asked for")
    from runners.preflight import machine_checks
    from runners.train import fit
    from runners.training.packing import shared_prefix

    config = TrainConfig(
        method=case.method,
        kernels=case.kernels,
        epochs=case.epochs,
        batch_tokens=case.batch_tokens,
        optimizer=case.optimizer,
        max_tokens=4096,
    )
    events: list[dict[str, Any]] = []
    resident: list[float | None] = []

    def on_event(event: dict[str, Any]) -> None:
        events.append(event)
        if event["event"] == "train.step":
            resident.append(usage.resident_gib())

    started, used = time.perf_counter(), time.process_time()
    with usage.measure_peak() as peak, tempfile.TemporaryDirectory() as out:
        result = fit(rows, config, base, Path(out) / "out", on_event=on_event)
    first = next(e for e in events if e["event"] == "train.start")
    encoded = [ChatTokenizer(base.folder).example(row) for row in rows]
    largest = machine_checks.largest_pass(encoded, config)
    prefix = shared_prefix(largest) if result.path == "fast" else 0
    return {
        **asdict(case),
        "path": result.path,
        "pass_rows": len(largest),
        "pass_longest": max(len(row.ids) for row in largest),
        "pass_tokens": sum(len(row.ids) for row in largest) - prefix * (len(largest) - 1),
        "pass_learnt": sum(len(row.learnt) for row in largest),
        "whole_gib": peak.gib,
        "held_gib": peak.held_gib,
        "own_gib": peak.own_gib,
        "expected_gib": result.expected_gib,
        "seconds": round(result.seconds, 2),
        "wall": round(time.perf_counter() - started, 2),
        "cpu_seconds": round(time.process_time() - used, 2),
        "steps": result.steps,
        "tokens": result.tokens,
        "tokens_per_s": round(result.tokens_per_s, 1),
        "start": {k: v for k, v in first.items() if k not in ("warnings",)},
        "resident": resident,
    }


def run_apart(case: Case, models: Path, threads: int) -> dict[str, Any] | None:
    """Measure a case in a process of its own; print the end of its stderr and return None where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "row.json"
        command = [sys.executable, "-m", "benchmarks.memory_runs", "--child", case.name]
        done = subprocess.run(
            [*command, "--models", str(models), "--out", str(out)],
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        if done.returncode:
            print(f"{case.name} failed: {done.stderr.decode('utf-8', 'replace')[-1500:]}", flush=True)
            return None
        row: dict[str, Any] = json.loads(out.read_text("utf-8"))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(case.name for case in CASES)}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--models", type=Path, default=Path(tempfile.gettempdir()) / "tunewise-shapes")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.child:
        found = measure(next(case for case in CASES if case.name == given.child), given.models)
        given.out.write_text(json.dumps(found), "utf-8")
        return
    for case in CASES:
        if given.names and case.name not in given.names:
            continue
        row = run_apart(case, given.models, given.threads)
        if row is None:
            continue
        if given.out:
            with given.out.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
        print(
            case.name,
            {
                k: v
                for k, v in row.items()
                if k
                in (
                    "path",
                    "whole_gib",
                    "own_gib",
                    "expected_gib",
                    "seconds",
                    "cpu_seconds",
                    "steps",
                    "tokens_per_s",
                )
            },
            [row["resident"][i] for i in range(0, len(row["resident"]), max(1, len(row["resident"]) // 6))],
            flush=True,
        )


if __name__ == "__main__":
    main()

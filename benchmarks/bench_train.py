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
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.contenders import BATCH, Task, batch_tokens, contend
from runners.data.examples import load_examples
from runners.models import resolve
from runners.models.fingerprint import read_json, tensor_sizes
from runners.plan.train_config import TrainConfig
from runners.resources.calibration import calibrate
from runners.tokenization.chat_template import ChatTokenizer

LORA = ("tunewise", "trl", "trl-no-checkpointing", "trainer")
CONTENDERS = (*LORA, "qlora", "full", "trainer-full")
COMPARED = (
    ("tunewise", "trl", 3.0),
    ("tunewise", "trl-no-checkpointing", 2.2),
    ("tunewise", "trainer", None),
    ("qlora", "tunewise", 0.8),
    ("full", "trainer-full", None),
)
"""Who is measured against whom, and the least ratio aimed at."""
SAME_LOSS = 0.01
SHARE = 0.5
"""Aims: relative difference of validation losses, and share of the arithmetic limit."""


def read_task(data: Path, rows: int, steps: int, valid: int) -> Task:
    """Return the first ``rows`` training rows (a full last step is BATCH rows) and the held-out rows after them."""
    found = load_examples(data / "train.jsonl").rows
    if len(found) < rows + valid:
        raise SystemExit(f"{data} has {len(found)} training rows, asked for {rows} + {valid}")
    base = resolve.resolve_model("smollm2-135m-instruct")
    return Task(base, ChatTokenizer(base.folder), found[:rows], found[rows : rows + valid], steps)


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


def computed(task: Task) -> float:
    """Return how many tokens tunewise's lora computes for each real one: beginnings are shared, nothing is padded."""
    from runners.training.packing import collate
    from runners.training.schedule import micro_batches, plan_steps

    rows = task.encoded(task.train)
    lengths = [len(row.ids) for row in rows]
    steps = plan_steps(lengths, batch_tokens(task), 1.0, 0)[0]
    parts = [micro for step in steps for micro in micro_batches(step, lengths, TrainConfig().micro_tokens)]
    return sum(collate([rows[i] for i in part], True).ids.numel() for part in parts) / sum(lengths)


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


def report(found: dict[str, list[dict[str, float]]], top: float, flops: float, task: Task) -> None:
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
    print(
        f"\nlimit {top:.0f} real tokens/s: measured {flops / 1e9:.0f} GFLOP/s by operations of a real token"
    )
    for a, b, aim in COMPARED:
        if a in found and b in found:
            pairs = zip(found[a], found[b], strict=True)
            ratio = statistics.median(x["tokens_per_s"] / y["tokens_per_s"] for x, y in pairs)
            apart = found[a][0]["valid_loss"] / found[b][0]["valid_loss"] - 1
            said = f" (aim {aim}: {'met' if ratio >= aim else 'MISSED'})" if aim else ""
            same = ""
            if a in LORA:
                same = f" (aim within {SAME_LOSS:.0%}: {'met' if abs(apart) <= SAME_LOSS else 'MISSED'})"
            print(f"{a} / {b}: {ratio:.2f}x{said}; validation loss {apart:+.2%}{same}")
    if "tunewise" in found:
        reached = statistics.median(r["tokens_per_s"] for r in found["tunewise"]) / top
        part = computed(task)
        print(
            f"tunewise reaches {reached:.0%} of the limit (aim {SHARE:.0%}); it computes {part:.2f} of every real"
        )
        print(
            f"token because beginnings are shared, so its products run at about {reached * part:.0%} of the limit"
        )


def main() -> None:
    """Measure, round by round, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=12, help="optimiser steps of 8 rows")
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
        flops.append(calibrate().cpu.flops["bf16"])
        for name in names:
            found[name].append(in_child(name, given))
            print(f"round {number + 1} {name}: {found[name][-1]}", flush=True)
    report(found, limit(task, max(flops)), max(flops), task)


if __name__ == "__main__":
    main()

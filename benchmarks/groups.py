"""One plan in one process, in two by DDP, in two by FSDP2, and on two Slurm nodes: are the results equal?

python -m benchmarks.groups --out FOLDER [--model smollm2-135m-instruct] [--slurm]

The plan indexes the desk's documents, trains a LoRA adapter on some of its examples, and answers some of its questions, in
fp32. The table shows the largest relative difference of any step's loss and gradient norm from those of one process,
the largest difference of any weight, how many answers differ, and the seconds of the training.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load_file

from advisor import harbor_desk

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES, QUESTIONS = 40, 8
TORCHRUN = ("--launcher", "torchrun", "--gpus-per-node", "2")
WAYS: dict[str, tuple[str, tuple[str, ...]]] = {
    "one process": ("auto", ()),
    "2 processes, ddp": ("ddp", TORCHRUN),
    "2 processes, fsdp": ("fsdp", TORCHRUN),
    "2 Slurm nodes, fsdp": ("fsdp", ("--launcher", "slurm", "--nodes", "2", "--gpus-per-node", "0")),
}
"""Name of a way -> the plan's ``parallel``, and the flags of the launcher."""


def write_plan(file: Path, model: str, parallel: str) -> None:
    """Write the plan with one way of sharing a training."""
    desk = Path(str(harbor_desk.__file__)).parent
    plan = {
        "schema": 1,
        "name": "groups",
        "choice": "lora",
        "model": {"name": model},
        "data": {
            "documents": str(desk / "documents"),
            "examples": str(desk / "examples.jsonl"),
            "questions": str(desk / "questions.jsonl"),
            "max_examples": EXAMPLES,
            "max_dev": 4,
            "max_test": QUESTIONS,
        },
        "prompts": {"system": (desk / "prompt.txt").read_text("utf-8").strip()},
        "parallel": parallel,
        "weights": {"token_f1": 1.0},
        "forgetting": {"prompts": 0},
        "steps": [
            {"kind": "index"},
            {"kind": "train", "arm": "lora", "epochs": 1.0, "rank": 8, "alpha": 16.0, "rows": "plain"},
            {"kind": "evaluate", "arm": "rag", "retrieval": True},
            {"kind": "evaluate", "arm": "lora", "weights": "lora"},
        ],
    }
    file.write_text(yaml.safe_dump(plan, sort_keys=False), "utf-8")


def run_way(out: Path, model: str, name: str, environ: dict[str, str], cluster: Any) -> Path:
    """Carry the plan out in one way and return its run folder."""
    parallel, launcher = WAYS[name]
    plan = out / f"{name.replace(' ', '-').replace(',', '')}.yaml"
    run = plan.with_suffix("")
    shutil.rmtree(run, ignore_errors=True)
    write_plan(plan, model, parallel)
    command = [sys.executable, "-P", "-m", "advisor", "run", str(plan), "--out", str(run), *launcher]
    settings = {**environ, **(cluster.environ if "slurm" in launcher else {})}
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 5):
        raise SystemExit(
            f"{name} ended with {done.returncode}:\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"
        )
    while "slurm" in launcher and not (run / "report.json").is_file():
        if cluster.ask("squeue", "--noheader", check=False).strip() == "":
            raise SystemExit(f"the job of {name} ended without a report: see {run / 'launch'}")
        time.sleep(2)
    return run


def facts(run: Path) -> dict[str, Any]:
    """Return losses, gradient norms, weights and answers of a run, and the seconds of its training."""
    (adapter,) = (run / "adapters").iterdir()
    steps = [json.loads(line) for line in (adapter / "training.jsonl").read_text().splitlines()]
    answers = [json.loads(line) for line in (run / "trial" / "answers.jsonl").read_text().splitlines()]
    manifest = json.loads((adapter / "manifest.json").read_text())
    return {
        "losses": [row["loss"] for row in steps if "loss" in row],
        "norms": [row["grad_norm"] for row in steps if "grad_norm" in row],
        "weights": load_file(adapter / "adapter_model.safetensors"),
        "answers": {(row["arm"], row["question"]): row["answer"] for row in answers},
        "seconds": manifest["result"]["seconds"],
        "path": manifest["result"]["path"],
    }


def row(name: str, one: dict[str, Any], other: dict[str, Any]) -> str:
    """Return the table's row of a way."""

    def relative(key: str) -> float:
        return max(abs(a - b) / abs(b) for a, b in zip(other[key], one[key], strict=True))

    weights = max(float((other["weights"][key] - value).abs().max()) for key, value in one["weights"].items())
    differ = sum(other["answers"][key] != answer for key, answer in one["answers"].items())
    return (
        f"| {name} | {other['path']} | {relative('losses'):.1e} | {relative('norms'):.1e} | {weights:.1e} | "
        f"{differ} of {len(one['answers'])} | {other['seconds']:.0f} |"
    )


def main() -> None:
    """Carry out every way and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--slurm", action="store_true", help="also on a Slurm cluster that this starts")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "TUNEWISE_DTYPE": "float32", "OMP_NUM_THREADS": "1"}
    cluster: Any = None
    if given.slurm:
        from tests.runners.launch.conftest import new_cluster

        folder = given.out / "slurm"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        cluster = new_cluster(folder.resolve())
        cluster.start()
    try:
        runs = {
            name: facts(run_way(given.out, given.model, name, environ, cluster))
            for name, (_, launcher) in WAYS.items()
            if cluster is not None or "slurm" not in launcher
        }
    finally:
        if cluster is not None:
            cluster.stop()
    print("| way | path | loss | gradient norm | weights | answers that differ | training, s |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, measured in runs.items():
        print(row(name, runs["one process"], measured))


if __name__ == "__main__":
    main()

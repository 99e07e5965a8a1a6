"""The acceptance run on a GPU: training, 4 bits, decoding, embedding and serving on two families, in turns with peers.

    python -m benchmarks.gpu                         every part that is not measured yet, then the table
    python -m benchmarks.gpu --part decode           one part; each takes at most 8 minutes
    python -m benchmarks.gpu --device cpu            the same with tiny models on the CPU, to check this script

It needs no network and no data beside the repository: models of real shapes are made with random weights. Each part
writes its rows to a folder of its card and commit in WORK/results; a part that is there is not measured again
(--again does). The parts ddp and fsdp train on all GPUs of the machine, and say so where there is one; they are
unverified. TRL is compared where it is installed. The table goes into benchmarks/LOG.md with the card's name.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.group import GROUP_PARTS
from benchmarks.gpu.parts import PARTS as ONE_GPU_PARTS
from benchmarks.gpu.parts import Setting, child_contender

PARTS = {**ONE_GPU_PARTS, **GROUP_PARTS}

LIMIT_S = 480
"""Most seconds of one part."""


def main() -> int:
    """Measure the parts and print the table; return 0, 1 where a part failed, 4 on a machine without a GPU."""
    arguments = parse_arguments()
    card = card_name(arguments.device)
    if not card:
        print(
            "there is no CUDA device here, so there is nothing to measure on\n"
            "  next: run it on a machine with a GPU, or check the script itself with --device cpu",
            file=sys.stderr,
        )
        return 4
    work = arguments.work.resolve()
    named = re.sub(r"[^A-Za-z0-9]+", "-", f"{card} {commit()}")
    setting = Setting(work, arguments.device, arguments.results or work / "results" / named)
    setting.results.mkdir(parents=True, exist_ok=True)
    if arguments.contender:
        family, _, name = arguments.contender.partition(":")
        _write(arguments.out, child_contender(setting, family, name))
        return 0
    if arguments.child:
        _write(arguments.out, {"rows": PARTS[arguments.child](setting)})
        return 0
    failed = [name for name in arguments.part or PARTS if not measure(name, setting, card, arguments.again)]
    print_table(setting, card)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def parse_arguments() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--part", action="append", choices=list(PARTS), help="one part; may be repeated")
    parser.add_argument(
        "--work", type=Path, default=Path("runs") / "gpu", help="folder of models and results"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--again", action="store_true", help="measure parts that are there already")
    parser.add_argument("--child", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def card_name(device: str) -> str:
    """Return the name of the GPU, "CPU" for the check without one, "" where there is none."""
    if device == "cpu":
        return "CPU"
    import torch

    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else ""


def measure(name: str, setting: Setting, card: str, again: bool) -> bool:
    """Measure a part in a process of its own unless it is there already; return whether it succeeded."""
    out = setting.results / f"{name}.json"
    if out.is_file() and not again:
        print(f"{name}: measured already", file=sys.stderr)
        return True
    if again:
        for old in setting.results.glob(f"{name}*.json"):
            old.unlink()
    part = out.with_suffix(".tmp")
    command = [sys.executable, "-m", "benchmarks.gpu", "--child", name, "--out", str(part)]
    command += ["--work", str(setting.work), "--device", setting.device, "--results", str(setting.results)]
    started = time.monotonic()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    try:
        done = subprocess.run(command, env=environment, timeout=LIMIT_S, stdout=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        print(f"{name}: not done in {LIMIT_S} s; what it measured is kept, so run it again", file=sys.stderr)
        return False
    seconds = time.monotonic() - started
    print(f"{name}: {'measured' if not done.returncode else 'FAILED'} in {seconds:.0f} s", file=sys.stderr)
    if done.returncode:
        return False
    _write(
        out,
        {"card": card, "commit": commit(), "seconds": round(seconds), **json.loads(part.read_text("utf-8"))},
    )
    part.unlink()
    return True


def print_table(setting: Setting, card: str) -> None:
    """Print the rows of all measured parts as a Markdown table, with card, versions and date."""
    import torch
    import transformers

    print(
        f"\n{time.strftime('%Y-%m-%d')}, {card}, torch {torch.__version__}, transformers {transformers.__version__},"
    )
    print(f"commit {commit()}, `python -m benchmarks.gpu{' --device cpu' if setting.tiny else ''}`\n")
    print("| family | what | by | measured | |\n|---|---|---|---|---|")
    for name in PARTS:
        out = setting.results / f"{name}.json"
        for row in json.loads(out.read_text("utf-8"))["rows"] if out.is_file() else ():
            value = "not measured" if row["value"] is None else f"{row['value']:,.4g} {row['unit']}"
            print(f"| {row['family']} | {row['what']} | {row['by']} | {value} | {row['note']} |")


def commit() -> str:
    """Return the commit of the working tree, "" without git."""
    try:
        done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip()


def _write(path: Path, value: dict[str, Any]) -> None:
    """Write JSON so that the file is whole or not there."""
    temporary = path.with_suffix(".writing")
    temporary.write_text(json.dumps(value, indent=1), "utf-8")
    temporary.replace(path)


if __name__ == "__main__":
    raise SystemExit(main())

"""Seconds from the start of a process to its first byte of output, and to its end.

python -m benchmarks.cold --runs 5 -- tunewise index search INDEX "How much is a dog?"
"""

from __future__ import annotations

import argparse
import subprocess
import time
from statistics import median


def cold(command: list[str]) -> tuple[float, float]:
    """Run a command; return when its first byte of standard output came and when it ended."""
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        first = time.perf_counter() - began
        process.stdout.read()
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    return first, time.perf_counter() - began


def main() -> None:
    """Run the command a few times; print the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("command", nargs="+")
    given = parser.parse_args()
    found = [cold(given.command) for _ in range(given.runs)]
    for name, values in zip(("first byte", "end"), zip(*found, strict=True), strict=True):
        print(f"{name:10} {median(values):.2f} s ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main()

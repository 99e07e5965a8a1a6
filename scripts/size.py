"""What the project weighs: lines by folder, the slowest tests, and the times of the demo and of an answer.

    python scripts/size.py                    lines, and the tests as CI last recorded them
    python scripts/size.py --since REVISION   lines added and removed since then, by part
    python scripts/size.py --run runs/DEMO    also the steps of a demo's run, and cold starts of ask, serve and plan with it

Times are processor seconds of whole processes and their children, each the smallest of three starts.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import tokenize
from collections import Counter
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = ("advisor", "runners", "rag", "tunewise.py")
PARTS = (*PRODUCT, "tests", "benchmarks", "scripts")
STARTS = 3
NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}
SERVING = "in a browser to ask"
"""What serve prints when it answers."""


def code_lines(text: str) -> int:
    """Count the lines with code: no blank ones, no comments, no docstrings (strings that are whole statements)."""
    lines: set[int] = set()
    statement: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NO_CODE:
            statement.append(token)
        elif token.type == tokenize.NEWLINE:
            if any(part.type != tokenize.STRING for part in statement):
                lines |= {n for part in statement for n in range(part.start[0], part.end[0] + 1)}
            statement = []
    return len(lines)


def print_lines(depth: int) -> None:
    """Print files, lines and lines of code of every folder down to a depth, those of git alone."""
    names = subprocess.check_output(["git", "ls-files", "*.py"], cwd=ROOT, text=True).split()
    files, lines, code = Counter[str](), Counter[str](), Counter[str]()
    for name in names:
        if not (path := ROOT / name).is_file():
            continue
        text = path.read_text("utf-8")
        parents = name.split("/")[:-1] or [name]
        total = "product" if parents[0] in PRODUCT else ""
        for folder in filter(None, {total, *("/".join(parents[: n + 1]) for n in range(depth))}):
            files[folder] += 1
            lines[folder] += text.count("\n")
            code[folder] += code_lines(text)
    print(f"{'files':>6} {'lines':>8} {'code':>8}  folder")
    for folder in sorted(lines, key=lambda name: (name.split("/")[0] not in PRODUCT, name)):
        print(f"{files[folder]:6} {lines[folder]:8,} {code[folder]:8,}  {folder}")


def print_changes(revision: str) -> None:
    """Print the lines that were added and removed since a revision, by part."""
    print(f"\n{'added':>8} {'removed':>8}  since {revision}")
    for part in PARTS:
        rows = subprocess.check_output(
            ["git", "diff", "--numstat", revision, "--", part], cwd=ROOT, text=True
        ).splitlines()
        counts = [row.split("\t")[:2] for row in rows if row[0].isdigit()]
        added, removed = (sum(int(row[side]) for row in counts) for side in (0, 1))
        print(f"{added:8,} {removed:8,}  {part}")


def print_tests(count: int) -> None:
    """Print the slowest tests of the recorded table, and the sum."""
    rows = [line.split("\t") for line in (ROOT / ".ci" / "processor_times.tsv").read_text().splitlines()[1:]]
    print(f"\n{'seconds':>8}  test (processor time, as recorded)")
    for seconds, _, name in rows[:count]:
        print(f"{float(seconds):8.1f}  {name}")
    print(f"{sum(float(row[0]) for row in rows):8.1f}  all")


def print_run(run: Path) -> None:
    """Print how long the steps of a run took, by its event log."""
    events = [json.loads(line) for line in (run / "events.jsonl").read_text("utf-8").split("\n") if line]
    started: dict[str, float] = {}
    print(f"\n{'seconds':>8}  step of {run.name}")
    for event in events:
        if event["event"] == "step.start":
            started[event["step"]] = event["time"]
        elif event["event"] == "step.end":
            print(f"{event['time'] - started[event['step']]:8.1f}  {event['step']}")
    print(f"{events[-1]['time'] - events[0]['time']:8.1f}  from the first event to the last")


def processor_seconds(command: list[str], ready: str | None) -> float:
    """Return the processor seconds of a command; with ``ready``, until it prints that, and then it is ended."""
    best = float("inf")
    for _ in range(STARTS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout is not None
        for line in process.stdout:
            if ready and ready in line:
                process.send_signal(signal.SIGKILL)
        if process.wait() > 5:  # 5 is the verdict of a run
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return best


def print_starts(run: Path, refused: str, answered: str) -> None:
    """Print the processor seconds of the commands that a user waits for."""
    tunewise = [sys.executable, "-m", "advisor"]
    data = yaml.safe_load((run / "plan.yaml").read_text("utf-8"))["data"]
    files = [word for name in ("documents", "examples", "questions") for word in (f"--{name}", data[name])]
    with tempfile.TemporaryDirectory() as folder:
        plan = [*tunewise, "plan", "--yes", *files, "--out", str(Path(folder) / "plan.yaml")]
        commands: dict[str, tuple[list[str], str | None]] = {
            "--help": ([*tunewise, "--help"], None),
            "plan, with files": (plan, None),
            "ask, refused": ([*tunewise, "ask", str(run), refused], None),
            "ask, answered": ([*tunewise, "ask", str(run), answered], None),
            "serve, ready": ([*tunewise, "serve", str(run), "--port", "0"], SERVING),
        }
        seconds = {name: processor_seconds(*command) for name, command in commands.items()}
    print(f"\n{'seconds':>8}  processor time of a cold start ({os.cpu_count()} cores)")
    for name, best in seconds.items():
        print(f"{best:8.2f}  {name}")


def main() -> None:
    """Print what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--depth", type=int, default=2, help="folders below each other that are listed")
    parser.add_argument("--tests", type=int, default=20, help="slowest tests that are listed")
    parser.add_argument("--since", metavar="REVISION")
    parser.add_argument("--run", type=Path, metavar="RUN", help="a finished run of tunewise demo")
    parser.add_argument("--refused", default="Who won the football cup in 1998?", metavar="QUESTION")
    parser.add_argument("--answered", default="What does a dog cost on the ferry?", metavar="QUESTION")
    given = parser.parse_args()
    print_lines(given.depth)
    if given.since:
        print_changes(given.since)
    print_tests(given.tests)
    if given.run:
        print_run(given.run)
        print_starts(given.run, given.refused, given.answered)


if __name__ == "__main__":
    main()

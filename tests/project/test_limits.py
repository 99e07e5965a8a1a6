"""Tests bear a machine that is slow or busy: no upper bound on wall time, no short limit on what only must not hang."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.support.limits import HANG_S

CLOCKS = frozenset(("monotonic", "perf_counter", "time"))
WAITS = {"wait": 1, "join": 1, "result": 1, "communicate": 1, "acquire": 1, "wait_for": 2}
"""Methods whose last argument of so many is a time limit."""
CANDIDATE = re.compile(
    r"\btimeout ?=|\b(wait|join|result|acquire|communicate)\(\d|wait_for\(|monotonic\(\)|perf_counter|time\.time\(\)"
)
"""What a file has that has anything to find; most have not, and are not parsed."""
SUBJECTS = {
    ("rag/backends/conftest.py", 5): "asked again until the server answers",
    ("support/llama_server.py", 2): "asked again until the server answers",
    ("support/object_server.py", 5): "asked again until the server answers",
    ("runners/export/test_vllm.py", 5): "asked again until the server answers",
    ("support/postgres_server.py", 20): "killed when it does not end by itself",
    ("runners/export/test_vllm.py", 30): "killed when it does not end by itself",
    ("runners/launch/conftest.py", 10): "killed when it does not end by itself",
    ("runners/export/test_source.py", 30): "interrupted again until it ends",
    ("runners/serving/test_process.py", 2): "the client leaves",
    ("runners/serving/test_concurrency.py", 0.3): "the client leaves",
    ("advisor/mcp_server/test_mcp.py", 0.01): "the client leaves",
}
"""Short limits that stay, by file and seconds, with the reason."""


def is_clock(node: ast.AST) -> bool:
    """Return whether a node reads a clock that goes on while other programs have the processor."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CLOCKS


def is_elapsed(node: ast.expr) -> bool:
    """Return whether an expression is a difference to a reading of such a clock."""
    return any(
        isinstance(part, ast.BinOp) and isinstance(part.op, ast.Sub) and any(map(is_clock, ast.walk(part)))
        for part in ast.walk(node)
    )


def upper_bounds(tree: ast.AST) -> Iterator[int]:
    """Yield the lines that assert that something took less wall time than a bound, or measure with perf_counter."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "perf_counter":
            yield node.lineno
        if isinstance(node, ast.Assert):
            for compare in ast.walk(node):
                if not isinstance(compare, ast.Compare):
                    continue
                terms = [compare.left, *compare.comparators]
                for left, sign, right in zip(terms, compare.ops, terms[1:], strict=False):
                    smaller = left if isinstance(sign, ast.Lt | ast.LtE) else right
                    if isinstance(sign, ast.Lt | ast.LtE | ast.Gt | ast.GtE) and is_elapsed(smaller):
                        yield compare.lineno


def short_limits(tree: ast.AST) -> Iterator[tuple[int, float]]:
    """Yield line and seconds of every time limit that is written as a number below HANG_S."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        values = [keyword.value for keyword in node.keywords if keyword.arg == "timeout"]
        if isinstance(node.func, ast.Attribute) and len(node.args) == WAITS.get(node.func.attr):
            values.append(node.args[-1])
        for value in values:
            if (
                isinstance(value, ast.Constant)
                and isinstance(value.value, int | float)
                and value.value < HANG_S
            ):
                yield node.lineno, value.value


def test_no_test_depends_on_the_speed_of_the_machine(root: Path) -> None:
    bounds, limits = [], []
    for path in sorted((root / "tests").rglob("*.py")):
        name, text = path.relative_to(root / "tests").as_posix(), path.read_text("utf-8")
        if not CANDIDATE.search(text):
            continue
        tree = ast.parse(text)
        bounds += [f"tests/{name}:{line}" for line in upper_bounds(tree)]
        limits += [
            f"tests/{name}:{line}: {seconds} s"
            for line, seconds in short_limits(tree)
            if (name, seconds) not in SUBJECTS
        ]
    assert not bounds, "upper bounds on wall time: measure processor time, or wait for the event"
    assert not limits, "a limit that only ends what hangs is HANG_S of tests/support/limits.py"


def test_what_depends_on_the_machine_is_found() -> None:
    code = """
assert time.monotonic() - started < 5
assert 1 < time.time() - started < 5
assert 5 > time.monotonic() - started
assert time.monotonic() - started > 5
assert time.monotonic() < deadline
child.wait(20)
subprocess.run(line, timeout=60)
backoff.wait(3, None)
done.wait(HANG_S)
"""
    tree = ast.parse(code)
    assert list(upper_bounds(tree)) == [2, 3, 4]
    assert sorted(short_limits(tree)) == [(7, 20), (8, 60)]

"""Small rooms: files of at most 350 lines, functions of at most 60, a median file under 100."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from statistics import median

FILE_LINES = 350
FUNCTION_LINES = 60
MEDIAN_LINES = 100

# What may be longer, and why. An entry that is no longer needed fails the test.
EXCEPTIONS: dict[str, str] = {}


def test_files_are_small(root: Path, modules: Mapping[str, ast.Module]) -> None:
    """No file over the limit but the listed ones, and those really are over it."""
    lines = {path: len((root / path).read_text("utf-8").splitlines()) for path in modules}
    long = {path: count for path, count in lines.items() if count > FILE_LINES}
    listed = {path for path in EXCEPTIONS if "::" not in path}
    assert set(long) == listed, f"over {FILE_LINES} lines: {long}; listed: {sorted(listed)}"
    assert median(lines.values()) < MEDIAN_LINES


def test_functions_are_short(modules: Mapping[str, ast.Module]) -> None:
    """No function over the limit but the listed ones, and those really are over it."""
    long = {}
    for path, tree in modules.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                count = (node.end_lineno or node.lineno) - node.lineno + 1
                if count > FUNCTION_LINES:
                    long[f"{path}::{node.name}"] = count
    listed = {path for path in EXCEPTIONS if "::" in path}
    assert set(long) == listed, f"over {FUNCTION_LINES} lines: {long}; listed: {sorted(listed)}"


def test_modules_are_one_plain_noun(modules: Mapping[str, ast.Module]) -> None:
    """No drawer for odds and ends."""
    drawers = {"utils", "util", "helpers", "helper", "common", "misc", "tools", "core"}
    assert not [path for path in modules if drawers & set(path.removesuffix(".py").split("/"))]

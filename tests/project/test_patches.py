"""Tests use parameters and real parts: none patches our packages or writes what belongs to another object alone."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

PACKAGES = frozenset(("advisor", "rag", "runners", "tunewise"))
PATCHING = frozenset(("setattr", "delattr", "setitem", "delitem", "patch"))
"""Methods of pytest's ``MonkeyPatch`` and of ``unittest.mock`` that replace something."""
IMPORT = re.compile(r"^\s*(from|import) (advisor|rag|runners|tunewise)\b", re.MULTILINE)
CANDIDATE = re.compile(
    r"\b(setattr|delattr|setitem|delitem|patch)\(|unittest\.mock|"
    r"^[ \t]*(del )?\w+(\.\w+|\[.*?\])*\.\w+[^(\n]*( =|[-+*/|]=|$)",
    re.MULTILINE,
)
"""What a file has somewhere that has anything to find; most have not, and are not parsed."""
ALLOWED = {
    "tests/runners/serving/test_process.py: LocalGenerator._tokens_of = LocalGenerator.decode_batch = endless": (
        "in a child process: no model is so slow that a signal surely meets its prefill"
    ),
}
"""Reasons of the patches that stay, by ``FILE: LINE OF CODE``."""


def first_name(node: ast.AST) -> str:
    """Return the name that an expression begins with: of ``a.b[0].c()`` a; "" where it begins with none."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def roots(nodes: Sequence[ast.AST]) -> dict[str, str]:
    """Return the top-level package that each imported name comes from."""
    found: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {alias.asname or alias.name: node.module.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Import):
            for alias in node.names:
                package = alias.name.split(".")[0]
                found[alias.asname or package] = package
    return found


def is_ours(target: ast.expr, imported: dict[str, str]) -> bool:
    """Return whether a patch may meet our code: it names our package, or an object that no other package gave."""
    if isinstance(target, ast.JoinedStr):
        target = target.values[0]
    if isinstance(target, ast.Constant):
        return str(target.value).split(".")[0] in PACKAGES
    return imported.get(first_name(target), "tunewise") in PACKAGES


def is_foreign_write(target: ast.expr, imported: dict[str, str]) -> bool:
    """Return whether an assignment changes a module or class of ours, or a private part of another object."""
    owner = first_name(target)
    if owner in ("self", "cls") or not isinstance(target, ast.Attribute | ast.Subscript):
        return False
    if imported.get(owner) in PACKAGES:
        return True
    names = {node.attr for node in ast.walk(target) if isinstance(node, ast.Attribute)}
    return any(name.startswith("_") for name in names)


def patches(tree: ast.AST) -> Iterator[tuple[int, ast.AST]]:
    """Yield line and node of what changes our code from outside; also within programs that a test writes as text."""
    nodes = list(ast.walk(tree))
    imported = roots(nodes)
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module == "unittest.mock":
            yield node.lineno, node
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            if node.func.attr in PATCHING and is_ours(node.args[0], imported):
                yield node.lineno, node
        elif isinstance(node, ast.Assign | ast.Delete | ast.AugAssign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign | ast.Delete) else [node.target]
            parts = [part for t in targets for part in (t.elts if isinstance(t, ast.Tuple) else [t])]
            if any(is_foreign_write(part, imported) for part in parts):
                yield node.lineno, node
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and IMPORT.search(node.value):
            try:
                program = ast.parse(textwrap.dedent(node.value))
            except SyntaxError:
                continue
            yield from ((node.lineno, found) for _, found in patches(program))


def test_nothing_of_ours_is_patched(root: Path) -> None:
    found = {
        f"{path.relative_to(root).as_posix()}: {ast.unparse(node)}": line
        for path in sorted((root / "tests").rglob("*.py"))
        if path.name != Path(__file__).name
        if CANDIDATE.search(text := path.read_text("utf-8"))
        for line, node in patches(ast.parse(text, str(path)))
    }
    assert sorted(set(found) - set(ALLOWED)) == [], "give it a parameter, or a real part"
    assert sorted(set(ALLOWED) - set(found)) == [], "they are gone"
    assert len(ALLOWED) <= 5


def test_patches_are_recognised() -> None:
    bad = """
from unittest.mock import patch
import rag.files as files, runners
monkeypatch.setattr("rag.files.LOCK_WAIT_SECONDS", 0)
monkeypatch.setattr(files, "LOCK_WAIT_SECONDS", 0)
monkeypatch.setattr(session.context, "generator", wrong)
files.LOCK_WAIT_SECONDS, other = 0, 1
session.context._generator = wrong
opened.__dict__["index"] = wrong
del files.os
code = "import rag.files\\nrag.files.LOCK_WAIT_SECONDS = 0"
monkeypatch.setitem(runners.models.registry.KNOWN, "mine", None)
"""
    assert sorted({line for line, _ in patches(ast.parse(bad))}) == [2, *range(4, 13)]
    lines = bad.splitlines()[1:]
    assert [line for line in lines if not CANDIDATE.search(line)] == [lines[1], lines[9]], "import and text"
    good = """
import socket, sys
from rag import files
monkeypatch.setattr(socket, "create_connection", refuse)
monkeypatch.setattr("sys.argv", ["tunewise"])
monkeypatch.setitem(sys.modules, "ray", None)
monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True)
server.answer = lambda body: "Aye."
self._count = 1
files.write_text(path, "x")
"""
    assert not list(patches(ast.parse(good)))

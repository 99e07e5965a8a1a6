"""Imports go one way, advisor -> runners -> rag, never in a circle, and name only what is declared."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib.metadata import packages_distributions
from pathlib import Path

ALLOWED = {"rag": {"rag"}, "runners": {"runners", "rag"}, "advisor": {"advisor", "runners", "rag"}}

# Imported only where present and never needed; not declared on purpose.
OPTIONAL = {"pynvml": "the exact memory of an NVIDIA card; without it nvidia-smi is asked"}



def imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield every dotted name imported under ``tree``, and its line; ``from a import b`` yields a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: a relative import hides the direction"
            yield str(node.module), node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def test_imports_go_one_way(modules: Mapping[str, ast.Module]) -> None:
    """No module imports from a package above its own, not even inside a function or by a string."""
    wrong = []
    for path, tree in modules.items():
        own = path.split("/")[0]
        above = set(ALLOWED) - ALLOWED[own]
        wrong += [
            f"{path}:{line} imports {name}" for name, line in imported(tree) if name.split(".")[0] in above
        ]
        for node in ast.walk(tree):
            named = isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value
            if named and re.fullmatch(rf"(?:{'|'.join(above) or '-'})(?:\.\w+)+(?::\w+)?", named):
                wrong.append(f"{path}:{node.lineno} names {named}")
    assert not wrong, "\n".join(wrong)


def test_packages_do_not_import_what_is_not_shipped(modules: Mapping[str, ast.Module]) -> None:
    """Tests, scripts and benchmarks stay outside the wheel, so nothing inside may need them."""
    outside = {"tests", "scripts", "benchmarks", "docs"}
    wrong = [
        f"{p}:{n}" for p, t in modules.items() for name, n in imported(t) if name.split(".")[0] in outside
    ]
    assert not wrong


def test_no_module_imports_through_a_package_front(modules: Mapping[str, ast.Module]) -> None:
    """Inside the packages a name is imported from the module that defines it; the fronts are for users."""
    fronts = {path.removesuffix("/__init__.py").replace("/", ".") for path in modules if "__init__" in path}
    names = {path.removesuffix(".py").replace("/", ".") for path in modules} | fronts
    wrong = []
    for path, tree in modules.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                wrong += [f"{path}:{node.lineno} {a.name}" for a in node.names if a.name in fronts]
            elif isinstance(node, ast.ImportFrom) and node.module in fronts:
                full = (f"{node.module}.{alias.name}" for alias in node.names)
                wrong += [f"{path}:{node.lineno} {each}" for each in full if each not in names]
    assert not wrong, "\n".join(wrong)


def test_everything_imported_is_declared(root: Path, modules: Mapping[str, ast.Module]) -> None:
    """Every third-party import belongs to a distribution that pyproject names, in the base or in an extra."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"].items()
    lines = [
        *project["dependencies"],
        *(line for extra, lines in extras if extra != "test" for line in lines),
    ]
    declared = {_normal(re.match(r"[\w.-]+", line)[0]) for line in lines}
    carried_by = packages_distributions()
    wrong = {}
    for path, tree in modules.items():
        for name, line in imported(tree):
            top = name.split(".")[0]
            if top in sys.stdlib_module_names or top in ALLOWED or top in OPTIONAL:
                continue
            if not declared & {_normal(d) for d in carried_by.get(top, [top])}:
                wrong.setdefault(top, f"{path}:{line}")
    assert not wrong, f"imported but not declared: {wrong}"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()

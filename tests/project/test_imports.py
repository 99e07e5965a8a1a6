"""Imports go one way, tunewise -> advisor -> runners -> rag, and third-party imports are declared dependencies."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib.metadata import packages_distributions
from pathlib import Path

ALLOWED = {
    "rag": {"rag"},
    "runners": {"runners", "rag"},
    "advisor": {"advisor", "runners", "rag"},
    "tunewise": {"tunewise", "advisor", "runners", "rag"},
}

# Imported only where installed and not required; not declared on purpose.
OPTIONAL = {
    "psycopg_pool": "comes with psycopg[pool], which the extra pgvector names",
    "pynvml": "the exact memory of an NVIDIA card; without it nvidia-smi is called",
    "mlflow": "the module of mlflow-skinny, which the extra mlflow names",
}

# Declared and not imported by our packages themselves.
INDIRECT = {
    "mlflow-skinny": "its module is called mlflow, which runners/tracking/clients.py imports",
    "alembic": "MLflow needs it for the database of its default store, and mlflow-skinny does not require it",
    "sqlalchemy": "MLflow needs it for the database of its default store, and mlflow-skinny does not require it",
    "tensorboard": "torch.utils.tensorboard, which runners/tracking/clients.py imports, needs it",
}


def imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield every dotted name imported under ``tree``, and its line; ``from a import b`` yields a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: a relative import hides the direction"
            yield str(node.module), node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def test_packages_import_in_one_direction(modules: Mapping[str, ast.Module]) -> None:
    """No module imports from a package above its own, inside functions and by strings included."""
    wrong = []
    for path, tree in modules.items():
        own = path.split("/")[0].removesuffix(".py")
        above = set(ALLOWED) - ALLOWED[own]
        wrong += [
            f"{path}:{line} imports {name}" for name, line in imported(tree) if name.split(".")[0] in above
        ]
        for node in ast.walk(tree):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
                continue
            # "tunewise.rules" and the like are groups of entry points, no modules.
            if re.fullmatch(rf"(?:{'|'.join(above - {'tunewise'}) or '-'})(?:\.\w+)+(?::\w+)?", node.value):
                wrong.append(f"{path}:{node.lineno} names {node.value}")
    assert not wrong, "\n".join(wrong)


# The verbs of developers, whose work is in benchmarks/scorers: the one folder of benchmarks/ that the wheel has.
SCORERS = "benchmarks.scorers."
SCORED_BY = {"advisor/commands/curve.py", "advisor/commands/estimate.py", "advisor/commands/eval_advice.py"}


def test_packages_do_not_import_tests_scripts_or_benchmarks(modules: Mapping[str, ast.Module]) -> None:
    """Tests, scripts and benchmarks are not in the wheel, so the packages cannot need them; three verbs run the scorers."""
    outside = {"tests", "scripts", "benchmarks", "docs"}
    importers = {
        path: (name, line)
        for path, tree in modules.items()
        for name, line in imported(tree)
        if name.split(".")[0] in outside
    }
    assert {path for path, (name, _) in importers.items() if name.startswith(SCORERS)} == SCORED_BY
    assert set(importers) == SCORED_BY, importers


def test_modules_do_not_import_from_package_init_files(modules: Mapping[str, ast.Module]) -> None:
    """Inside the packages a name is imported from the module that defines it; ``__init__`` is for users."""
    init_modules = {
        path.removesuffix("/__init__.py").replace("/", ".") for path in modules if "__init__" in path
    }
    names = {path.removesuffix(".py").replace("/", ".") for path in modules} | init_modules
    wrong = []
    for path, tree in modules.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                wrong += [
                    f"{path}:{node.lineno} {alias.name}" for alias in node.names if alias.name in init_modules
                ]
            elif isinstance(node, ast.ImportFrom) and node.module in init_modules:
                full = (f"{node.module}.{alias.name}" for alias in node.names)
                wrong += [f"{path}:{node.lineno} {each}" for each in full if each not in names]
    assert not wrong, "\n".join(wrong)


def test_third_party_imports_are_declared_dependencies(root: Path, modules: Mapping[str, ast.Module]) -> None:
    """Every third-party import belongs to a distribution that pyproject names, in the base or in an extra."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"].items()
    lines = [
        *project["dependencies"],
        *(line for extra, lines in extras if extra != "test" for line in lines),
    ]
    declared = {_normal(found[0]) for line in lines if (found := re.match(r"[\w.-]+", line))}
    distributions = packages_distributions()
    wrong: dict[str, str] = {}
    for path, tree in modules.items():
        for name, line in imported(tree):
            top = name.split(".")[0]
            own = top in ALLOWED or name.startswith(SCORERS)
            if top in sys.stdlib_module_names or own or top in OPTIONAL:
                continue
            if not declared & {_normal(name) for name in distributions.get(top, [top])}:
                wrong.setdefault(top, f"{path}:{line}")
    assert not wrong, f"imported but not declared: {wrong}"


def test_every_dependency_is_imported(root: Path, modules: Mapping[str, ast.Module]) -> None:
    """Each package of the base and of users' extras is imported, or listed with its reason; no extra repeats the base."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    extras = {
        name: lines
        for name, lines in project["optional-dependencies"].items()
        if name not in ("docs", "test")  # for those who work on the project
    }
    tops = {name.split(".")[0] for tree in modules.values() for name, _ in imported(tree)}
    distributions = packages_distributions()
    imports = {_normal(name) for top in tops for name in distributions.get(top, [top])}
    named = [_requirement(line) for lines in (project["dependencies"], *extras.values()) for line in lines]
    assert sorted(set(named) - imports - set(INDIRECT)) == [], "declared and not imported"
    assert sorted(set(INDIRECT) & imports) == [], "imported after all: no longer in INDIRECT"
    base = {_requirement(line) for line in project["dependencies"]}
    repeated = {name for name, lines in extras.items() if base & {_requirement(line) for line in lines}}
    assert repeated == set(), "an extra names what the base has"


def _requirement(line: str) -> str:
    """Return the distribution that a line of dependencies names."""
    match = re.match(r"[\w.-]+", line)
    assert match
    return _normal(match[0])


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()

"""Every module, public class and public function has a docstring."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

Documented = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def public(tree: ast.Module) -> Iterator[tuple[str, Documented]]:
    """Yield the public functions and classes, and the public methods of classes that inherit nothing.

    A class with bases may override a documented method; a class without bases cannot inherit a docstring.
    """
    for node in tree.body:
        if isinstance(node, Documented) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef) and not node.bases:
                for inner in node.body:
                    if isinstance(inner, Documented) and not inner.name.startswith("_"):
                        yield f"{node.name}.{inner.name}", inner


def test_module_docstrings_begin_with_a_sentence(modules: Mapping[str, ast.Module]) -> None:
    """The first paragraph is at least 15 characters and ends with a full stop or a question mark."""
    wrong = []
    for path, tree in modules.items():
        first = (ast.get_docstring(tree) or "").split("\n\n")[0]
        if not first.rstrip().endswith((".", "?")) or len(first) < 15:
            wrong.append(f"{path}: {first!r}")
    assert not wrong, "\n".join(wrong)


def test_public_names_have_docstrings(modules: Mapping[str, ast.Module]) -> None:
    """The docstring has at least two words."""
    wrong = []
    for path, tree in modules.items():
        for name, node in public(tree):
            if len((ast.get_docstring(node) or "").split()) < 2:
                wrong.append(f"{path}:{node.lineno} {name}")
    assert not wrong, "\n".join(wrong)


def test_init_files_hold_only_docstring_version_and_lazy_exports(modules: Mapping[str, ast.Module]) -> None:
    """``__init__`` files hold a docstring, ``__version__``, ``__all__`` and a lazy ``__getattr__``."""
    wrong = []
    for path, tree in modules.items():
        if not path.endswith("__init__.py"):
            continue
        for node in tree.body:
            light = isinstance(node, ast.ImportFrom) and node.module in ("__future__", "typing")
            typed = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            named = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in (
                "__version__",
                "__all__",
            )
            lazy = isinstance(node, ast.FunctionDef) and node.name in ("__getattr__", "__dir__")
            if not (light or typed or text or named or lazy):
                wrong.append(f"{path}:{node.lineno} {ast.unparse(node)[:60]}")
    assert not wrong, "\n".join(wrong)

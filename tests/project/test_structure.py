"""The arrangement of the source: layers, sizes, unique names, and words that are not used as names."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

# A subpackage or module may import what is to the left of it in its package, and any package below its own
# (tunewise -> advisor -> runners -> rag). Every name directly below a package is listed exactly once.
ORDER: dict[str, tuple[str, ...]] = {
    "rag": (
        "version", "errors", "plugins", "files", "object_storage", "text", "quantities", "sentences",
        "types", "embedding", "loading", "stores",
        "settings", "indexing", "search", "backends", "index", "grounding", "refusal", "evaluation", "training", "__init__",
    ),
    "runners": (
        "paths", "interrupts", "resources", "catalog", "data", "plan", "models", "tokenization", "run_folder", "report",
        "made_from", "tracking", "inference", "distributed", "launch", "training", "preflight", "train", "scoring",
        "synthesis", "notebook", "classification", "arms", "selective", "lookup", "logs", "runs", "labels", "judging",
        "trial", "recheck", "failures", "serving", "export", "__init__",
    ),
    "advisor": (
        "output", "terminal", "terms", "glossary", "catalog", "questionnaire", "evidence", "settings", "costs", "rules",
        "methods", "completion", "flags", "history", "recommendation", "drafting", "verdict", "report", "display", "probe",
        "compared_models", "advice",
        "harbor_desk", "wizard", "workflows", "calls", "mcp_server", "commands", "cli", "__main__", "__init__",
    ),
    "tunewise.py": ("",),  # the one import, above all packages
}  # fmt: skip

MAX_MODULE_LINES = 800
MAX_LINES_WITHOUT_REASON = 500
# Modules over 500 lines, each with the reason. An entry that is no longer needed fails the test.
LONG_MODULES: dict[str, str] = {
    "advisor/wizard/prompter.py": "the only module that imports questionary",
    "runners/arms/answer.py": "one path from a question to an answer: whole, streamed and checked",
    "runners/training/cpu_kernels.py": "the fused layers of one training pass share shapes, guards and one entry",
}

MAX_FUNCTION_LINES = 60
# Functions over 60 lines, each with the reason. An entry that is no longer needed fails the test.
LONG_FUNCTIONS: dict[str, str] = {
    "advisor/calls.py:serve": "one parameter for each flag",
    "advisor/calls.py:train": "one parameter for each flag",
    "advisor/commands/index.py:search": "one parameter for each flag",
    "advisor/commands/serve.py:command": "one parameter for each flag",
}

MAX_MODULES_PER_FOLDER = 15
# Folders with one module per verb may hold more.
LARGE_FOLDERS = {"advisor/commands", "advisor/workflows"}

MIN_LINES_OF_A_PRIVATE_MODULE = 60
# Folders with one module per item of a table, where a short module with a single importer is the pattern.
ONE_PER_ITEM = {
    "advisor/commands", "advisor/workflows", "advisor/methods", "advisor/rules", "rag/loading/formats", "rag/stores",
    "runners/export",
}  # fmt: skip

# Names that a convention repeats: the entry function of each loader, of each command module, of a verb in two groups.
REPEATED_NAMES = {("rag", "read"), ("advisor", "command"), ("advisor", "show")}

# Words that name no thing in this field. They are refused in names of modules, classes, functions, parameters and
# variables, and in docstrings. Words of the contract ("house style", the key "ladder") are taken out first.
BANNED_WORDS = {
    "clerk", "desk", "bench", "outfit", "errand", "crowd", "rung", "pane", "shelf", "ear", "slab", "nobody",
    "whoever", "stranger", "house", "floor", "ladder",
}  # fmt: skip
ALLOWED_PHRASES = re.compile(
    r"house[ _-]?styles?|in[- ]house|help desk|harbou?r[ _-]?desk|\bladder\b|`+ladder`+|math\.floor|np\.floor"
)
# Participles and fillers say nothing about what a variable holds.
BANNED_VARIABLES = {"found", "said", "made", "kept", "told"}


def _module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _imports(tree: ast.AST, names: Mapping[str, str], *, typing: bool) -> Iterator[tuple[str, int]]:
    """Yield each project module that a module imports, with the line; imports inside functions included.

    Args:
        tree: the module.
        names: dotted names of all project modules.
        typing: whether imports under ``TYPE_CHECKING`` count.
    """
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if _is_type_checking(node) and not typing:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names if alias.name in names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if full in names:
                    yield full, node.lineno
                elif node.module in names:
                    yield node.module, node.lineno
        todo.extend(ast.iter_child_nodes(node))


@pytest.fixture(scope="module")
def names(modules: Mapping[str, ast.Module]) -> dict[str, str]:
    """Dotted module name -> path."""
    return {_module_name(path): path for path in modules}


def _layer(path: str) -> tuple[str, str]:
    """Return the package of a path and its subpackage or top-level module."""
    package, _, rest = path.partition("/")
    return package, rest.split("/")[0].removesuffix(".py")


def test_every_subpackage_has_a_place_in_the_order(modules: Mapping[str, ast.Module]) -> None:
    layers = defaultdict(set)
    for path in modules:
        package, layer = _layer(path)
        layers[package].add(layer)
    for package, order in ORDER.items():
        assert sorted(order) == sorted(layers[package]), (
            f"{package}: the order lists other names than there are"
        )


def test_architecture_shows_the_order(root: Path) -> None:
    """docs/architecture.md lists the same names in the same order."""
    page = (root / "docs" / "architecture.md").read_text("utf-8")
    shown = re.search(r"```text\n(rag:.*?)```", page, re.DOTALL)
    assert shown
    listed = {}
    for part in re.split(r"^(?=\w+:)", shown[1], flags=re.MULTILINE)[1:]:
        package, _, names = part.partition(":")
        listed[package] = tuple(name.strip() for name in names.split("·"))
    for package, names in listed.items():
        assert names == tuple(name for name in ORDER[package] if not name.startswith("__")), package
    assert len(listed) == 3


def test_imports_follow_the_order(modules: Mapping[str, ast.Module], names: dict[str, str]) -> None:
    """Imports inside functions and for type checkers count as well."""
    wrong = []
    for path, tree in modules.items():
        package, layer = _layer(path)
        for target, line in _imports(tree, names, typing=True):
            other_package, other = _layer(names[target])
            if other_package == package and ORDER[package].index(other) > ORDER[package].index(layer):
                wrong.append(f"{path}:{line} imports {target}")
    assert not wrong, "\n".join(wrong)


def test_no_import_cycles(modules: Mapping[str, ast.Module], names: dict[str, str]) -> None:
    """Imports inside functions count; only those under ``TYPE_CHECKING`` do not."""
    graph = {
        name: {target for target, _ in _imports(modules[path], names, typing=False)} - {name}
        for name, path in names.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("import cycle: " + " -> ".join(error.args[1]))


def test_modules_are_not_too_long(root: Path, modules: Mapping[str, ast.Module]) -> None:
    lines = {path: len((root / path).read_text("utf-8").splitlines()) for path in modules}
    assert not [path for path, count in lines.items() if count > MAX_MODULE_LINES]
    long = {path for path, count in lines.items() if count > MAX_LINES_WITHOUT_REASON}
    assert long == set(LONG_MODULES), (
        f"over {MAX_LINES_WITHOUT_REASON} lines and listed: {long ^ set(LONG_MODULES)}"
    )


def test_functions_are_not_too_long(modules: Mapping[str, ast.Module]) -> None:
    long = {}
    for path, tree in modules.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                count = int(node.end_lineno or node.lineno) - node.lineno + 1
                if count > MAX_FUNCTION_LINES:
                    long[f"{path}:{node.name}"] = count
    assert set(long) == set(LONG_FUNCTIONS), (
        f"over {MAX_FUNCTION_LINES} lines, or listed without need: {long}"
    )


def test_folders_are_not_crowded(modules: Mapping[str, ast.Module]) -> None:
    folders = defaultdict(list)
    for path in modules:
        folder, _, file = path.rpartition("/")
        if file not in ("__init__.py", "__main__.py"):
            folders[folder].append(file)
    large = {
        folder: len(files)
        for folder, files in folders.items()
        if len(files) > MAX_MODULES_PER_FOLDER and folder not in LARGE_FOLDERS
    }
    assert not large, f"more than {MAX_MODULES_PER_FOLDER} modules: {large}"


def test_no_splinters(root: Path, modules: Mapping[str, ast.Module], names: dict[str, str]) -> None:
    """A short module that one neighbour alone imports belongs into that neighbour."""
    importers = defaultdict(set)
    for path, tree in modules.items():
        for target, _ in _imports(tree, names, typing=True):
            importers[names[target]].add(path)
    splinters = []
    for path in modules:
        folder = path.rpartition("/")[0]
        lines = len((root / path).read_text("utf-8").splitlines())
        if path.endswith("__init__.py") or folder in ONE_PER_ITEM or lines >= MIN_LINES_OF_A_PRIVATE_MODULE:
            continue
        by = importers[path]
        if len(by) == 1 and next(iter(by)).rpartition("/")[0] == folder:
            splinters.append(f"{path} ({lines} lines) is imported by {next(iter(by))} alone")
    assert not splinters, "\n".join(splinters)


def test_public_names_are_unique_in_their_package(modules: Mapping[str, ast.Module]) -> None:
    """A name that is searched for leads to one definition."""
    defined = defaultdict(list)
    for path, tree in modules.items():
        for node in tree.body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if not node.name.startswith("_"):
                defined[path.split("/")[0], node.name].append(path)
    repeated = {
        f"{package}: {name}": paths
        for (package, name), paths in defined.items()
        if len(paths) > 1 and (package, name) not in REPEATED_NAMES
    }
    assert not repeated, "\n".join(f"{name} in {', '.join(paths)}" for name, paths in repeated.items())


def test_no_object_is_reached_through_its_dict(modules: Mapping[str, ast.Module]) -> None:
    """What another object holds is read and changed by its attributes and methods."""
    reached = {
        f"{path}: {ast.unparse(node)}"
        for path, tree in modules.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "__dict__" and ast.unparse(node.value) != "self"
    }
    # A frozen copy of its own class, whose values that hold for it are carried over.
    assert reached == {"advisor/questionnaire/profile.py: changed.__dict__"}


def test_no_catch_all_modules(modules: Mapping[str, ast.Module]) -> None:
    stems = {"utils", "util", "helpers", "helper", "misc", "common", "core", "base_utils"}
    assert not [path for path in modules if set(path.removesuffix(".py").split("/")) & stems]


def test_formatting_is_not_switched_off(tracked: Mapping[str, str]) -> None:
    """``fmt: skip`` keeps tables of data readable in tests; the packages do without."""
    marked = [
        path
        for path, text in tracked.items()
        if path.endswith(".py") and path.split("/")[0] in ORDER and re.search(r"#\s*fmt:\s*(skip|off)", text)
    ]
    assert not marked


def _words_of(identifier: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", identifier)}


def _identifiers(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield every name that a module defines: classes, functions, parameters and variables.

    Fields of classes are left out: they are keys of files and of the public calls, which keep their names.
    """
    fields = {
        id(member.target)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for member in node.body
        if isinstance(member, ast.AnnAssign)
    }
    for node in ast.walk(tree):
        if id(node) in fields:
            continue
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno


def _banned_in(text: str) -> set[str]:
    """Return the banned words of a text, the allowed phrases taken out."""
    return set(re.findall(r"[a-z]+", ALLOWED_PHRASES.sub(" ", text.lower()))) & BANNED_WORDS


def test_banned_words_are_seen() -> None:
    assert _banned_in("The clerk of the house style") == {"clerk"}
    assert _banned_in("A house of cards on the shelf") == {"house", "shelf"}
    assert not _banned_in("Housing, benchmarks, early stopping")
    assert _words_of("BatchingClerk_of2") == {"batching", "clerk", "of"}


def test_names_are_words_of_the_field(modules: Mapping[str, ast.Module]) -> None:
    wrong = []
    for path, tree in modules.items():
        wrong += [path for part in path.removesuffix(".py").split("/") if _banned_in(part.replace("_", " "))]
        for name, line in _identifiers(tree):
            if _words_of(ALLOWED_PHRASES.sub(" ", name.lower())) & BANNED_WORDS or name in BANNED_VARIABLES:
                wrong.append(f"{path}:{line} {name}")
    assert not wrong, "\n".join(sorted(set(wrong)))


def test_docstrings_are_words_of_the_field(modules: Mapping[str, ast.Module]) -> None:
    wrong = []
    for path, tree in modules.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                words = _banned_in(ast.get_docstring(node) or "")
                wrong += [f"{path}:{getattr(node, 'lineno', 1)} {word}" for word in sorted(words)]
    assert not wrong, "\n".join(wrong)

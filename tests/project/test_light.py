"""Light until asked: what only talks about work does not import the libraries that do it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "faiss", "sentence_transformers")

# Runs each command line in one interpreter and tells, after each, which heavy modules are there.
PROBE = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from advisor import cli

told = []
for arguments in json.loads(sys.argv[1]) or [[name, "--help"] for name in (*cli.VERBS, *cli.GROUPS)]:
    code, out = 0, io.StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        try:
            cli.main(arguments)
        except SystemExit as stop:
            code = stop.code or 0
    heavy = [name for name in json.loads(sys.argv[2]) if name in sys.modules]
    told.append({"command": arguments, "exit": code, "heavy": heavy, "output": out.getvalue()})
print(json.dumps(told))
"""


def probe(root: Path, home: Path, commands: list[list[str]]) -> list[dict[str, object]]:
    """Run the commands in a fresh interpreter, on this tree; an empty list means every verb's help."""
    asked = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(commands), json.dumps(HEAVY)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
        env={"PATH": "", "HOME": str(home), "TUNEWISE_CACHE": str(home / "cache"), "PYTHONUTF8": "1"},
    )
    assert asked.returncode == 0, asked.stderr
    return json.loads(asked.stdout.splitlines()[-1])


ANSWERS = """
task_needs_facts: new
facts_change: fast
must_cite: true
behaviour_gap: high
labelled_examples: 800
call_volume: high
gpu_kind: none
ram_gib: 16
"""


@pytest.mark.parametrize(
    "command",
    ["--version", "--help", "plan --help", "explain", "doctor", "plan --answers {answers} --json"],
    ids=lambda line: line.replace(" {answers}", ""),
)
def test_light_commands_import_nothing_heavy(root: Path, tmp_path: Path, command: str) -> None:
    """The cause is tested, not the clock: sys.modules of a fresh interpreter."""
    answers = tmp_path / "answers.yaml"
    answers.write_text(ANSWERS, "utf-8")
    (told,) = probe(root, tmp_path, [command.format(answers=answers).split()])
    assert told["heavy"] == []
    assert told["exit"] == 0, told["output"]


def test_every_help_is_light(root: Path, tmp_path: Path) -> None:
    """Help at every level builds signatures only."""
    told = probe(root, tmp_path, [])
    assert len(told) >= 10
    assert [t for t in told if t["heavy"] or t["exit"]] == []


def test_packages_are_light_to_import(root: Path) -> None:
    """``import advisor, runners, rag`` brings nothing but the three."""
    code = "import sys; import advisor, runners, rag; print(sorted(m for m in sys.modules if '.' not in m))"
    base = "import sys; print(sorted(m for m in sys.modules if '.' not in m))"
    after, before = (
        set(ast.literal_eval(subprocess.check_output([sys.executable, "-c", c], cwd=root, text=True)))
        for c in (code, base)
    )
    assert {name for name in after - before if name not in sys.stdlib_module_names} == {
        "advisor",
        "runners",
        "rag",
    }


def test_the_map_of_weight_is_true(root: Path, modules: Mapping[str, ast.Module]) -> None:
    """Files freed of TID253 exist and do import a banned module at the top; ruff holds the reverse."""
    lint = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["ruff"]["lint"]
    banned = set(lint["flake8-tidy-imports"]["banned-module-level-imports"])
    assert set(HEAVY) <= banned
    freed = [path for path, rules in lint["per-file-ignores"].items() if "TID253" in rules]
    freed = [path for path in freed if not path.startswith(("tests/", "benchmarks/", "scripts/"))]
    assert freed, "no file is listed as heavy, yet training imports torch somewhere"
    for path in freed:
        assert path in modules, f"{path} is listed as heavy but is not there"
        assert banned & top_level_imports(modules[path]), (
            f"{path} is listed as heavy but imports nothing heavy"
        )


def top_level_imports(tree: ast.Module) -> set[str]:
    """Return the first names of what a module imports when it is imported."""
    found = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).split(".")[0])
    return found

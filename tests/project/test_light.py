"""Commands that do no work on models import none of the heavy libraries."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.limits import HANG_S

HEAVY = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "bitsandbytes",
    "faiss",
    "sentence_transformers",
    "openai",
)

# Runs each command line in one interpreter and reports, after each, which heavy modules are imported.
PROBE = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from advisor import cli

reports = []
for arguments in json.loads(sys.argv[1]) or [[name, "--help"] for name in (*cli.VERBS, *cli.GROUPS)]:
    code, out = 0, io.StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        try:
            cli.main(arguments)
        except SystemExit as stop:
            code = stop.code or 0
    heavy = [name for name in json.loads(sys.argv[2]) if name in sys.modules]
    reports.append({"command": arguments, "exit": code, "heavy": heavy, "output": out.getvalue()})
print(json.dumps(reports))
"""


def probe(root: Path, home: Path, commands: list[list[str]]) -> list[dict[str, object]]:
    """Run the commands in a new interpreter; an empty list means the help of every verb."""
    result = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(commands), json.dumps(HEAVY)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
        stdin=subprocess.DEVNULL,
        env={"PATH": "", "HOME": str(home), "TUNEWISE_CACHE": str(home / "cache"), "PYTHONUTF8": "1"},
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


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
def test_light_commands_import_no_heavy_library(root: Path, tmp_path: Path, command: str) -> None:
    """sys.modules of a new interpreter is checked rather than the time that the command takes."""
    answers = tmp_path / "answers.yaml"
    answers.write_text(ANSWERS, "utf-8")
    (report,) = probe(root, tmp_path, [command.format(answers=answers).split()])
    assert report["heavy"] == []
    assert report["exit"] == 0, report["output"]


def test_help_of_every_verb_imports_no_heavy_library(root: Path, tmp_path: Path) -> None:
    """Help only needs the signatures of the commands."""
    reports = probe(root, tmp_path, [])
    assert len(reports) >= 10
    assert [report for report in reports if report["heavy"] or report["exit"]] == []


def test_importing_the_packages_imports_nothing_else(root: Path) -> None:
    """``import tunewise`` and its packages imports only these and the standard library."""
    code = "import sys; import tunewise, advisor, runners, rag; print(sorted(m for m in sys.modules if '.' not in m))"
    base = "import sys; print(sorted(m for m in sys.modules if '.' not in m))"
    after, before = (
        set(ast.literal_eval(subprocess.check_output([sys.executable, "-c", c], cwd=root, text=True)))
        for c in (code, base)
    )
    assert {name for name in after - before if name not in sys.stdlib_module_names} == {
        "tunewise",
        "advisor",
        "runners",
        "rag",
    }


def test_tid253_exceptions_import_a_heavy_library_at_the_top(
    root: Path, modules: Mapping[str, ast.Module]
) -> None:
    """Files with an exception from TID253 exist and import a banned module at the top; ruff checks the reverse."""
    lint = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["ruff"]["lint"]
    banned = set(lint["flake8-tidy-imports"]["banned-module-level-imports"])
    assert set(HEAVY) <= banned
    excepted = [path for path, rules in lint["per-file-ignores"].items() if "TID253" in rules]
    excepted = [path for path in excepted if not path.startswith(("tests/", "benchmarks/", "scripts/"))]
    assert excepted, "no file is listed as heavy, yet training imports torch somewhere"
    for path in excepted:
        assert path in modules, f"{path} is listed as heavy but is not there"
        assert banned & top_level_imports(modules[path]), (
            f"{path} is listed as heavy but imports nothing heavy"
        )


def top_level_imports(tree: ast.Module) -> set[str]:
    """Return the first names of what a module imports when it is imported."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module).split(".")[0])
    return names

"""The README is true: its map, its verbs and flags, its exit codes, its two commands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from advisor import cli
from rag import errors


def block(text: str, marker: str) -> str:
    """Return the first fenced block after ``<!-- marker -->``."""
    found = re.search(rf"<!-- {re.escape(marker)}[^>]*-->\s*```\w*\n(.*?)\n```", text, re.DOTALL)
    assert found, f"README has no block marked {marker}"
    return found[1]


def test_the_map_lists_every_file_once(readme: str, modules: dict[str, object]) -> None:
    """Every .py file of the packages has exactly one line in the map, and every line has its file."""
    listed, folders = [], []
    for line in block(readme, "map").splitlines():
        if not (found := re.match(r"( *)(\S+)", line)):
            continue
        depth, name = len(found[1]) // 2, found[2]
        folders = [*folders[:depth], name.rstrip("/")]
        if name.endswith(".py"):
            listed.append("/".join(folders))
    assert sorted(listed) == sorted(modules)


def test_the_map_is_current(root: Path) -> None:
    """The map's words are the modules' first sentences; ``python scripts/map.py`` rewrites them."""
    asked = subprocess.run(
        [sys.executable, "scripts/map.py", "--check"], cwd=root, capture_output=True, text=True, check=False
    )
    assert asked.returncode == 0, asked.stdout + asked.stderr


def verb_rows(readme: str) -> dict[str, str]:
    """Return the table of verbs: name -> the first cell of its row."""
    table = readme.split("<!-- verbs -->")[1].split("<!-- /verbs -->")[0]
    cells = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| `tunewise")]
    return {re.search(r"`tunewise ([a-z-]+)", cell)[1]: cell for cell in cells}


def test_every_verb_is_listed_and_exists(readme: str) -> None:
    """The table of verbs is the command line's table of contents."""
    assert sorted(verb_rows(readme)) == sorted((*cli.VERBS, *cli.GROUPS))


def test_every_flag_named_exists(root: Path, readme: str) -> None:
    """A flag or sub-verb that the table names stands in the generated reference of that verb."""
    reference = (root / "docs" / "cli.md").read_text("utf-8")
    parts = [(re.match(r"tunewise ([a-z-]+)", text), text) for text in reference.split("\n## ")[1:]]
    sections = {verb[1]: text for verb, text in parts if verb}
    for verb, cell in verb_rows(readme).items():
        wanted = set(re.findall(r"--[a-z][a-z-]*", cell))
        taken = set(re.findall(r"`(--[a-z][a-z-]*)`", sections[verb]))
        assert wanted <= taken, f"{verb}: README names {sorted(wanted - taken)}"
        if verb in cli.GROUPS:
            subs = re.search(rf"tunewise {verb} ([a-z\\|]+)", cell)[1].replace("\\", "").split("|")
            assert sorted(subs) == sorted(re.findall(rf"\n### tunewise {verb} ([a-z-]+)", sections[verb]))


def test_exit_codes_are_the_error_tree(readme: str) -> None:
    """The table of exit codes has a row for every class of the error tree."""
    rows = {int(code) for code in re.findall(r"^\| (\d+) \|", readme, re.MULTILINE)}
    tree = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and hasattr(kind, "exit_code")
    }
    assert {0, *tree} <= rows
    assert "| 130 / 143 |" in readme


@pytest.mark.parametrize(
    ("marker", "command"),
    [("ci:demo", "pip install . && tunewise demo"), ("ci:test", 'pip install ".[test]" && pytest')],
)
def test_the_two_commands(readme: str, marker: str, command: str) -> None:
    """The two lines a stranger types stand in marked blocks; CI runs the second as it is written."""
    assert block(readme, marker) == command


def test_links_lead_somewhere(root: Path, readme: str) -> None:
    """Every relative link of the README and the docs points to a file that is there."""
    pages = [
        root / "README.md",
        root / "CONTRIBUTING.md",
        root / "CHANGELOG.md",
        *(root / "docs").glob("*.md"),
    ]
    wrong = []
    for page in pages:
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            if not (page.parent / target).exists():
                wrong.append(f"{page.name}: {target}")
    assert len(pages) >= 7
    assert not wrong

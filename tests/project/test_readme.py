"""README.md, docs/cli.md and docs/architecture.md agree with the code: verbs, exit codes, commands, folders and files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from advisor import cli
from rag import errors


def block(text: str, marker: str) -> str:
    """Return the first fenced block after ``<!-- marker -->``."""
    fenced = re.search(rf"<!-- {re.escape(marker)}[^>]*-->\s*```\w*\n(.*?)\n```", text, re.DOTALL)
    assert fenced, f"README has no block marked {marker}"
    return fenced[1]


def test_readme_is_short(readme: str) -> None:
    """At most 150 lines and 10 kB; the details are on the pages of docs/."""
    assert len(readme.splitlines()) <= 150
    assert len(readme.encode("utf-8")) <= 10_000


def test_architecture_names_every_subpackage(root: Path, modules: dict[str, object]) -> None:
    """docs/architecture.md has one row for every folder of the packages, and no other row."""
    page = (root / "docs" / "architecture.md").read_text("utf-8")
    folders = {path.rpartition("/")[0] + "/" for path in modules} - {"advisor/", "runners/", "rag/", "/"}
    assert set(re.findall(r"^\| `([\w/]+/)` \|", page, re.MULTILINE)) == folders


def test_architecture_names_files_that_exist(root: Path) -> None:
    """Every module that docs/architecture.md names by its path exists."""
    page = (root / "docs" / "architecture.md").read_text("utf-8")
    named = re.findall(r"`((?:advisor|runners|rag|tests)/[\w/]+\.py)`", page)
    assert len(named) > 30
    assert [path for path in named if not (root / path).is_file()] == []


def test_readme_lists_every_verb(readme: str) -> None:
    """The table of verbs names all verbs and groups of the command line, and no others."""
    table = readme.split("<!-- verbs -->")[1].split("<!-- /verbs -->")[0]
    named = [name for line in table.splitlines()[2:] for name in re.findall(r"`([a-z-]+)`", line)]
    assert sorted(named) == sorted((*cli.VERBS, *cli.GROUPS))


def test_reference_lists_every_exit_code(root: Path) -> None:
    """The table of exit codes has a row for every class of the error tree."""
    page = (root / "docs" / "cli.md").read_text("utf-8")
    rows = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    tree = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and hasattr(kind, "exit_code")
    }
    assert {0, *tree} <= rows
    assert "| 130 / 143 |" in page


@pytest.mark.parametrize(
    ("marker", "command"),
    [("ci:demo", "pip install . && tunewise demo"), ("ci:test", 'pip install ".[test]" && pytest')],
)
def test_marked_command_blocks_hold_the_documented_commands(readme: str, marker: str, command: str) -> None:
    """The commands for trying and for testing are in marked blocks; CI runs the second as it is written."""
    assert block(readme, marker) == command


def test_relative_links_lead_to_files(root: Path, readme: str) -> None:
    """Every relative link of the README and the docs points to an existing file."""
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

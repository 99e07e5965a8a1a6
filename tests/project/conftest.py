"""Fixtures of the tests that read the source: every module of the packages, parsed once."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

PACKAGES = ("advisor", "runners", "rag")


@pytest.fixture(scope="session")
def modules(root: Path) -> Mapping[str, ast.Module]:
    """Every .py file of the packages, as POSIX path -> syntax tree."""
    paths = sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))
    paths.append(root / "tunewise.py")
    trees = {
        path.relative_to(root).as_posix(): ast.parse(path.read_text("utf-8"), str(path)) for path in paths
    }
    assert len(trees) > 40, "the packages were not found"
    return trees


@pytest.fixture(scope="session")
def tracked(root: Path) -> Mapping[str, str]:
    """Every text file that git tracks or would track (without git: those of packages and tests)."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode == 0:
        names = sorted(set(listing.stdout.splitlines()))
    else:
        folders = (*PACKAGES, "tests")
        names = [
            path.relative_to(root).as_posix() for folder in folders for path in (root / folder).rglob("*.*")
        ]
    texts = {}
    for name in names:
        if (root / name).is_file() and "__pycache__" not in name:
            data = (root / name).read_bytes()
            if b"\0" not in data:
                texts[name] = data.decode("utf-8")
    return texts


@pytest.fixture(scope="session")
def readme(root: Path) -> str:
    """The README's text."""
    return (root / "README.md").read_text("utf-8")

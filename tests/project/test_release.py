"""What a release consists of besides the code: one version everywhere, and files that name nobody and no address."""

from __future__ import annotations

import re
import tomllib
from datetime import date
from pathlib import Path

import pytest
import yaml

FORMS = ("bug.yml", "wrong_advice.yml", "feature.yml")


@pytest.fixture(scope="module")
def project(root: Path) -> dict:
    """The project table of pyproject.toml."""
    return tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.fixture(scope="module")
def citation(root: Path) -> dict:
    """CITATION.cff."""
    return yaml.safe_load((root / "CITATION.cff").read_text("utf-8"))


def test_version_is_the_same_everywhere(root: Path, project: dict, citation: dict) -> None:
    """pyproject.toml, CITATION.cff and the newest dated part of the changelog agree."""
    headings = re.findall(r"^## (.+)$", (root / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert headings[0] == "Unreleased"
    version, _, day = headings[1].partition(" - ")
    assert version == project["version"] == citation["version"]
    assert date.fromisoformat(day).isoformat() == citation["date-released"]


def test_citation_has_what_its_schema_requires(project: dict, citation: dict) -> None:
    """Version 1.2.0 of the format requires these four, and an author to be a person or a named group."""
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert citation["authors"] == [{"name": "The tunewise developers"}]
    assert (citation["title"], citation["license"]) == (project["name"], project["license"])


def test_issue_forms_are_valid_and_ask_for_the_bundle(root: Path) -> None:
    """Every form has what GitHub requires: name, description, and a body of inputs with unique ids."""
    folder = root / ".github" / "ISSUE_TEMPLATE"
    assert {path.name for path in folder.iterdir()} == {*FORMS, "config.yml"}
    for name in FORMS:
        form = yaml.safe_load((folder / name).read_text("utf-8"))
        assert form["name"]
        assert form["description"]
        inputs = [part for part in form["body"] if part["type"] != "markdown"]
        assert inputs
        assert len({part["id"] for part in inputs}) == len(inputs)
        assert all(part["attributes"]["label"] for part in inputs)
    assert "doctor --bundle" in (folder / "bug.yml").read_text("utf-8")


def test_no_person_or_address_is_named(root: Path) -> None:
    """There is no address yet at which the project could be reached: none may be made up."""
    files = [root / "SECURITY.md", root / "CITATION.cff", *(root / ".github").rglob("*.*")]
    assert len(files) >= 7
    for path in files:
        assert not re.search(r"https?://|\w@\w|github\.com", path.read_text("utf-8")), path


def test_metadata_is_true(root: Path, project: dict) -> None:
    """The oldest Python is the required one, there are no links, and the licence is an SPDX expression."""
    pythons = [line.rpartition(" ")[2] for line in project["classifiers"] if ":: Python :: 3." in line]
    assert f">={pythons[0]}" == project["requires-python"]
    assert "urls" not in project
    assert project["license"] == "Apache-2.0"
    assert not [line for line in project["classifiers"] if line.startswith("License")]
    assert all((root / package / "py.typed").is_file() for package in ("advisor", "runners", "rag"))

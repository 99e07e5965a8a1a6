"""AGENTS.md and the skill: their form, and that they name what exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from advisor.cli import main


def test_skill_keeps_the_form_and_is_printed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Front matter of an Agent Skill: the name is the folder's, the description at most 1,024 characters."""
    file = root / "advisor" / "skills" / "tunewise" / "SKILL.md"
    text = file.read_text("utf-8")
    _, front, body = text.split("---\n", 2)
    facts = yaml.safe_load(front)
    assert facts["name"] == file.parent.name
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", facts["name"])
    assert 50 < len(facts["description"]) <= 1024
    assert len(text.splitlines()) <= 150
    assert "```bash" in body
    with pytest.raises(SystemExit) as ended:
        main(["mcp", "--skill"])
    assert not ended.value.code
    assert capsys.readouterr().out == text


def test_agents_file_is_short_and_names_what_exists(root: Path) -> None:
    text = (root / "AGENTS.md").read_text("utf-8")
    assert len(text.splitlines()) <= 120
    shown = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    paths = re.findall(r"`([\w.-]+(?:/[\w.-]+)+/?|[\w-]+\.(?:md|toml)|[a-z]+/)`", shown)
    assert len(paths) > 20
    assert [path for path in paths if not (root / path).exists()] == []
    assert [link for link in re.findall(r"\]\(([^)#]+)\)", text) if not (root / link).exists()] == []

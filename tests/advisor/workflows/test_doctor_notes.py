"""Doctor says how chats are written for a model on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from advisor.workflows.doctor import (
    chat_notes,
    declared_requirements,
    examine_machine,
    required_packages,
    show_examination,
)
from runners.resources.machine import Machine


def test_base_model_without_template_and_reasoning_model_are_said(tmp_path: Path) -> None:
    Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?")).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "?"}), "utf-8")
    assert "no chat template" in chat_notes(str(tmp_path))[0]
    template = (
        "{% for m in messages %}{{ m.role + m.content }}{% endfor %}"
        "{% if add_generation_prompt and not enable_thinking %}<think></think>{% endif %}"
    )
    (tmp_path / "chat_template.jinja").write_text(template, "utf-8")
    assert "can reason before it answers: that is off (enable_thinking=False)" in chat_notes(str(tmp_path))[0]
    assert chat_notes("no-such-model") == []


def test_missing_packages_of_base_and_extras_are_listed(
    laptop: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    requirements = [
        "torch>=2.10",
        "nowhere-office>=1.0",
        'nowhere-store[pool]>=3; extra == "store"',
        'torch>=2.10; extra == "nothing-more"',
        "nowhere-theme; extra == 'docs'",
    ]
    examined = examine_machine(machine=laptop, requirements=requirements)
    assert examined["packages"]["nowhere-office"] is None
    assert any(
        line.startswith("nowhere-office is missing: tunewise needs it") for line in examined["warnings"]
    )
    assert examined["extras"] == [
        {"extra": "store", "installed": False, "missing": ["nowhere-store"]},
        {"extra": "nothing-more", "installed": True, "missing": []},
    ]
    show_examination(examined)
    assert "extras not installed: store; add one with: pip install" in " ".join(
        capsys.readouterr().out.split()
    )


def test_what_reads_office_files_and_serves_is_part_of_the_base() -> None:
    """The names of the former extras stay, so that commands of before go on; ``doctor`` shows the packages."""
    import tomllib

    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text("utf-8"))["project"]
    lines = [*project["dependencies"]]
    base = set(required_packages(lines)[""])
    assert {"python-docx", "python-pptx", "openpyxl", "fastapi", "uvicorn", "sse-starlette", "mcp"} <= base
    extras = project["optional-dependencies"]
    assert [extras[name] for name in ("office", "serve", "mcp")] == [[], [], []]
    assert "torch" in required_packages(declared_requirements())[""]

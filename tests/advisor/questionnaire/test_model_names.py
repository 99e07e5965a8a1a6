"""Validation of model names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from advisor.questionnaire.gather import check_model
from rag.errors import BadInput


@pytest.mark.parametrize(
    "name", [None, "", "qwen3-8b", "Qwen/Qwen3-8B", "openai:any@http://127.0.0.1:8000/v1"]
)
def test_check_model_accepts_known_names(name: str | None) -> None:
    """A name of the table, a hub id in it, an endpoint, and no name at all."""
    assert check_model(name) == ""


def test_check_model_accepts_a_folder(tmp_path: Path) -> None:
    assert check_model(str(tmp_path)) == ""


def test_check_model_notes_unknown_size_of_hub_id() -> None:
    """Its size is unknown, unless it was answered."""
    assert "model_params_b" in check_model("acme/great-7b")
    assert check_model("acme/great-7b", sized=True) == ""


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("qwen3-8", "did you mean qwen3-8b?"),
        ("nonsense", "openai:NAME@URL"),
        ("gpt-4o-mini", "openai:gpt-4o-mini@https://"),
        ("./nowhere", "no such folder"),
        ("a/b/c", "OWNER/NAME"),
        ("openai:broken", "openai:my-model@"),
    ],
)
def test_check_model_rejects_other_names_with_hint(name: str, hint: str) -> None:
    with pytest.raises(BadInput) as refused:
        check_model(name)
    assert name in refused.value.message
    assert hint in refused.value.hint


def test_plan_command_rejects_unknown_model(tunewise: Any) -> None:
    """From the flag and from --set: exit code 3 before anything is written."""
    for arguments in (["--model", "qwen3-8"], ["--set", "model=qwen3-8"]):
        done = tunewise("plan", *arguments, "--json")
        assert done.returncode == 3
        assert "did you mean qwen3-8b?" in done.stderr
        assert done.stdout == ""

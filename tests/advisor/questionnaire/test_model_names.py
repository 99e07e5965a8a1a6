"""A model's name must mean something before advice is given about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from advisor.questionnaire.gather import check_model
from rag.errors import BadInput


@pytest.mark.parametrize(
    "name", [None, "", "qwen3-8b", "Qwen/Qwen3-8B", "openai:any@http://127.0.0.1:8000/v1"]
)
def test_known_names_pass(name: str | None) -> None:
    """A name of the table, a hub id in it, an endpoint, and no name at all."""
    assert check_model(name) == ""


def test_a_folder_passes(tmp_path: Path) -> None:
    """Whatever is in it is judged later."""
    assert check_model(str(tmp_path)) == ""


def test_an_id_of_the_hub_passes_with_a_note() -> None:
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
def test_others_are_refused_with_what_would_do(name: str, hint: str) -> None:
    """The value is named, and the hint fits it."""
    with pytest.raises(BadInput) as refused:
        check_model(name)
    assert name in refused.value.message
    assert hint in refused.value.hint


def test_the_command_line_refuses_it(tunewise: Any) -> None:
    """From the flag, from --set and in a what-if: exit 3 before anything is written."""
    for arguments in (["--model", "qwen3-8"], ["--set", "model=qwen3-8"]):
        done = tunewise("plan", *arguments, "--json")
        assert done.returncode == 3
        assert "did you mean qwen3-8b?" in done.stderr
        assert done.stdout == ""

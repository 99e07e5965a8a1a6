"""Profiles kept under a name: written whole, with absolute paths, checked when they are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from advisor.questionnaire import answers_files
from advisor.questionnaire.answers import Answers
from advisor.questionnaire.answers_files import read_answers
from rag.errors import BadInput


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point the setting at a folder of the test."""
    folder = tmp_path / "profiles"
    monkeypatch.setenv("TUNEWISE_PROFILES", str(folder))
    return folder


def test_round_trip(kept: Path) -> None:
    """What a person said, and nothing that was measured."""
    answers = (
        Answers().put("flag", {"goal": "Sort mail", "must_cite": False}).put("asked", {"budget_usd": None})
    )
    path = answers_files.save_profile("mail", answers.put("detected", {"ram_gib": 4}))
    assert path == kept / "mail.yaml" == answers_files.find_profile("mail")
    values = {key: answer.value for key, answer in read_answers(path).items()}
    assert values == {"goal": "Sort mail", "must_cite": False, "budget_usd": None}
    assert [profile.name for profile in answers_files.all_profiles()] == ["mail"]


def test_paths_become_absolute(kept: Path, desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a profile can be used from anywhere; a text that names no file stays as it is."""
    monkeypatch.chdir(desk.folder)
    answers = Answers().put("flag", {"documents": "documents", "prompt": "Be kind.", "model": "qwen3-8b"})
    read = read_answers(answers_files.save_profile("desk", answers))
    assert read["documents"].value == str(desk.documents)
    assert read["prompt"].value == "Be kind."
    assert read["model"].value == "qwen3-8b"


@pytest.mark.parametrize("name", ["", "A b", "../up", ".hidden", "x" * 65, "a/b"])
def test_names_that_are_no_files_are_refused(kept: Path, name: str) -> None:
    """Before anything is written or read."""
    for act in (
        lambda: answers_files.save_profile(name, Answers().put("flag", {"goal": "x"})),
        lambda: answers_files.find_profile(name),
    ):
        with pytest.raises(BadInput, match="cannot be named"):
            act()
    assert not kept.exists()


def test_nothing_to_keep_and_nothing_kept(kept: Path) -> None:
    """Both say what to do."""
    with pytest.raises(BadInput, match="nothing to keep"):
        answers_files.save_profile("empty", Answers().put("detected", {"ram_gib": 4}))
    with pytest.raises(BadInput) as refused:
        answers_files.find_profile("mail")
    assert "tunewise plan --save NAME" in refused.value.hint
    assert answers_files.all_profiles() == ()


def test_the_command_line_keeps_lists_and_takes_up(kept: Path, tunewise: Any, desk: Any) -> None:
    """--save, --profiles, --profile with a flag over it; a near miss and a damaged file in one line each."""
    said = ["--set", "task_needs_facts=new", "--set", "goal=Sort [mail]"]
    done = tunewise("plan", *said, "--save", "mail", "--json")
    assert done.returncode == 0, done.stderr
    assert "tunewise plan --profile mail" in done.stderr
    again = json.loads(tunewise("plan", "--profile", "mail", "--set", "behaviour_gap=none", "--json").stdout)
    assert again["choice"] == "rag"
    assert again["profile"]["task_needs_facts"] == {"value": "new", "source": "file", "note": ""}
    miss = tunewise("plan", "--profile", "mial")
    assert miss.returncode == 3
    assert "did you mean mail?" in miss.stderr
    (kept / "torn.yaml").write_text("must_site: true\n", "utf-8")
    assert tunewise("plan", "--profile", "torn").returncode == 3
    listed = json.loads(tunewise("plan", "--profiles", "--json").stdout)
    assert [row["name"] for row in listed["profiles"]] == ["mail", "torn"]
    assert "must_site" in listed["profiles"][1]["problem"]
    shown = tunewise("plan", "--profiles").stdout
    assert "Sort [mail]" in shown

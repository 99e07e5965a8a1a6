"""Layers of answers, and the files they come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from advisor.questionnaire.answers import Answer, Answers
from advisor.questionnaire.answers_files import read_answers, save_answers, with_answers_file
from rag.errors import BadInput


def test_the_strongest_source_wins() -> None:
    """Flag over file over asked over detected over default."""
    answers = Answers()
    for source in ("default", "detected", "counted", "probed", "asked", "file", "flag"):
        answers = answers.put(source, {"ram_gib": 1}, f"by {source}")
        assert answers["ram_gib"] == Answer(1, source, f"by {source}")


def test_explicit_unknown_hides_what_was_detected() -> None:
    """A null in a file says unknown; it does not mean: look yourself."""
    answers = Answers().put("detected", {"gpu_memory_gib": 8}).put("file", {"gpu_memory_gib": None})
    assert answers["gpu_memory_gib"].value is None


def test_a_changed_answer_counts_whatever_held_it() -> None:
    """The review screen can change what a flag or file said."""
    answers = Answers().put("flag", {"must_cite": True}).override("must_cite", False)
    assert answers["must_cite"] == Answer(False, "asked")


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_files_round_trip(tmp_path: Path, suffix: str) -> None:
    """What a person said is saved; what was measured is not."""
    answers = Answers().put("asked", {"must_cite": True, "budget_usd": "none", "goal": None})
    answers = answers.put("detected", {"ram_gib": 4})
    path = tmp_path / f"a{suffix}"
    if suffix == ".json":
        path.write_text(json.dumps({"must_cite": True, "budget_usd": "none", "goal": None}), "utf-8")
    else:
        save_answers(answers, path)
    loaded = with_answers_file(Answers(), read_answers(path))
    assert loaded.values_known == {"goal": None, "must_cite": True, "budget_usd": "none"}
    assert {loaded[key].source for key in loaded} == {"file"}


def test_a_plan_is_an_answers_file(tmp_path: Path) -> None:
    """A plan's answers keep what a person said; what was measured is measured again."""
    path = tmp_path / "plan.yaml"
    path.write_text(
        "schema: 1\nanswers:\n"
        "  must_cite: {value: true, source: asked, note: ''}\n"
        "  ram_gib: {value: 4, source: detected, note: elsewhere}\n"
        "  prompting_pass_rate: {value: 0.4, source: probed, note: 10 of 25}\n",
        "utf-8",
    )
    loaded = with_answers_file(Answers(), read_answers(path))
    assert set(loaded) == {"must_cite", "prompting_pass_rate"}
    assert loaded["prompting_pass_rate"].source == "probed"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("must_site: true\n", "did you mean must_cite"),
        ("- must_cite\n", "no mapping"),
        ("must_cite: [\n", "cannot be parsed"),
        ("must_cite: maybe\n", "must_cite cannot be 'maybe'"),
        ("a: &x 1\ngoal: *x\n", "aliases are not allowed"),
        ("must_cite: {value: true, sauce: asked}\n", "value, source and note"),
        ("must_cite: {value: true, source: heard}\n", "unknown source 'heard'"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, text: str, said: str) -> None:
    """The file is named, with the key and what would do."""
    path = tmp_path / "answers.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(BadInput) as refused:
        read_answers(path)
    assert said in str(refused.value)
    assert "answers.yaml" in refused.value.message


def test_missing_binary_and_empty_files(tmp_path: Path) -> None:
    """Missing and undecodable files are refused; an empty one holds no answers."""
    with pytest.raises(BadInput, match="no answers file"):
        read_answers(tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="UTF-8"):
        read_answers(tmp_path / "b.yaml")
    (tmp_path / "e.yaml").write_text("", "utf-8")
    assert read_answers(tmp_path / "e.yaml") == {}

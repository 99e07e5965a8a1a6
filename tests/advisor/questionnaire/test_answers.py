"""Layers of answers, and answers files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from advisor.questionnaire.answers import Answer, Answers
from advisor.questionnaire.answers_files import read_answers, save_answers, with_answers_file
from rag.errors import BadInput


def test_answers_strongest_source_wins() -> None:
    """Flag over file over asked over detected over default."""
    answers = Answers()
    for source in ("default", "detected", "counted", "probed", "asked", "file", "flag"):
        answers = answers.put(source, {"ram_gib": 1}, f"by {source}")
        assert answers["ram_gib"] == Answer(1, source, f"by {source}")


def test_explicit_unknown_hides_detected_value() -> None:
    """A null in a file means unknown, not "detect it"."""
    answers = Answers().put("detected", {"gpu_memory_gib": 8}).put("file", {"gpu_memory_gib": None})
    assert answers["gpu_memory_gib"].value is None


def test_override_replaces_flag_answer() -> None:
    """As the review screen does."""
    answers = Answers().put("flag", {"must_cite": True}).override("must_cite", False)
    assert answers["must_cite"] == Answer(False, "asked")


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_answers_file_round_trip(tmp_path: Path, suffix: str) -> None:
    """Answers of a person are saved, measured ones are not."""
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


def test_read_answers_accepts_a_plan(tmp_path: Path) -> None:
    """Of a plan's answers those of a person and probed ones are taken over."""
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
    ("text", "message"),
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
def test_read_answers_rejects_broken_files(tmp_path: Path, text: str, message: str) -> None:
    """The error names the file and the problem."""
    path = tmp_path / "answers.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(BadInput) as refused:
        read_answers(path)
    assert message in str(refused.value)
    assert "answers.yaml" in refused.value.message


def test_read_answers_missing_binary_and_empty_files(tmp_path: Path) -> None:
    """Missing and undecodable files are refused; an empty one holds no answers."""
    with pytest.raises(BadInput, match="no answers file"):
        read_answers(tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="UTF-8"):
        read_answers(tmp_path / "b.yaml")
    (tmp_path / "e.yaml").write_text("", "utf-8")
    assert read_answers(tmp_path / "e.yaml") == {}

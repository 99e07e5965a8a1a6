"""Layers of answers, and answers files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from advisor.probe.answers_from_probe import overridden_answers
from advisor.questionnaire.answers import SOURCES, Answer, Answers
from advisor.questionnaire.answers_files import read_answers, save_answers, save_profile, with_answers_file
from advisor.questionnaire.gather import complete_situation, with_answers_of
from rag.errors import BadInput
from runners.resources.machine import Machine


def test_answers_strongest_source_wins() -> None:
    """Flag over file over asked over detected over default."""
    answers = Answers()
    for source in ("default", "detected", "counted", "probed", "asked", "file", "flag"):
        answers = answers.put(source, {"ram_gib": 1}, f"by {source}")
        assert answers["ram_gib"] == Answer(1, source, f"by {source}")


@pytest.mark.parametrize("weaker", ["file", "asked", "config", "probed", "counted", "detected", "default"])
def test_unknown_never_hides_a_known_answer(weaker: str) -> None:
    """Whatever the source of the "I don't know" and of the value."""
    for stronger in SOURCES[: SOURCES.index(weaker)]:
        answers = Answers().put(weaker, {"ram_gib": 8}).put(stronger, {"ram_gib": None})
        assert answers["ram_gib"] == Answer(8, weaker), stronger
        assert answers.values_known == {"ram_gib": 8}


def test_unknown_is_the_answer_where_no_source_has_a_value() -> None:
    """Its source is the strongest that gave it."""
    answers = Answers().put("file", {"ram_gib": None}).put("asked", {"ram_gib": None})
    assert answers["ram_gib"] == Answer(None, "file")
    assert answers.value("ram_gib") is None
    assert not answers.from_person("ram_gib")


def test_null_in_a_file_leaves_the_machine_detected(laptop: Machine) -> None:
    """Of the GPU as of the memory."""
    nulls = dict.fromkeys(("gpu_kind", "gpu_count", "gpu_memory_gib", "ram_gib", "model"))
    answers = complete_situation(Answers().put("file", nulls), laptop).answers
    assert {key: answers[key].source for key in nulls} == dict.fromkeys(nulls, "detected") | {
        "model": "default"
    }


def test_probe_counts_over_null_of_file_profile_and_half_way_save(
    tmp_path: Path, laptop: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A profile and answers saved half-way write the unknown answer as null."""
    monkeypatch.setenv("TUNEWISE_PROFILES", str(tmp_path / "profiles"))
    given = Answers().put("asked", {"behaviour_gap": None, "must_cite": True})
    save_answers(given, tmp_path / "half.yaml")
    profile = save_profile("desk", given)
    (tmp_path / "answers.yaml").write_text("must_cite: true\nbehaviour_gap: null\n", "utf-8")
    probed = {"behaviour_gap": Answer("high", "probed", "probe of tern: 2 of 25")}
    for path in (tmp_path / "half.yaml", profile, tmp_path / "answers.yaml"):
        assert "behaviour_gap: null" in path.read_text("utf-8")
        answers = with_answers_of(Answers(), path).add("probed", probed)
        assert complete_situation(answers, laptop).profile.behaviour_gap == "high", path.name
        assert overridden_answers(answers) == {}


def test_saved_answers_hold_what_a_probe_settled(tmp_path: Path) -> None:
    """With source and note, so that an interrupted interview does not lose the measurement."""
    probed = {"behaviour_gap": Answer("high", "probed", "probe of tern: 2 of 25")}
    answers = Answers().put("asked", {"behaviour_gap": None, "must_cite": True}).add("probed", probed)
    save_answers(answers, tmp_path / "half.yaml")
    loaded = with_answers_file(Answers(), read_answers(tmp_path / "half.yaml"))
    assert loaded["behaviour_gap"] == probed["behaviour_gap"]
    assert loaded["must_cite"] == Answer(True, "file")


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
        ("- must_cite\n", "not a mapping"),
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

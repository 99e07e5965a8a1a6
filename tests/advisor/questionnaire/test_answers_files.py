"""Profiles saved under a name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from advisor.advice import recommend
from advisor.drafting.draft import draft_plan
from advisor.probe.answers_from_probe import answers_of_this_model
from advisor.questionnaire import answers_files
from advisor.questionnaire.answers import Answer, Answers
from advisor.questionnaire.answers_files import read_answers
from advisor.questionnaire.gather import complete_situation, flag_answers, with_answers_of
from advisor.questionnaire.probe_facts import PROBE_FACTS, ProbeFacts, ProbeShare
from rag.errors import BadInput
from runners.plan.schema import write_plan


@pytest.fixture
def profiles_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point TUNEWISE_PROFILES to a folder of the test."""
    folder = tmp_path / "profiles"
    monkeypatch.setenv("TUNEWISE_PROFILES", str(folder))
    return folder


def test_saved_profile_round_trip(profiles_folder: Path) -> None:
    """Answers of a person are saved, detected ones are not."""
    answers = (
        Answers().put("flag", {"goal": "Sort mail", "must_cite": False}).put("asked", {"budget_usd": None})
    )
    path = answers_files.save_profile("mail", answers.put("detected", {"ram_gib": 4}))
    assert path == profiles_folder / "mail.yaml" == answers_files.find_profile("mail")
    values = {key: answer.value for key, answer in read_answers(path).items()}
    assert values == {"goal": "Sort mail", "must_cite": False, "budget_usd": None}
    assert [profile.name for profile in answers_files.all_profiles()] == ["mail"]


def test_saved_profile_has_absolute_paths(
    profiles_folder: Path, task_files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text that is no path stays as it is."""
    monkeypatch.chdir(task_files.folder)
    answers = Answers().put("flag", {"documents": "documents", "prompt": "Be kind.", "model": "qwen3-8b"})
    read = read_answers(answers_files.save_profile("ferry", answers))
    assert read["documents"].value == str(task_files.documents)
    assert read["prompt"].value == "Be kind."
    assert read["model"].value == "qwen3-8b"


@pytest.mark.parametrize("name", ["", "A b", "../up", ".hidden", "x" * 65, "a/b"])
def test_invalid_profile_names_are_rejected(profiles_folder: Path, name: str) -> None:
    for act in (
        lambda: answers_files.save_profile(name, Answers().put("flag", {"goal": "x"})),
        lambda: answers_files.find_profile(name),
    ):
        with pytest.raises(BadInput, match="cannot be named"):
            act()
    assert not profiles_folder.exists()


def test_empty_or_missing_profile_says_what_to_do(profiles_folder: Path) -> None:
    with pytest.raises(BadInput, match="nothing to save"):
        answers_files.save_profile("empty", Answers().put("detected", {"ram_gib": 4}))
    with pytest.raises(BadInput) as refused:
        answers_files.find_profile("mail")
    assert "tunewise plan --save NAME" in refused.value.hint
    assert answers_files.all_profiles() == ()


def test_cli_saves_lists_and_loads_profiles(profiles_folder: Path, tunewise: Any, task_files: Any) -> None:
    """plan --save, --profiles and --profile with a flag over it; a misspelt name; a damaged file."""
    flags = ["--set", "task_needs_facts=new", "--set", "goal=Sort [mail]"]
    done = tunewise("plan", *flags, "--save", "mail", "--json")
    assert done.returncode == 0, done.stderr
    assert "tunewise plan --profile mail" in done.stderr
    again = json.loads(tunewise("plan", "--profile", "mail", "--set", "behaviour_gap=none", "--json").stdout)
    assert again["choice"] == "rag"
    assert again["profile"]["task_needs_facts"] == {"value": "new", "source": "file", "note": ""}
    misspelt = tunewise("plan", "--profile", "mial")
    assert misspelt.returncode == 3
    assert "did you mean mail?" in misspelt.stderr
    (profiles_folder / "torn.yaml").write_text("must_site: true\n", "utf-8")
    assert tunewise("plan", "--profile", "torn").returncode == 3
    listed = json.loads(tunewise("plan", "--profiles", "--json").stdout)
    assert [row["name"] for row in listed["profiles"]] == ["mail", "torn"]
    assert "must_site" in listed["profiles"][1]["problem"]
    shown = tunewise("plan", "--profiles").stdout
    assert "Sort [mail]" in shown


MEASURED = ProbeFacts(
    closed_book=ProbeShare(2, 30), passes=ProbeShare(3, 40), classifier=ProbeShare(310, 400), reply_f1=0.25
)


def test_probe_facts_are_carried_by_answers_file_and_plan(task_files: Any, tmp_path: Path) -> None:
    """They are no answer: not listed, not settable; for another model only the classifier is left."""
    flags = {"examples": str(task_files.examples), "questions": str(task_files.questions)}
    probed = {
        PROBE_FACTS: Answer(MEASURED.to_json(), "probed", "probe of smollm2-135m-instruct: 30 questions")
    }
    answers = Answers().put("flag", flags).add("probed", probed)
    assert list(answers) == ["examples", "questions"]
    answers_files.save_answers(answers, tmp_path / "answers.yaml")
    write_plan(draft_plan(recommend(answers)), tmp_path / "plan.yaml")
    for file in ("answers.yaml", "plan.yaml"):
        read = with_answers_of(Answers(), tmp_path / file)
        assert complete_situation(read).profile.probe == MEASURED
        other = answers_of_this_model(read.put("flag", {"model": "gemma-3-270m"}))[0]
        assert other.probe == ProbeFacts(classifier=MEASURED.classifier)
    with pytest.raises(BadInput, match="unknown question 'probe'"):
        flag_answers(["probe=1"])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{value: {style: {right: 3, n: 2}}, source: probed}", "style cannot be"),
        ("{value: {style: {right: 0, n: 0}}, source: probed}", "style cannot be"),
        ("{value: {reply_f1: 2}, source: probed}", "reply_f1 cannot be"),
        ("{value: {depth: 2}, source: probed}", "with some of closed_book"),
        ("{value: {reply_f1: 0.5}}", "is measured, not answered"),
    ],
)
def test_invalid_probe_facts_are_rejected(tmp_path: Path, entry: str, message: str) -> None:
    (tmp_path / "answers.yaml").write_text(f"probe: {entry}\n", "utf-8")
    with pytest.raises(BadInput) as problem:
        read_answers(tmp_path / "answers.yaml")
    assert message in str(problem.value)

"""Answers, files and machine come together, each with its source."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advisor.questionnaire.answers import Answers
from advisor.questionnaire.gather import complete_situation, flag_answers, prompt_text, with_answers_of
from rag.errors import BadInput
from runners.resources.machine import Machine


def test_files_are_counted(desk: Any, laptop: Machine) -> None:
    """What the files hold is found, with how; the default model and the machine are told apart."""
    given = flag_answers([], documents=desk.documents, examples=desk.examples, questions=desk.questions)
    found = complete_situation(given, laptop)
    answers = found.answers
    assert answers["labelled_examples"].value == 60
    assert answers["task_needs_facts"].value == "new"
    assert answers["corpus_tokens"].value > 0
    assert "5 documents" in answers["corpus_tokens"].note
    assert answers["output_format"].value == "free"
    assert {answers[k].source for k in ("labelled_examples", "corpus_tokens", "prompt_tokens")} == {"counted"}
    assert answers["model"].source == "default"
    assert answers["ram_gib"].source == "detected"
    assert found.profile.question_count == 12


def test_repeats_count_once(desk: Any, laptop: Machine, make_rows: Any, make_example: Any) -> None:
    """Sixty rows of which forty repeat are twenty examples, and that is said."""
    make_rows(desk.examples, [make_example(n % 20) for n in range(60)])
    found = complete_situation(flag_answers([], examples=desk.examples), laptop)
    assert found.answers["labelled_examples"].value == 20
    assert "40 exact" in found.answers["labelled_examples"].note


def test_questions_in_the_examples_are_refused(desk: Any, laptop: Machine, make_rows: Any) -> None:
    """Held-out questions that training gives away: rows named."""
    make_rows(desk.questions, [{"question": "when does BOAT 7 sail?"}, {"question": "Where is the pier?"}])
    with pytest.raises(BadInput) as refused:
        complete_situation(flag_answers([], examples=desk.examples, questions=desk.questions), laptop)
    assert "questions.jsonl:1 = " in refused.value.message
    assert "examples.jsonl:8" in refused.value.message


@pytest.mark.parametrize("key", ["documents", "examples", "questions"])
def test_missing_files_are_refused(desk: Any, laptop: Machine, key: str) -> None:
    """The key and the path are named."""
    with pytest.raises(BadInput, match=f"the {key} path .*nowhere does not exist"):
        complete_situation(flag_answers([], **{key: desk.folder / "nowhere"}), laptop)


def test_another_machine_is_not_mixed_with_this_one(laptop: Machine) -> None:
    """Whoever names a GPU's memory plans for another machine: nothing detected about GPUs is kept."""
    found = complete_situation(flag_answers(["gpu_memory_gib=48", "gpu_count=1", "model_params_b=8"]), laptop)
    assert "gpu_kind" not in found.answers
    assert found.profile.has_gpu is True
    assert found.answers["ram_gib"].value == 16.0


def test_a_size_without_a_model_is_not_the_default_model(laptop: Machine) -> None:
    """The default model's size must not stand in for an explicit one, unknown included."""
    for size in ("8", "?"):
        found = complete_situation(flag_answers([f"model_params_b={size}"]), laptop)
        assert found.profile.model is None
    assert found.profile.params_b is None


def test_a_model_folder_is_measured(laptop: Machine, tmp_path: Path) -> None:
    """Parameters come from its config."""
    config = {
        "model_type": "llama",
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "vocab_size": 1000,
        "intermediate_size": 128,
    }
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    found = complete_situation(flag_answers([], model=tmp_path), laptop)
    assert found.profile.params_b == pytest.approx(0.0001, abs=0.0001)
    assert found.answers["model_params_b"].source == "detected"


def test_paths_in_a_file_start_at_the_file(desk: Any, laptop: Machine) -> None:
    """An answers file can lie beside its data."""
    path = desk.folder / "answers.yaml"
    path.write_text("documents: documents\nprompt: prompt.txt\n", "utf-8")
    answers = with_answers_of(Answers(), path)
    assert complete_situation(answers, laptop).profile.corpus_tokens
    assert prompt_text(answers).startswith("Answer in one statement")


def test_prompts_are_text_or_files(desk: Any) -> None:
    """A text stays; a missing file that looks like one is refused."""
    text: Callable[[str], str] = lambda given: prompt_text(Answers().put("flag", {"prompt": given}))  # noqa: E731
    assert text("Be brief.") == "Be brief."
    assert text("word " * 150) == ("word " * 150).strip()
    assert text("a\nb") == "a\nb"
    assert text(str(desk.prompt)).startswith("Answer in one")
    with pytest.raises(BadInput, match="no prompt file"):
        text("missing.txt")


def test_impossible_paths_are_refused_not_raised(laptop: Machine) -> None:
    """Too long a name, or a NUL in it, is a path that does not exist; as a model it is just unknown."""
    for odd in ("x" * 5000, "a\0b"):
        with pytest.raises(BadInput, match="does not exist"):
            complete_situation(Answers().put("flag", {"documents": odd}), laptop)
        assert complete_situation(Answers().put("flag", {"model": odd}), laptop).profile.params_b is None


def test_set_needs_an_equals_sign() -> None:
    """And a known key."""
    with pytest.raises(BadInput, match="not key=value"):
        flag_answers(["must_cite"])
    with pytest.raises(BadInput, match="unknown question"):
        flag_answers(["mustcite=yes"])

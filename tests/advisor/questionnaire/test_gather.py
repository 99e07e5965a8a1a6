"""Gathering answers from flags, files and the machine, each with its source."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advisor.questionnaire.answers import Answers
from advisor.questionnaire.gather import (
    complete_situation,
    flag_answers,
    for_trial,
    prompt_text,
    with_answers_of,
)
from advisor.questionnaire.model_questions import MACHINE_KEYS
from rag.errors import BadInput
from runners.resources.machine import Machine


def test_complete_situation_counts_files(task_files: Any, laptop: Machine) -> None:
    """Each answer has its source: counted, default or detected."""
    given = flag_answers(
        [], documents=task_files.documents, examples=task_files.examples, questions=task_files.questions
    )
    situation = complete_situation(given, laptop)
    answers = situation.answers
    assert answers["labelled_examples"].value == 60
    assert answers["task_needs_facts"].value == "new"
    assert answers["corpus_tokens"].value > 0
    assert "5 documents" in answers["corpus_tokens"].note
    assert answers["output_format"].value == "free"
    assert {answers[k].source for k in ("labelled_examples", "corpus_tokens", "prompt_tokens")} == {"counted"}
    assert answers["model"].source == "default"
    assert answers["ram_gib"].source == "detected"
    assert situation.profile.question_count == 12


def test_questions_alone_mean_no_examples_by_default(task_files: Any, laptop: Machine) -> None:
    """A person's number wins; with documents, and without any file, nothing is taken for granted."""
    named = complete_situation(flag_answers([], questions=task_files.questions), laptop)
    assert (named.profile.labelled_examples, named.answers["labelled_examples"].source) == (0, "default")
    told = complete_situation(flag_answers(["labelled_examples=70"], questions=task_files.questions), laptop)
    assert told.profile.labelled_examples == 70
    both = flag_answers([], questions=task_files.questions, documents=task_files.documents)
    assert complete_situation(both, laptop).profile.labelled_examples is None
    assert complete_situation(flag_answers(["must_cite=yes"]), laptop).profile.labelled_examples is None


def test_repeated_examples_are_counted_once(
    task_files: Any, laptop: Machine, make_rows: Any, make_example: Any
) -> None:
    """Sixty rows of which forty repeat are twenty examples, and the note says so."""
    make_rows(task_files.examples, [make_example(n % 20) for n in range(60)])
    situation = complete_situation(flag_answers([], examples=task_files.examples), laptop)
    assert situation.answers["labelled_examples"].value == 20
    assert "40 exact" in situation.answers["labelled_examples"].note


def test_questions_among_examples_are_rejected(task_files: Any, laptop: Machine, make_rows: Any) -> None:
    """The error names the rows of both files."""
    make_rows(
        task_files.questions, [{"question": "when does BOAT 7 sail?"}, {"question": "Where is the pier?"}]
    )
    with pytest.raises(BadInput) as refused:
        complete_situation(
            flag_answers([], examples=task_files.examples, questions=task_files.questions), laptop
        )
    assert "questions.jsonl:1 = " in refused.value.message
    assert "examples.jsonl:8" in refused.value.message


@pytest.mark.parametrize("key", ["documents", "examples", "questions"])
def test_missing_files_are_rejected(task_files: Any, laptop: Machine, key: str) -> None:
    with pytest.raises(BadInput, match=f"the {key} path .*nowhere does not exist"):
        complete_situation(flag_answers([], **{key: task_files.folder / "nowhere"}), laptop)


def test_described_gpu_is_not_mixed_with_detected_one(laptop: Machine) -> None:
    """If GPU memory is given, no detected GPU answer is used."""
    situation = complete_situation(
        flag_answers(["gpu_memory_gib=48", "gpu_count=1", "model_params_b=8"]), laptop
    )
    assert "gpu_kind" not in situation.answers
    assert situation.profile.has_gpu is True
    assert situation.answers["ram_gib"].value == 16.0


def test_size_without_model_is_not_the_default_model(laptop: Machine) -> None:
    """The default model's size does not replace an answered one; an unknown size is none."""
    situation = complete_situation(flag_answers(["model_params_b=8"]), laptop)
    assert (situation.profile.model, situation.profile.params_b) == (None, 8)
    situation = complete_situation(flag_answers(["model_params_b=?"]), laptop)
    assert situation.profile.model == "qwen3-4b-instruct-2507"


def test_suggested_model_suits_the_place(laptop: Machine) -> None:
    """The largest that answers in 16 bits; of a provider none; the built-in one stands in for it in a trial here."""
    suggested = {
        "gpu_memory_gib=8": "qwen3-1.7b",
        "gpu_memory_gib=24": "qwen3-8b",
        "gpu_memory_gib=80": "qwen3-32b",
        "ram_gib=4": "qwen3-0.6b",
        "ram_gib=64": "qwen3-4b-instruct-2507",
        "runs_on=provider": None,
        "runs_on=other": "qwen3-8b",
    }
    for given, name in suggested.items():
        kind = ["gpu_kind=cuda"] if given.startswith("gpu") else []
        situation = complete_situation(flag_answers([given, *kind]), laptop)
        assert situation.profile.model == name
        trial, why = for_trial(situation.profile, laptop)
        assert trial.model == "smollm2-135m-instruct"
        assert f"the advice is for {name or 'a provider'}" in why
        assert (trial.gpu_kind, trial.cpu_cores) == ("none", 4)
    chosen = complete_situation(flag_answers(["model=qwen3-8b"]), laptop).profile
    assert for_trial(chosen, laptop) == (chosen, "")


def test_nothing_of_this_machine_counts_for_another(laptop: Machine) -> None:
    """Neither its memory nor its disk; what is known of a place is derived where no answer says it."""
    other = complete_situation(flag_answers(["runs_on=other"]), laptop).answers
    assert [other.value(key) for key in MACHINE_KEYS] == [None] * len(MACHINE_KEYS)
    derived = {
        "model=openai:m@http://127.0.0.1:1/v1": "provider",
        "gpu_memory_gib=24": "other",
        "goal=x": "here",
    }
    for given, place in derived.items():
        assert complete_situation(flag_answers([given]), laptop).answers["runs_on"].value == place
    changed = complete_situation(flag_answers(["runs_on=here", "ram_gib=64"]), laptop).answers
    assert (changed.value("ram_gib"), changed["cpu_cores"].source) == (64, "detected")


def test_model_folder_size_is_read_from_config(laptop: Machine, tmp_path: Path) -> None:
    config = {
        "model_type": "llama",
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "vocab_size": 1000,
        "intermediate_size": 128,
    }
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    situation = complete_situation(flag_answers([], model=tmp_path), laptop)
    assert situation.profile.params_b == pytest.approx(0.0001, abs=0.0001)
    assert situation.answers["model_params_b"].source == "detected"


def test_answers_file_paths_are_relative_to_the_file(task_files: Any, laptop: Machine) -> None:
    """An answers file can be kept beside its data."""
    path = task_files.folder / "answers.yaml"
    path.write_text("documents: documents\nprompt: prompt.txt\n", "utf-8")
    answers = with_answers_of(Answers(), path)
    assert complete_situation(answers, laptop).profile.corpus_tokens
    assert prompt_text(answers).startswith("Answer in one statement")


def test_prompt_answer_is_text_or_file(task_files: Any) -> None:
    """A text stays; a name like that of a file must exist."""
    text: Callable[[str], str] = lambda given: prompt_text(Answers().put("flag", {"prompt": given}))  # noqa: E731
    assert text("Be brief.") == "Be brief."
    assert text("word " * 150) == ("word " * 150).strip()
    assert text("a\nb") == "a\nb"
    assert text(str(task_files.prompt)).startswith("Answer in one")
    with pytest.raises(BadInput, match="no prompt file"):
        text("missing.txt")


def test_invalid_paths_are_rejected_without_os_errors(laptop: Machine) -> None:
    """Too long a path, or one with a NUL, does not exist; as a model it is an unknown name."""
    for odd in ("x" * 5000, "a\0b"):
        with pytest.raises(BadInput, match="does not exist"):
            complete_situation(Answers().put("flag", {"documents": odd}), laptop)
        assert complete_situation(Answers().put("flag", {"model": odd}), laptop).profile.params_b is None


def test_set_flag_needs_equals_sign_and_known_key() -> None:
    with pytest.raises(BadInput, match="not key=value"):
        flag_answers(["must_cite"])
    with pytest.raises(BadInput, match="unknown question"):
        flag_answers(["mustcite=yes"])

"""`tunewise explain`: words and methods by their usual spellings, rules by code, and the closest name of anything else."""

from __future__ import annotations

import json

import pytest

from advisor.glossary import TERMS, find_term
from advisor.methods.named import NAMED
from advisor.methods.registry import methods_by_name
from advisor.questionnaire.questions import QUESTIONS
from advisor.workflows.explain import METHOD_TITLES, explain_topic
from rag.errors import BadInput


@pytest.mark.parametrize(
    ("topic", "title"),
    [("RAG", "retrieval-augmented generation"), ("LoRA", "low-rank adaptation"), ("Few shot", "examples")],
)
def test_methods_are_explained_by_their_usual_names(
    topic: str, title: str, capsys: pytest.CaptureFixture[str]
) -> None:
    explain_topic(topic, as_json=False)
    assert title in capsys.readouterr().out


def test_every_method_has_a_full_name_and_a_word_of_the_glossary() -> None:
    assert set(METHOD_TITLES) <= set(methods_by_name())
    assert all(find_term(name) for name in methods_by_name())


def test_a_method_begins_with_the_plain_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    explain_topic("full fine-tuning", as_json=False)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("full ")
    assert shown[1].strip().startswith("Fine-tuning that changes all weights")


def test_every_word_is_printed_with_example_and_page(capsys: pytest.CaptureFixture[str]) -> None:
    for term in TERMS:
        explain_topic(term.name.upper(), as_json=False)
        shown = " ".join(capsys.readouterr().out.split())
        assert " ".join(term.sentence.split()) in shown
        assert f"Example: {term.example}" in shown
        assert f"Read more: {term.read_more}" in shown


def test_a_word_as_json_and_the_list_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    explain_topic("Held-Out", as_json=True)
    page = json.loads(capsys.readouterr().out)
    assert list(page) == ["schema", "term", "text", "example", "read_more"]
    explain_topic(None, as_json=True)
    page = json.loads(capsys.readouterr().out)
    assert len(page["terms"]) == len(TERMS)
    assert {"methods", "arms", "rules"} <= set(page)


def test_questions_that_the_advice_names_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    """The advice says "the choice depends on behaviour_gap": that word can be looked up."""
    for question in QUESTIONS:
        explain_topic(
            question.id, as_json=False
        )  # an id that is a word of the glossary, too, is explained as that
    capsys.readouterr()
    explain_topic("behaviour_gap", as_json=False)
    shown = " ".join(capsys.readouterr().out.split())
    assert "how far are a model's answers from what you need?" in shown
    assert "high far: style, format or skill are missed" in shown
    assert "answer it with: --set behaviour_gap=VALUE" in shown
    explain_topic("must_cite", as_json=True)
    assert json.loads(capsys.readouterr().out)["question"] == "must_cite"


@pytest.mark.parametrize(
    ("topic", "closest"),
    [("behavior_gap", "behaviour_gap"), ("ragg", "RAG"), ("embeding", "embedding"), ("hybird", "hybrid")],
)
def test_an_unknown_word_names_the_closest(topic: str, closest: str) -> None:
    with pytest.raises(BadInput, match=repr(topic)) as problem:
        explain_topic(topic, as_json=False)
    assert problem.value.hint.casefold() == f"did you mean {closest}?".casefold()


@pytest.mark.parametrize("name", NAMED)
def test_ways_that_are_not_built_have_figures_and_what_was_not_read(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are explained with their sources, and no rule or method of the advice has their name."""
    explain_topic(name.replace("-", " "), as_json=True)
    page = json.loads(capsys.readouterr().out)
    assert page["named"] == name
    assert page["built"] is False
    assert all(text in page["text"] for text in ("Figures: ", "Think of it where", "Not read: "))
    assert all(source.startswith(("arXiv ", "sakana.ai")) for source in page["evidence"])
    assert name not in methods_by_name()

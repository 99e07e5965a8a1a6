"""The glossary: every term can be looked up, reads as one plain sentence, and names a page that exists."""

from __future__ import annotations

from pathlib import Path

import pytest

from advisor.glossary import INTRODUCED, TERMS, Term, explain_term, find_term, terms_in, words_footer

REQUIRED = (
    "prompting", "few-shot", "RAG", "retrieval", "LoRA", "QLoRA", "full fine-tuning", "hybrid", "arm", "trial", "verdict",
    "gate", "dev questions", "test questions", "gold", "held-out", "confidence", "probability", "embedder", "embedding",
    "index", "citation", "refusal", "base model", "adapter", "break-even", "calibration",
)  # fmt: skip


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term.name)
def test_a_term_is_one_sentence_with_an_example_and_a_page(term: Term) -> None:
    root = Path(__file__).resolve().parents[2]
    assert term.sentence.endswith(".")
    assert ". " not in term.sentence
    assert term.example
    assert (root / term.read_more).is_file()


def test_names_and_aliases_lead_to_one_term() -> None:
    names = [name for term in TERMS for name in (term.name.casefold(), *term.aliases)]
    assert len(names) == len(set(names))
    assert all(find_term(name) for name in REQUIRED)
    assert len(INTRODUCED) == 10


def test_a_term_is_known_by_any_usual_spelling() -> None:
    for spelling in ("few shot", "Few-Shot", "FEWSHOT", "few_shot"):
        assert explain_term(spelling).name == "few-shot"
    assert explain_term("rag").name == explain_term("RAG").name == "RAG"
    with pytest.raises(KeyError):
        explain_term("weather")


def test_terms_in_a_text_are_listed_in_its_order() -> None:
    text = "hybrid beats rag; the lora arm did not. Written to runs/verdict.json"
    assert [term.name for term in terms_in(text)] == ["hybrid", "RAG", "LoRA", "arm"]
    assert words_footer(text) == "words: hybrid, RAG, LoRA, arm. What one means: tunewise explain hybrid"
    assert words_footer("nothing of it") == ""

"""How a question is shown: reason, example, words that are new, and what the key ? says."""

from __future__ import annotations

from typing import Any

from advisor.probe.offer import ProbeOffer
from advisor.questionnaire.profile import Profile
from advisor.questionnaire.questions import QUESTION_BY_ID, QUESTIONS
from advisor.wizard.interview import AskedQuestion
from advisor.wizard.question_view import CHANGES, IntroducedWords, help_lines, question_lines


def asked(key: str, **more: Any) -> AskedQuestion:
    """Return a question as it is asked first."""
    return AskedQuestion(
        question=QUESTION_BY_ID[key],
        known=None,
        number=1,
        most=9,
        decides=more.pop("decides", False),
        closed={},
        profile=Profile.of({}),
        lacking={},
        **more,
    )


def texts(lines: list[tuple[str, str]]) -> list[str]:
    """Return the lines without their styles."""
    return [text for _, text in lines]


def test_the_reason_comes_first_then_an_example_then_new_words() -> None:
    shown = texts(question_lines(asked("documents", decides=True), IntroducedWords()))
    question = QUESTION_BY_ID["documents"]
    assert shown[0] == question.why
    assert shown[1] == f"For example: {question.example}"
    assert shown[2].startswith("RAG: For each question the program searches your documents")
    assert shown[3:] == [CHANGES]


def test_a_word_is_explained_once_in_a_session() -> None:
    words = IntroducedWords()
    counts = [
        sum(line.startswith("LoRA: ") for line in texts(question_lines(asked(q.id), words)))
        for q in QUESTIONS
    ]
    assert sum(counts) == 1
    term = words.first_time("few shot")
    assert term is not None
    assert term.name == "few-shot"
    assert words.first_time("few-shot") is None
    assert words.first_time("logistic regression") is None


def test_help_explains_the_words_and_that_no_answer_is_needed() -> None:
    shown = texts(help_lines(asked("corpus_tokens")))
    assert any(line.startswith("token: ") for line in shown)
    assert "You need not know this" in shown[-1]
    assert shown[-1].endswith("An answer is a whole number.")


def test_an_answer_that_can_be_measured_says_how_where_it_is_typed() -> None:
    offer = ProbeOffer("tern-1b", seconds=170)
    (line,) = [
        text
        for text in texts(question_lines(asked("prompting_pass_rate", measurement=offer), IntroducedWords()))
        if "measure" in text
    ]
    assert line == "Not sure? Type measure: about 3 min on some of your questions."
    missing = ProbeOffer("tern-1b", missing="it needs examples")
    assert "Not sure" not in " ".join(
        texts(question_lines(asked("prompting_pass_rate", measurement=missing), IntroducedWords()))
    )
    assert texts(help_lines(asked("behaviour_gap", measurement=missing)))[-1].endswith("it needs examples.")

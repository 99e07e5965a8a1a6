"""Follow-up questions are rewritten so that they can be searched for."""

from __future__ import annotations

import time

import pytest

from runners.arms.followup import is_followup, stand_alone


@pytest.mark.parametrize(
    ("question", "previous", "names"),
    [
        ("And on Sundays?", "When does the Copper Ladle open?", "Copper Ladle"),
        ("What does it cost?", "Where can I buy the Tidepass?", "Tidepass"),
        ("How much is that?", "Can I take a bicycle on the ferry to Pellin?", "Pellin"),
        ("Is it closed in winter?", "where is the museum?", "museum"),
    ],
)
def test_followup_is_given_its_subject(question: str, previous: str, names: str) -> None:
    assert is_followup(question)
    assert names in stand_alone(question, previous)


@pytest.mark.parametrize(
    "question", ["When does the Ropewalk Museum open on Mondays?", "How much is a Saltbox Pass for children?"]
)
def test_complete_question_is_unchanged(question: str) -> None:
    assert stand_alone(question, "Where can I buy the Tidepass?") == question


def test_first_question_is_unchanged() -> None:
    assert stand_alone("And on Sundays?", "") == "And on Sundays?"


def test_new_subject_is_inserted_into_previous_question() -> None:
    asked = stand_alone("What about the Saltbox Pass?", "Where can I buy the Tidepass?")
    assert asked == "Where can I buy the Saltbox Pass?"


def test_names_are_joined_only_by_small_words() -> None:
    asked = stand_alone("And on Sundays?", "When does the Museum  of the Sea and\nSand or the Pier open?")
    assert asked == "About Museum and Sea and Sand and Pier: on Sundays?"


@pytest.mark.parametrize(
    "question", ["A" + " " * 40_000 + "b", "A of" + " " * 40_000 + "b", "A " * 20_000 + "b"]
)
def test_long_question_is_processed_in_linear_time(question: str) -> None:
    started = time.thread_time()
    stand_alone(question, "What is the fare?")
    stand_alone("And it?", question)
    assert time.thread_time() - started < 1


def test_new_subject_cannot_grow_question_without_limit() -> None:
    assert len(stand_alone("And C" + "c" * 50_000, "B. " * 16_000)) <= 60_000


def test_quantity_word_is_not_the_subject() -> None:
    rewritten = stand_alone("who hands it out?", "How long is the guest code valid?")
    assert rewritten == "About guest code valid: who hands it out?"

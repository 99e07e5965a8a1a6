"""Numbers, polarity, words and sentences."""

from __future__ import annotations

import time

import pytest

from rag.text.numbers import extract_numbers, find_numbers, numbers_agree, polarity
from rag.text.words import content_words, sentences, stem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It costs £14.50.", {"14.5"}),
        ("14.5 euros", {"14.5"}),
        ("1,200 people in 3 boats", {"1200", "3"}),
        ("three bikes and twenty-five dogs", {"3", "25"}),
        ("two hundred places, twelve left", {"200", "12"}),
        ("from 7 pm", {"19:00"}),
        ("at 7:30 p.m. sharp", {"19:30"}),
        ("12 am and 12 pm", {"00:00", "12:00"}),
        ("at 19:00 or noon", {"19:00", "12:00"}),
        ("7-9 pm", {"19:00", "21:00"}),
        ("11 to 2pm", {"11:00", "14:00"}),
        ("3:30pm - 9:00pm", {"15:30", "21:00"}),
        ("one suitcase each", {"1"}),
        ("Which one? That one, or one of them.", set()),
        ("10% off, 24/7", {"10", "24", "7"}),
        ("berth B12", set()),
        ("room 3.", {"3"}),
        ("no figures", set()),
    ],
)
def test_extract_numbers(text: str, expected: set[str]) -> None:
    assert extract_numbers(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No, pets are not allowed.", "no"),
        ("Guests can't smoke here.", "no"),
        ("Parking isn't free.", "no"),
        ("Yes, but not dogs.", "yes"),
        ("There is parking at no extra cost.", "yes"),
        ("Dogs are welcome. Shall I not book?", "yes"),
        ("Arrive no later than 9.", None),
        ("Check-in is at three.", None),
        ("Unfortunately the pool is shut.", "no"),
    ],
)
def test_polarity(text: str, expected: str | None) -> None:
    assert polarity(text) == expected


def test_numbers_agree_compares_numbers_and_polarity() -> None:
    assert numbers_agree("The last boat is at 7 pm.", "Last departure 19:00, price 5.")
    assert not numbers_agree("The last boat is at 8 pm.", "Last departure 19:00.")
    assert not numbers_agree("Dogs are allowed.", "Dogs are not allowed.")


def test_content_words_are_stemmed_without_stop_words() -> None:
    assert content_words("The parking spaces' prices weren't for families") == [
        "park",
        "spac",
        "pric",
        "family",
    ]
    assert stem("buses") == stem("bus") or stem("buses") == "buse"
    assert [stem(w) for w in ("stopped", "travelling", "classes", "news", "3rd", "as")] == [
        "stop",
        "travell",
        "class",
        "new",
        "3rd",
        "as",
    ]


def test_sentences_are_exact_slices_of_the_text() -> None:
    text = "Mr. Smith leaves at 7 p.m. from pier 3.5! Is it late?\n\n- one\n- two e.g. three. Till 9 a.m. Go."
    parts = sentences(text)
    assert parts == [
        "Mr. Smith leaves at 7 p.m. from pier 3.5!",
        "Is it late?",
        "- one",
        "- two e.g. three.",
        "Till 9 a.m.",
        "Go.",
    ]
    assert all(piece in text for piece in parts)
    assert sentences("  ") == []


def test_sentences_of_many_abbreviations_take_linear_time() -> None:
    started = time.thread_time()
    assert len(sentences("st. " * 10_000)) == 1
    assert time.thread_time() - started < 1


def test_numbers_have_their_places() -> None:
    text = "From 7-9 pm twelve boats sail 1,200 metres."
    assert [(value, text[start:end]) for value, start, end in find_numbers(text)] == [
        ("19:00", "7-9 pm"),
        ("21:00", "7-9 pm"),
        ("12", "twelve"),
        ("1200", "1,200"),
    ]
    assert extract_numbers(text) == {value for value, _, _ in find_numbers(text)}

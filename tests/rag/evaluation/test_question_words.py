"""In whose words questions are: planted ones, those of the shipped example, and few."""

from __future__ import annotations

import pytest

from rag.evaluation.question_words import MIN_QUESTIONS, gold_sentences, measure_words

TEXT = "The desk opens at eight. A replacement key for a locker costs 12 euros. Lockers close at ten."
COPIED = "What does a replacement key for a locker cost?"
CUSTOMER = "lost the thing that opens my box, how much to get another"


def test_copied_questions_are_in_the_documents_words_and_customers_are_not() -> None:
    answering = gold_sentences(TEXT, COPIED, ["12 euros"], ())
    assert answering == ["A replacement key for a locker costs 12 euros."]
    copied = measure_words([(COPIED, answering)] * MIN_QUESTIONS)
    own = measure_words([(CUSTOMER, answering)] * MIN_QUESTIONS)
    assert copied is not None
    assert own is not None
    assert (copied.n, copied.share, copied.documents_words) == (MIN_QUESTIONS, 1.0, True)
    assert own.share < 0.2
    assert not own.documents_words


@pytest.mark.parametrize("count", [4, MIN_QUESTIONS - 1])
def test_few_questions_say_nothing(count: int) -> None:
    without_sentence = [(COPIED, list[str]())] * 40
    of_stop_words = [("What is it?", [TEXT])] * 40
    assert measure_words([(COPIED, [TEXT])] * count + without_sentence + of_stop_words) is None


def test_spans_choose_the_sentences_and_the_nearest_of_them_counts() -> None:
    start = TEXT.index("eight")
    end = TEXT.index("euros") + 5
    both = gold_sentences(TEXT, COPIED, [], [(start, end)])
    assert both == ["The desk opens at eight.", "A replacement key for a locker costs 12 euros."]
    words = measure_words([(COPIED, both)] * MIN_QUESTIONS)
    assert words is not None
    assert words.share == 1.0

"""What is counted as one question: masked texts, repeats of three kinds, greetings, follow-ups."""

from __future__ import annotations

import pytest

from runners.logs.distinct import (
    DistinctQuestion,
    QuestionCounter,
    corrected_words,
    join_near_duplicates,
    why_left_out,
)
from runners.logs.log_forms import Turn
from runners.logs.log_reader import Asked


def counted(*texts: str) -> QuestionCounter:
    """Return a counter of texts."""
    counter = QuestionCounter()
    for text in texts:
        counter.add(Asked(text))
    return counter


def test_repeats_are_joined_under_the_usual_spelling() -> None:
    texts = ["What does parking cost?"] * 12 + [
        "what does parking cost",
        "Hi, what does parking cost? Thanks!",
    ]
    joined = counted(*texts, "What does prking cost?", "What does praking cost?", "When is it open?").joined()
    assert [(q.text, q.asked) for q in joined] == [("What does parking cost?", 16), ("When is it open?", 1)]
    assert joined[0].spellings == 5


def test_words_are_corrected_only_to_far_more_frequent_ones() -> None:
    frequency = {
        "parking": 100,
        "prking": 1,
        "parkings": 3,
        "room12": 1,
        "room13": 90,
        "baking": 40,
        "barking": 20,
    }
    assert corrected_words(frequency) == {"prking": "parking"}
    assert corrected_words({"tuesday": 100, "thursday": 9, "tuesady": 2}) == {"tuesady": "tuesday"}


def test_personal_data_is_masked_before_texts_are_compared() -> None:
    counter = counted("Write to jane@pellmail.net about it", "Write to joe@pellmail.net about it")
    (question,) = counter.joined()
    assert question.text == "Write to [e-mail address] about it"
    assert question.asked == 2
    assert counter.masked == {"e-mail address": 2}
    assert counter.sample == [question.text]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("thanks a lot!", "greetings"),
        ("Good morning", "greetings"),
        ("Danke schön!", "greetings"),
        ("Bonjour, merci beaucoup", "greetings"),
        ("Guten Morgen", "greetings"),
        ("Guten Tag, wann öffnen Sie morgen?", ""),
        ("ok", "greetings"),
        ("да", "short"),
        ("👍", "short"),
        ("x" * 5_000, "too_long"),
        ("\ud83d what", "damaged"),
        ("何時に開く", ""),
        ("Good morning, where is it?", ""),
        ("Hola", "greetings"),
        ("Cześć wam", ""),  # in no list
    ],
)
def test_what_is_left_out(text: str, reason: str) -> None:
    assert why_left_out(text) == reason


def test_follow_ups_keep_the_turns_they_need_and_others_none() -> None:
    before = (
        Turn("user", "Is there a sauna?"),
        Turn("assistant", "Yes."),
        Turn("user", "What does the Ripple card of jane@pellmail.net cost?"),
        Turn("assistant", "40 pounds."),
    )
    counter = QuestionCounter()
    counter.add(Asked("And for children?", before))
    counter.add(Asked("Where can visitors park a bicycle?", before))
    by_text = {question.text: question for question in counter.joined()}
    assert [turn.text for turn in by_text["And for children?"].before] == [
        "What does the Ripple card of [e-mail address] cost?",
        "40 pounds.",
    ]
    assert by_text["Where can visitors park a bicycle?"].before == ()
    assert counter.counts["followups"] == 1


def test_follow_ups_of_other_questions_are_no_repeats() -> None:
    counter = QuestionCounter()
    for first in ("What does the card cost?", "When does the pool open?"):
        counter.add(Asked("And on Sundays?", (Turn("user", first), Turn("assistant", "…"))))
    assert len(counter.joined()) == 2


def test_near_duplicates_add_their_counts() -> None:
    long = "where exactly can visitors of the big hall on the north side park their bicycles on a sunday morning in may"
    joined = join_near_duplicates(
        [
            DistinctQuestion(text=long, asked=3),
            DistinctQuestion(text=f"{long} then", asked=1),
            DistinctQuestion(text=long.replace("may", "june"), asked=2),
        ]
    )
    assert [(question.text, question.asked) for question in joined] == [
        (long, 4),
        (long.replace("may", "june"), 2),
    ]

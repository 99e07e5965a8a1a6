"""Right and wrong answers of each kind (units, times, money, dates, names, lists, yes and no, parts, denials) told apart.

``answers_told_apart.jsonl`` has questions with their gold, answers that a person calls right and answers that a person
calls wrong; none is of the sets by which the agreement is reported.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rag.quantities.phrases import spoken_times
from runners.data.questions import Question, load_questions
from runners.data.refusals import is_refusal
from runners.scoring.correctness import gold_texts, is_right
from runners.scoring.plain_forms import in_figures, readings

REFUSALS = (
    "I could not find that in our documents.",
    "Sorry, our documents do not say. Shall I ask a colleague?",
)
ROWS = [
    json.loads(line)
    for line in (Path(__file__).parent / "answers_told_apart.jsonl").read_text("utf-8").splitlines()
]


def _judged(row: dict[str, list[str]], answer: str) -> bool:
    question = Question(
        "q", str(row["question"]), tuple(row.get("answers", ())), all_of=tuple(row.get("all_of", ()))
    )
    return is_right(question, answer, is_refusal(answer, REFUSALS)) is True


def test_right_and_wrong_answers_are_told_apart() -> None:
    assert len(ROWS) > 150
    wrongly = [
        (row["question"], answer, kind)
        for row in ROWS
        for kind in ("right", "wrong")
        for answer in row[kind]
        if _judged(row, answer) is not (kind == "right")
    ]
    assert wrongly == []


def test_parts_must_all_be_stated_beside_one_of_the_short_answers(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    row = {
        "question": "Who teaches pottery, and when?",
        "answers": ["in studio 4", "upstairs"],
        "all_of": ["Mina Holt", "Friday"],
    }
    file.write_text(json.dumps(row) + "\n", "utf-8")
    (question,) = load_questions(file)
    assert question.all_of == ("Mina Holt", "Friday")
    assert is_right(question, "Mina Holt, on Fridays, upstairs.", False)
    assert not is_right(question, "Mina Holt, on Fridays.", False)
    assert not is_right(question, "Mina Holt, upstairs.", False)


def test_parts_alone_are_one_gold_text_for_what_compares_texts() -> None:
    question = Question("q", "When and where?", all_of=("7 pm", "hall"))
    assert question.short_answers == ("7 pm; hall",)
    assert gold_texts(question, "") == ("7 pm; hall",)
    assert Question("q", "When?", ("7 pm", "19:00")).short_answers == ("7 pm", "19:00")


@pytest.mark.parametrize(
    ("text", "figures"),
    [
        ("twelve euros an hour", "12 euros an hour"),
        ("an hour and a half", "1.5 hour"),
        ("three point two bar", "3.2 bar"),
        ("the twenty-second of June 2024", "22 June 2024"),
        ("06/22/2024", "22 June 2024"),
        ("seven in the evening", "7 pm"),
        ("quarter past five", "05:15 / 17:15"),
        ("half past seven in the evening", "19:30"),
        ("a quarter of an hour", "0.25 hour"),
        ("the second floor", "the floor 2"),
        ("ten to twelve days", "10 to 12 days"),
        ("No one knows", "No one knows"),
    ],
)
def test_words_are_read_as_figures(text: str, figures: str) -> None:
    assert in_figures(text) == figures


def test_a_spoken_gold_is_either_half_of_the_day_and_figures_are_one() -> None:
    assert readings("quarter past five") == ("05:15", "17:15")
    assert readings("9:00 to 13:00") == ("9:00 to 13:00",)
    assert spoken_times("half past seven in the evening") == {"19:30"}
    assert spoken_times("at ten to nine") == {"08:50", "20:50"}


@pytest.mark.parametrize("gold", ["card_arrival", "The floor is being renewed", "None at all"])
def test_the_gold_itself_is_right(gold: str) -> None:
    assert is_right(Question("q", "What about the floor of the card?", (gold,)), gold + ".", False)

"""Which passages hold a question's right answer, and where words cannot tell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from rag.grounding.answer_search import AnswerFinder
from rag.types import Chunk

POOL = (
    (
        "prices.md",
        "Prices",
        "A swim costs £6 for adults.\n\nChildren under 12 pay £4.\n\nThe hire of a towel costs £2.",
    ),
    (
        "hours.md",
        "Opening hours",
        "The pool opens at 7.00 am on Fridays.\n\nThe sauna is closed on Tuesdays. It reopens on Wednesday at noon.",
    ),
    (
        "cafe.md",
        "Cafe",
        "The cafe sells soup and bread. A bowl of soup costs £6. Twelve tables stand outside.",
    ),
    ("lockers.md", "Lockers", "Lockers take a coin of £1. Lost keys are replaced by Nell Ashdown for £12."),
    (
        "lessons.md",
        "Lessons",
        "Adult lessons run for ten weeks. The second part of the fee is due in week 4.",
    ),
)


def chunks(rows: Sequence[tuple[str, str, str]]) -> list[Chunk]:
    return [Chunk(0, doc, title, 0, text, 0, len(text)) for doc, title, text in rows]


@pytest.fixture(scope="module")
def finder() -> AnswerFinder:
    return AnswerFinder(chunks(POOL))


@pytest.mark.parametrize(
    ("question", "answer", "document"),
    [
        ("What does a swim cost for adults?", "£6", "prices.md"),
        ("Who replaces lost keys?", "Nell Ashdown", "lockers.md"),
        ("When does the pool open on Fridays?", "7 am", "hours.md"),
        ("In which week is the second part of the fee due?", "week 4", "lessons.md"),
        ("How much is it to hire a towel?", "You can hire a towel for £2. Shall I reserve one?", "prices.md"),
    ],
)
def test_the_passage_about_what_is_asked_holds_the_answer(
    finder: AnswerFinder, question: str, answer: str, document: str
) -> None:
    found = finder.find([question], [answer])
    assert found.passage is not None
    assert found.passage.doc == document


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What does a swim cost for adults?", "£12"),  # £12 is the price of a key
        ("What does a swim cost for adults?", "£6.50"),
        ("When does the pool open on Fridays?", "8 am"),
        ("Who replaces lost keys?", "Olive Marsh"),
        ("How much is it to hire a towel?", "You can hire a towel for £3. Shall I reserve one?"),
        ("Which moon of Jupiter is the largest?", "Ganymede"),
    ],
)
def test_another_value_is_not_held(finder: AnswerFinder, question: str, answer: str) -> None:
    found = finder.find([question], [answer])
    assert found.passage is None
    assert found.decided


def test_words_that_the_documents_lack_decide_nothing(finder: AnswerFinder) -> None:
    asked = ["what do grown ups fork out to splash about"]
    assert not finder.find(asked, ["£6"]).decided
    named = finder.find(asked, ["£6"], ["prices.md"])
    assert named.passage is not None
    assert named.passage.doc == "prices.md"
    whole = finder.find(asked, ["A swim costs £6 for adults."])
    assert whole.passage is not None
    assert not finder.find(["Is there a sauna?"], ["yes"]).decided


def test_only_the_words_that_are_looked_up_need_an_index() -> None:
    question, answer = "Who replaces lost keys?", "Nell Ashdown"
    few = AnswerFinder(chunks(POOL), [question, answer])
    assert few.find([question], [answer]) == AnswerFinder(chunks(POOL)).find([question], [answer])


def test_spans_name_a_passage(finder: AnswerFinder) -> None:
    assert finder.overlapping("hours.md", [(4, 8)]) is not None
    assert finder.overlapping("hours.md", [(400, 800)]) is None
    assert AnswerFinder([]).find(["Who?"], ["Nell"]).passage is None


def test_each_part_of_an_answer_may_be_in_a_sentence_of_its_own(finder: AnswerFinder) -> None:
    from runners.arms.gold_passages import find_gold_passage
    from runners.data.questions import Question

    asked = "When is the sauna closed, and when does it reopen?"
    both = Question("q", asked, all_of=("Tuesdays", "Wednesday at noon"), doc_id="hours.md")
    assert find_gold_passage(finder, both).passage is not None
    wrong = Question("q", asked, all_of=("Tuesdays", "Sunday at noon"), doc_id="hours.md")
    assert find_gold_passage(finder, wrong).passage is None
    assert not find_gold_passage(finder, Question("q", asked, answerable=False)).decided


def test_shipped_example_holds_its_answers(root: Path) -> None:
    from rag.loading.reader import load_documents
    from runners.arms.gold_passages import answers_to_find, find_gold_passage
    from runners.data.document_sample import block_texts
    from runners.data.questions import load_questions

    desk = root / "advisor" / "harbor_desk"
    blocks = block_texts(load_documents(desk / "documents").documents)
    questions = [q for q in load_questions(desk / "questions.jsonl") if q.answerable]
    own = AnswerFinder(blocks)
    held = [find_gold_passage(own, question) for question in questions]
    assert sum(found.passage is not None for found in held) >= 0.95 * len(questions)
    other = AnswerFinder(chunks(POOL))
    held = [find_gold_passage(other, question) for question in questions]
    assert sum(found.passage is not None for found in held) <= 0.05 * len(questions)
    assert sum(found.decided for found in held) >= 0.75 * len(questions)
    assert all(answers_to_find(question) for question in questions)

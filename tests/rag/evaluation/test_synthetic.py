"""Synthetic questions: the grammar, sentences that are skipped, and that no other passage answers them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rag.evaluation.synthetic import make_questions, statement_to_question
from rag.indexing.chunking import Chunker
from rag.loading.reader import load_documents
from rag.settings import IndexSettings
from rag.text.words import words
from rag.types import Chunk
from tests.rag.conftest import TinyEncoder


@pytest.mark.parametrize(
    ("statement", "question", "answer"),
    [
        (
            "A dog ticket costs 3.80 euros on every route.",
            "How much does a dog ticket cost on every route?",
            "3.80 euros",
        ),
        ("MV Tolla Bren carries 3 rafts on deck.", "How many rafts does MV Tolla Bren carry on deck?", "3"),
        ("The office is open from 7 am to 9 pm.", "When is the office open?", "7 am to 9 pm"),
        (
            "Mirrow visitors must leave the island by 20:15.",
            "By when must Mirrow visitors leave the island?",
            "20:15",
        ),
        (
            "Yachts may anchor off Pellin for up to 4 nights.",
            "For how long may yachts anchor off Pellin?",
            "up to 4 nights",
        ),
        ("The sailmaker is called Hanne Twill.", "What is the sailmaker called?", "Hanne Twill"),
        (
            "The diver for lost anchors is Gunnar Sprake.",
            "Who is the diver for lost anchors?",
            "Gunnar Sprake",
        ),
        ("Eelgrass Haven is a natural harbour.", "What is Eelgrass Haven?", "a natural harbour"),
        ("The shed stands behind the Chandlery.", "Where does the shed stand?", "behind the Chandlery"),
        ("Pets are not allowed inside the cabins.", "Are pets allowed inside the cabins?", "no"),
        ("The fuel dock does not sell petrol.", "Does the fuel dock sell petrol?", "no"),
        ("There is no charge for anchoring.", "Is there any charge for anchoring?", "no"),
        ("No, you can pay by card.", "Can you pay by card?", "yes"),
        ("Bread is served because guests are hungry.", "Why is bread served?", "guests are hungry"),
        ("The tour sails on Thursdays and Sundays.", "When does the tour sail?", "Thursdays and Sundays"),
        ("The ticket is valid only after 09:45 on trains.", "When is the ticket valid on trains?", "09:45"),
        (
            "The ferry ( called Plover ) leaves Quillscar 's pier at 21:10 .",
            "When does the ferry (called Plover) leave Quillscar's pier?",
            "21:10",
        ),
        ("Koja does have seats outdoors.", "Does Koja have seats outdoors?", "yes"),
        ("The shuttle runs every 35 minutes.", "How often does the shuttle run?", "every 35 minutes"),
        ("The site steward is Mr Lazlo Birch.", "Who is the site steward?", "Mr Lazlo Birch"),
        ("The fee is $45, travel is paid by families.", "How much is the fee?", "$45"),
        (
            "The result comes within two working days.",
            "Within what time does the result come?",
            "two working days",
        ),
        (
            "Chainsaws are hired only to people who show a certificate.",
            "Are chainsaws hired only to people who show a certificate?",
            "yes",
        ),
        (
            "Boats should come in within three hours of high water.",
            "Should boats come in within three hours of high water?",
            "yes",
        ),
        ("Jessica's father receives tickets.", "Does jessica's father receive tickets?", "yes"),
        (
            "The deductible is $2,500 in Basic and $900 in Choice.",
            "Is the deductible $2,500 in Basic and $900 in Choice?",
            "yes",
        ),
        ("Fees grew in 2007 by a third.", "When did fees grow by a third?", "2007"),
        (
            "The last boat accepted here is 22 metres long.",
            "Is the last boat accepted here 22 metres long?",
            "yes",
        ),
    ],
)
def test_statement_to_question(statement: str, question: str, answer: str) -> None:
    pair = statement_to_question(statement, {"Mirrow", "Pellin", "Koja"})
    assert pair is not None
    assert (pair.question, pair.answer) == (question, answer)


@pytest.mark.parametrize(
    "statement",
    [
        "It is closed on Sundays.",
        "I’m told my predecessor called the members.",
        "On Sundays the office is closed.",
        "What does it cost?",
        "Opening hours",
        "Having lost children myself, I understand.",
        "No one has a stronger record.",
        "The company has accounted for this in May.",
        "Amounts paid in 2010 of 3 euros related to affiliates.",
        "In Varnsey, where the line ends, boats land.",
        'The captain said: "never again".',
        "Die Fähre fährt um sieben Uhr.",
        "The pier was opened by General Robert E.",
        "The pier was built by Capt.",
        " ".join(["The boat is", *["very"] * 30, "old."]),
        # a subject with a verb of its own, or that the verb does not agree with
        "Crates the driver takes back are credited.",
        "The shortest charter you can book is 3 hours.",
        "One day she is convinced to compete.",
        "Whoever is called in outside the schedule is paid for three hours.",
        "Reductions cannot be added together.",
        "Six visits bought together cost £228 and must be used within eight months.",
        "3 region is cooler for 6 months.",
        # a second clause
        "Mrs Hornby owns the shop and sees to all complaints.",
        "Gift cards are sent by email at once and never expire.",
        "The orchard is in conversion until next autumn and its fruit is labelled so.",
        # an open end
        "A common misconception is that rest is the first stage.",
        "The donation with its preparation takes ten.",
    ],
)
def test_statement_to_question_skips_other_sentences(statement: str) -> None:
    assert statement_to_question(statement) is None


def test_synthetic_questions_have_one_answer(root: Path, make_tiny: type[TinyEncoder]) -> None:
    documents = load_documents(root / "advisor" / "harbor_desk" / "documents").documents
    chunks = [c for d in documents for c in Chunker(make_tiny(), IndexSettings(max_tokens=60)).chunks(d)]
    questions = make_questions(chunks, 100)
    assert len(questions) == 100
    assert (
        len({question.question for question in questions})
        == len({question.id for question in questions})
        == 100
    )
    assert len({question.doc_id for question in questions}) > 40
    raws = {document.id: document.raw for document in documents}
    for question in questions:
        ((start, end),) = question.spans
        if question.doc_id.endswith(".md"):
            assert raws[question.doc_id][start:end] == question.statement
        assert question.answers[0] in ("yes", "no") or question.answers[0] in question.statement
        asked = " ".join(words(question.question))
        assert all(asked not in " ".join(words(chunk.text)) for chunk in chunks)
        assert question.to_json()["synthetic"] is True
    assert make_questions(chunks, 100) == questions
    assert make_questions(chunks, 100, seed=1) != questions


def test_ambiguous_synthetic_questions_name_the_title() -> None:
    def chunk(id: int, title: str, text: str) -> Chunk:
        return Chunk(id, f"{id}.md", title, 0, text, 0, len(text))

    parking = "Parking in the yard costs 5 euros."
    hotels = [chunk(1, "Gull Inn", parking), chunk(2, "Heron House", parking)]
    assert {question.question for question in make_questions(hotels, 9)} == {
        "According to Gull Inn, how much does parking in the yard cost?",
        "According to Heron House, how much does parking in the yard cost?",
    }
    assert make_questions([chunk(1, "", parking), chunk(2, "", parking)], 9) == ()
    assert [question.question for question in make_questions(hotels[:1], 9)] == [
        "How much does parking in the yard cost?"
    ]

"""Citations, gold passages and the passages of a prompt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rag import cite
from rag.gold import GoldFinder
from rag.types import Hit


@pytest.fixture
def hits(make_chunk) -> list[Hit]:
    texts = [
        ("Fares", "An adult single costs 14.50 euros. Children under five travel free."),
        ("Dogs", "Dogs travel on deck for 3 euros. They are not allowed in the lounge."),
        ("Heather Line", "The last boat leaves at 19:00.\nIt does not sail on Sundays."),
    ]
    return [
        Hit(make_chunk(text, f"{n}.md", title, n, start=100, end=100 + len(text), line_start=7), 1, 1, 1)
        for n, (title, text) in enumerate(texts, start=1)
    ]


@pytest.mark.parametrize(
    ("sentence", "n", "quote"),
    [
        ("A single for an adult is 14.5 euros.", 1, "An adult single costs 14.50 euros."),
        ("Your dog can travel on deck for three euros.", 2, "Dogs travel on deck for 3 euros."),
        ("Dogs aren't allowed in the lounge.", 2, "They are not allowed in the lounge."),
        ("The last boat of the Heather Line leaves at 7 pm.", 3, "The last boat leaves at 19:00."),
    ],
)
def test_a_true_sentence_finds_its_quote(hits: list[Hit], sentence: str, n: int, quote: str) -> None:
    marked, (citation,) = cite.attach(f"{sentence} Shall I book it for you?", hits)
    assert marked == f"{sentence} [{n}] Shall I book it for you?"
    assert (citation.n, citation.doc, citation.quote, citation.supported) == (n, f"{n}.md", quote, True)
    text = hits[n - 1].chunk.text
    assert citation.char_start == 100 + text.index(quote)
    assert citation.char_end - citation.char_start == len(quote)
    assert citation.line_start == 7


@pytest.mark.parametrize(
    "sentence",
    [
        "An adult single costs 16 euros.",
        "Dogs are allowed in the lounge.",
        "The last boat leaves at 8 pm.",
        "The last boat of the Moss Line leaves at 19:00.",
        "Bicycles must be folded before boarding.",
    ],
)
def test_a_false_sentence_is_marked_unsupported(hits: list[Hit], sentence: str) -> None:
    marked, (citation,) = cite.attach(sentence, hits)
    assert marked == sentence
    assert not citation.supported
    assert cite.support(sentence, [hit.chunk for hit in hits]) is None


def test_own_marks_are_stripped_and_each_statement_is_cited(hits: list[Hit]) -> None:
    answer = "Children under five travel free [3]. Dogs pay 3 euros on deck[1, 2]. Anything else?"
    marked, citations = cite.attach(answer, hits)
    assert marked == "Children under five travel free. [1] Dogs pay 3 euros on deck. [2] Anything else?"
    assert [c.n for c in citations] == [1, 2]
    assert citations[0].to_json()["supported"] is True
    assert cite.strip_marks("It is so [1][2] indeed 【3†source】.") == "It is so indeed."
    assert cite.attach("Yes. Sure?", hits) == ("Yes. Sure?", ())
    assert cite.attach("", hits) == ("", ())


def test_lines_follow_the_quote_inside_a_chunk(hits: list[Hit]) -> None:
    _, (citation,) = cite.attach("The Heather Line does not sail on Sundays.", hits)
    assert (citation.line_start, citation.line_end) == (8, 8)


def test_the_gold_chunk_is_that_of_the_place_asked_about(make_chunk) -> None:
    chunks = [
        make_chunk("Pets are not allowed.", "a/1", "Arbury Lodge", 1),
        make_chunk("No, pets are not allowed here.", "b/1", "Bridge House", 2),
        make_chunk("Check-in starts at 3 pm.", "b/2", "Bridge House", 3),
        make_chunk("Check-in starts at 2 pm.", "a/2", "Arbury Lodge", 4),
    ]
    golden = GoldFinder(chunks)
    reply = "Sorry, pets aren't allowed there. Would you like another place?"
    assert golden.find(reply, "A question about Bridge House: Can I bring pets?") is chunks[1]
    late = golden.find("Check-in begins at 15:00. Shall I book?", "Bridge House: when is check-in?")
    assert late is chunks[2]
    assert golden.find("Check-in begins at 4 pm.", "Bridge House: check-in?") is None
    assert golden.find("Shall I help?") is None
    one = make_chunk("Only one discount may be used on each ticket.", "d", "Discounts", 5)
    reply = "No, each ticket can be used with only one discount. Shall I compare them?"
    assert GoldFinder([*chunks, one]).find(reply, "Can I stack two discounts?") is one
    assert golden.find("Pets are not allowed at Cherry Inn.", "Does Cherry Inn take pets?") is None


def test_gold_passages_of_public_replies(shared: Path, make_chunk) -> None:
    folder = shared / "data" / "hybrid_concierge"
    rows = [
        json.loads(line) for line in (folder / "documents.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    finder = GoldFinder([make_chunk(r["text"], r["id"], r["title"], n) for n, r in enumerate(rows)])
    lines = (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()[:300]
    pairs = []
    for row in map(json.loads, lines):
        found = finder.find(row["messages"][2]["content"], row["messages"][1]["content"])
        pairs += [(found.doc, row["meta"]["doc_id"])] if found else []
    assert len(pairs) / len(lines) > 0.65
    assert sum(a == b for a, b in pairs) / len(pairs) > 0.88
    assert sum(a.rpartition("/")[0] == b.rpartition("/")[0] for a, b in pairs) / len(pairs) > 0.99


def test_the_opposite_word_is_a_contradiction(make_chunk) -> None:
    chunk = make_chunk("The Ropewalk Museum stays closed to visitors on Mondays.", "museum.md", "Museum", 1)
    assert cite.support("The Ropewalk Museum is closed on Mondays.", [chunk])
    assert cite.support("The Ropewalk Museum is open to visitors on Mondays.", [chunk]) is None

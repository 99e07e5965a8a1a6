"""Citations of answers, support of claims by passages, and gold passages of replies."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.grounding import citations as grounding_citations
from rag.grounding import evidence
from rag.grounding.gold import GoldFinder
from rag.text.numbers import extract_numbers
from rag.types import Chunk, Hit

PARTS = (
    "An adult single costs 14.50 euros.",
    "An adult single costs 15 euros.",
    "Dogs pay 3 euros, and children travel free.",
    "Children travel free",
    "[1]",
    "[7].",
    "Shall I help?",
    "No.",
    "\n\n",
    "Dogs pay 3 euros on deck [2].",
    "“No boats at all”.",
    "Boats sail on Sundays;",
    "No boats on Sundays!",
    "12 May 2026",
    "- cats",
    "…",
)


@pytest.fixture
def hits(make_chunk: Callable[..., Chunk]) -> list[Hit]:
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
def test_supported_sentence_is_cited_with_its_quote(
    hits: list[Hit], sentence: str, n: int, quote: str
) -> None:
    marked, (citation,) = grounding_citations.attach_citations(f"{sentence} Shall I book it for you?", hits)
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
def test_false_sentence_is_unsupported(hits: list[Hit], sentence: str) -> None:
    marked, (citation,) = grounding_citations.attach_citations(sentence, hits)
    assert marked == sentence
    assert not citation.supported
    assert evidence.best_support(sentence, [hit.chunk for hit in hits]) is None


def test_marks_of_the_model_are_replaced(hits: list[Hit]) -> None:
    answer = "Children under five travel free [3]. Dogs pay 3 euros on deck[1, 2]. Anything else?"
    marked, citations = grounding_citations.attach_citations(answer, hits)
    assert marked == "Children under five travel free. [1] Dogs pay 3 euros on deck. [2] Anything else?"
    assert [c.n for c in citations] == [1, 2]
    assert citations[0].to_json()["supported"] is True
    assert grounding_citations.strip_marks("It is so [1][2] indeed 【3†source】.") == "It is so indeed."
    assert grounding_citations.attach_citations("Yes. Sure?", hits) == ("Yes. Sure?", ())
    assert grounding_citations.attach_citations("", hits) == ("", ())


def test_citation_lines_are_those_of_the_quote(hits: list[Hit]) -> None:
    _, (citation,) = grounding_citations.attach_citations("The Heather Line does not sail on Sundays.", hits)
    assert (citation.line_start, citation.line_end) == (8, 8)


def test_gold_finder_prefers_the_named_title(make_chunk: Callable[..., Chunk]) -> None:
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
    greeted = "Good day from Harbour House! Check-in starts at 2 pm. Happy sailing."
    assert golden.find(greeted, "Arbury Lodge: check-in?") is chunks[3]
    assert golden.find("Good day from Harbour House! Happy sailing.", "Arbury Lodge: check-in?") is None
    one = make_chunk("Only one discount may be used on each ticket.", "d", "Discounts", 5)
    reply = "No, each ticket can be used with only one discount. Shall I compare them?"
    assert GoldFinder([*chunks, one]).find(reply, "Can I stack two discounts?") is one
    assert golden.find("Pets are not allowed at Cherry Inn.", "Does Cherry Inn take pets?") is None


def test_gold_finder_accuracy_on_public_replies(shared: Path, make_chunk: Callable[..., Chunk]) -> None:
    folder = shared / "data" / "hybrid_concierge"
    rows = [
        json.loads(line) for line in (folder / "documents.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    finder = GoldFinder([make_chunk(r["text"], r["id"], r["title"], n) for n, r in enumerate(rows)])
    lines = (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()[:300]
    pairs = []
    for row in map(json.loads, lines):
        chunk = finder.find(row["messages"][2]["content"], row["messages"][1]["content"])
        pairs += [(chunk.doc, row["meta"]["doc_id"])] if chunk else []
    assert len(pairs) / len(lines) > 0.65
    assert sum(a == b for a, b in pairs) / len(pairs) > 0.88
    assert sum(a.rpartition("/")[0] == b.rpartition("/")[0] for a, b in pairs) / len(pairs) > 0.99


def test_formulas_need_no_citation(hits: list[Hit]) -> None:
    """A greeting is not reported as an unsupported statement."""
    answer = "Fern Hill at your service! Dogs travel on deck for 3 euros. Stay dry out there."
    formulas = ("Fern Hill at your service!", "Stay dry out there.")
    marked, cited = grounding_citations.attach_citations(answer, hits, formulas)
    assert [c.n for c in cited] == [2]
    assert marked == answer.replace("euros.", "euros. [2]")
    assert [c.n for c in grounding_citations.attach_citations(answer, hits)[1]] == [0, 2, 0]


@pytest.mark.parametrize(
    ("sentence", "factual"),
    [
        ("Good day from Fern Hill!", False),
        ("Happy digging.", False),
        ("Let me know if you need more.", False),
        ("Have a nice day!", False),
        ("Hello Anna!", False),
        ("Best regards", False),
        ("Feel free to bring your dog.", True),
        ("Enjoy free parking.", True),
        ("Dogs are welcome.", True),
        ("Welcome drinks are free.", True),
        ("Good morning boats leave early.", True),
        ("Have a day off in May 2026.", True),
    ],
)
def test_courtesies_state_nothing(sentence: str, factual: bool) -> None:
    assert grounding_citations.is_factual(sentence) is factual


def test_opposite_word_gives_no_support(make_chunk: Callable[..., Chunk]) -> None:
    chunk = make_chunk("The Ropewalk Museum stays closed to visitors on Mondays.", "museum.md", "Museum", 1)
    assert evidence.best_support("The Ropewalk Museum is closed on Mondays.", [chunk])
    assert evidence.best_support("The Ropewalk Museum is open to visitors on Mondays.", [chunk]) is None


@pytest.mark.parametrize(
    ("sentence", "level", "marks"),
    [
        ("Children under five travel free.", "supported", " [1]"),
        ("Children under five travel free and an adult single costs 14.50 euros.", "supported", " [1]"),
        ("An adult single costs 14.50 euros and cats are carried in baskets below.", "partly", " [1]"),
        ("An adult single costs 16 euros and children under five travel free.", "partly", " [1]"),
        ("An adult single costs 14.50 euros and dogs travel on deck.", "partly", " [1] [2]"),
        ("An adult single costs 16 euros and cats are carried below.", "unsupported", ""),
    ],
)
def test_sentence_can_be_partly_supported(hits: list[Hit], sentence: str, level: str, marks: str) -> None:
    marked, citations = grounding_citations.attach_citations(sentence, hits)
    assert marked == sentence + marks
    assert {c.support for c in citations} == {level}
    assert [f" [{c.n}]" for c in citations if c.n] == marks.replace("] ", "]\n ").split("\n") * bool(marks)
    assert all(c.supported is (level == "supported") for c in citations)


def test_citation_offsets_of_the_sentence(hits: list[Hit]) -> None:
    marked, citations = grounding_citations.attach_citations(
        "Aye. Dogs pay 3 euros on deck [9]. Cats pay 5 euros. Anything else?", hits
    )
    sentences = [marked[c.answer_start : c.answer_end] for c in citations]
    assert sentences == ["Aye.", "Dogs pay 3 euros on deck.", "Cats pay 5 euros."]
    assert [c.support for c in citations] == ["unsupported", "supported", "unsupported"]


def test_quotations_and_dates_must_occur_in_the_passage(make_chunk: Callable[..., Chunk]) -> None:
    text = "The winter schedule begins on 9 November 2026. \u201cNo boat sails in fog\u201d, says the master."
    chunks = [make_chunk(text, "winter.md", "Winter", 1)]
    assert evidence.best_support("The winter schedule begins on 2026-11-09.", chunks)
    assert evidence.best_support("The winter schedule begins on November 9th.", chunks)
    assert evidence.best_support("The winter schedule begins on 10 November.", chunks) is None
    assert evidence.best_support("The winter schedule begins on 9 November 2025.", chunks) is None
    assert evidence.best_support('The master says "no boat sails in fog".', chunks)
    assert evidence.best_support('The master says "no boat sails in rain or fog".', chunks) is None


def test_citation_has_dates_of_its_document(make_chunk: Callable[..., Chunk]) -> None:
    text = "Dogs travel on deck for 3 euros."
    dated = Hit(
        make_chunk(text), 1, 1, 1, metadata={"date": "2025-01-02", "valid_until": "2025-12-31"}, expired=True
    )
    _, (citation,) = grounding_citations.attach_citations(text, [dated])
    assert (citation.date, citation.valid_until, citation.expired) == ("2025-01-02", "2025-12-31", True)


@settings(max_examples=200)
@given(st.lists(st.sampled_from(PARTS), max_size=8), st.randoms())
def test_citations_are_exact_for_random_answers(parts: list[str], chance: Random) -> None:
    """For any answer: marks name passages, quotes and spans are exact, and the words of the answer stay."""
    texts = [
        "An adult single costs 14.50 euros. Children travel free.",
        "Dogs pay 3 euros on deck.",
        "No boats on Sundays.",
    ]
    chunks = [
        Chunk(n, f"{n}.md", "Fares", 0, text, 50, 50 + len(text), line_start=3)
        for n, text in enumerate(texts)
    ]
    hits = [Hit(chunk, 1.0, 1.0, 1.0) for chunk in chunks]
    chance.shuffle(parts)
    answer = " ".join(parts)
    marked, citations = grounding_citations.attach_citations(answer, hits)
    assert grounding_citations.strip_marks(marked).split() == grounding_citations.strip_marks(answer).split()
    for mark in re.findall(r"\[(\d+)\]", marked):
        assert 1 <= int(mark) <= len(hits)
    for c in citations:
        sentence = marked[c.answer_start : c.answer_end]
        assert sentence == sentence.strip() != ""
        assert (c.n > 0) is (c.support in ("supported", "partly")) is bool(c.quote)
        assert c.supported is (c.support == "supported")
        if c.n:
            text = hits[c.n - 1].chunk.text
            assert text[c.char_start - 50 : c.char_end - 50] == c.quote
            assert f"[{c.n}]" in marked[c.answer_end : c.answer_end + 5 * len(hits)]
        if c.supported and len([d for d in citations if d.answer_start == c.answer_start]) == 1:
            assert extract_numbers(sentence) <= extract_numbers(hits[c.n - 1].chunk.text)


def test_strip_marks_is_fast_for_long_runs() -> None:
    started = time.thread_time()
    assert grounding_citations.strip_marks("a" + " " * 40_000 + "b [1] [2]c").endswith(" bc")
    assert grounding_citations.strip_marks("【" + "1" * 20_000) == "【" + "1" * 20_000
    assert time.thread_time() - started < 1

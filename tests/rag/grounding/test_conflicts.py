"""Contradictions between documents are found; different things, rewordings and additions are not reported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rag.embedding.answerability import AnswerabilityModel
from rag.embedding.reranker import by_answers
from rag.grounding.conflicts import find_conflicts
from rag.index import Index
from rag.refusal.gate import READ
from rag.types import Chunk, Hit

ASKED = "What does an adult single to Pellin cost?"


@pytest.fixture
def pair(make_chunk: Callable[..., Chunk]) -> Callable[..., list[Hit]]:
    """Two hits of different documents, with their titles and dates."""

    def make(
        one: str, other: str, titles: tuple[str, str] = ("Fares", "Fares"), docs: str = "ab"
    ) -> list[Hit]:
        sides = zip((one, other), titles, docs, ("2025-03-01", "2026-03-01"), strict=True)
        return [
            Hit(make_chunk(text, f"{doc}.md", title, n, line_start=5), 1, 1, 1, metadata={"date": date})
            for n, (text, title, doc, date) in enumerate(sides)
        ]

    return make


@pytest.mark.parametrize(
    ("question", "one", "other", "about"),
    [
        (
            ASKED,
            "An adult single to Pellin costs 9.70 euros.",
            "An adult single to Pellin is 10.60 euros.",
            "numbers",
        ),
        (
            ASKED,
            "Children pay half. An adult single to Pellin costs 9.70.",
            "Adult single to Pellin now costs 12.",
            "numbers",
        ),
        ("When does the bar open?", "The bar opens at 9 am.", "The bar opens at 10:00.", "numbers"),
        (
            "Are dogs allowed in the lounge?",
            "Dogs are allowed in the lounge.",
            "Dogs are not allowed in the lounge.",
            "denial",
        ),
        (
            "Is the pier open in winter?",
            "The pier is open in winter.",
            "The pier is closed in winter.",
            "denial",
        ),
        (
            "When does the winter schedule begin?",
            "The winter schedule begins on 9 November.",
            "The winter schedule begins on 26 October.",
            "dates",
        ),
        (
            "Where are refund forms?",
            "Paper refund forms lie at the Slate Desk in Tarnmouth.",
            "Paper refund forms lie at the Brass Desk in Tarnmouth.",
            "names",
        ),
    ],
)
def test_conflict_has_both_sides_and_the_newer(
    pair: Callable[..., list[Hit]], question: str, one: str, other: str, about: str
) -> None:
    hits = pair(one, other)
    (conflict,) = find_conflicts(question, hits)
    assert conflict.about == about
    assert [(side.n, side.doc, side.date) for side in conflict.sides] == [
        (1, "a.md", "2025-03-01"),
        (2, "b.md", "2026-03-01"),
    ]
    for side, hit in zip(conflict.sides, hits, strict=True):
        assert side.quote
        assert side.quote in hit.chunk.text
        assert side.line_start == 5
    assert conflict.newer == 2
    (back,) = find_conflicts(question, hits[::-1])
    assert back.newer == 1
    assert json.loads(json.dumps(conflict.to_json()))["sides"][1]["n"] == 2


@pytest.mark.parametrize(
    ("question", "one", "other"),
    [
        (ASKED, "An adult single to Pellin costs 9.70 euros.", "An adult single to Pellin costs 9.7 euros."),
        (ASKED, "An adult single to Pellin costs 9.70 euros.", "A child single to Pellin costs 4.85 euros."),
        (
            ASKED,
            "An adult single to Pellin costs 9.70 euros.",
            "An adult single to Varnsey costs 13.40 euros.",
        ),
        (
            ASKED,
            "An adult single to Pellin costs 9.70 euros.",
            "An adult single to Pellin costs 9.70 euros, a return 17.",
        ),
        ("When is check-in?", "Check-in time is 3 pm.", "Check-out time is 12:00."),
        ("Is there parking?", "Parking is available.", "Accessible parking is not available."),
        ("When does the bar open?", "The bar opens at 9 am.", "It seats forty guests."),
        (
            "Who is the master?",
            "The bar opens at 9 am in the old town hall.",
            "The hall of the town has a bar from 10.",
        ),
    ],
)
def test_no_conflict_between_compatible_sentences(
    pair: Callable[..., list[Hit]], question: str, one: str, other: str
) -> None:
    assert find_conflicts(question, pair(one, other)) == ()
    assert find_conflicts(question, pair(other, one)) == ()


def test_no_conflict_if_the_question_names_one_title(pair: Callable[..., list[Hit]]) -> None:
    sentences = "Check-in starts at 3 pm.", "Check-in starts at 2 pm."
    apart = pair(*sentences, titles=("Bridge House", "Arbury Lodge"))
    assert find_conflicts("When does check-in start at Bridge House?", apart) == ()
    assert len(find_conflicts("When does check-in start?", apart)) == 1
    assert (
        len(
            find_conflicts(
                "When does check-in start at Bridge House?", pair(*sentences, titles=("Bridge House",) * 2)
            )
        )
        == 1
    )


def test_no_conflict_within_one_document(pair: Callable[..., list[Hit]]) -> None:
    sentences = "The Moss Line leaves at 08:15.", "The Moss Line leaves at 12:15."
    assert find_conflicts("When does the Moss Line leave?", pair(*sentences, docs="aa")) == ()
    undated = [Hit(hit.chunk, 1, 1, 1) for hit in pair(*sentences)]
    (conflict,) = find_conflicts("When does the Moss Line leave?", undated)
    assert conflict.newer is None
    assert find_conflicts("When does the Moss Line leave?", []) == ()


@pytest.mark.real
def test_conflicts_between_versions_of_example_documents(
    example: Path, minilm: Any, minilm_folder: Path, tmp_path: Path
) -> None:
    """With both versions indexed: most questions about a changed fact show both, no other question shows a conflict.

    The passages are the three that a run shows: of twelve that are read, in the order of what answers.
    """
    reader = AnswerabilityModel(minilm_folder)

    def shown(index: Index, question: str) -> list[Hit]:
        return by_answers(index.read(reader, question, index.search(question, READ), READ))[:3]

    both = tmp_path / "both"
    shutil.copytree(example / "documents", both / "now")
    shutil.copytree(example / "update" / "documents", both / "later")
    Index.build(tmp_path / "index", both, minilm)
    index = Index.open(tmp_path / "index", minilm)
    rows = [json.loads(line) for line in (example / "update" / "stale.jsonl").read_text("utf-8").splitlines()]
    detected = with_both_answers = 0
    for row in rows:
        conflicts = find_conflicts(row["question"], shown(index, row["question"]))
        detected += bool(conflicts)
        quotes = " ".join(side.quote for conflict in conflicts for side in conflict.sides)
        with_both_answers += any(a in quotes for a in row["answers"]) and any(
            a in quotes for a in row["old_answers"]
        )
    assert len(rows) > 50
    assert detected / len(rows) >= 0.85
    assert with_both_answers / len(rows) >= 0.8
    Index.build(tmp_path / "now", example / "documents", minilm)
    questions = [
        json.loads(line)["question"] for line in (example / "questions.jsonl").read_text("utf-8").splitlines()
    ]
    alone = Index.open(tmp_path / "now", minilm)
    assert not [question for question in questions if find_conflicts(question, shown(alone, question))]

"""Sentences that a plan's style checks demand need no citation; facts in them do."""

from __future__ import annotations

import pytest

from advisor.drafting.form_checks import derive_checks
from rag.grounding.citations import attach_citations
from rag.types import Chunk, Hit
from runners.plan.schema import StyleCheck
from runners.scoring.style_checks import demanded_words, is_only_demanded

REPLIES = [
    f"Restart the {thing}. Quote tag {tag} to the desk."
    for thing in ("printer", "router", "phone", "scanner", "screen")
    for tag in ("GEN", "NET", "PRN", "TEL")
]


@pytest.mark.parametrize(
    ("sentence", "needs_none"),
    [
        ("Quote tag GEN to the desk.", True),
        ("Quote tag VPN to the desk.", True),
        ("Toner costs 5 euros to the desk.", False),
        ("Printers are delivered to the desk.", False),
        ("Quote tag GEN to the office.", False),
    ],
)
def test_closing_line_of_derived_checks(sentence: str, needs_none: bool) -> None:
    checks, _ = derive_checks(REPLIES)
    patterns = [pattern for check in checks if (pattern := demanded_words(check))]
    assert patterns
    assert any(is_only_demanded(sentence, pattern) for pattern in patterns) is needs_none


@pytest.mark.parametrize(
    "value", [r"^(?:(?![.!?]\s+[A-Z]).)+[.!]$", r"(?:^|\n)Answer: (?P<answer>\d+)$", r"^[^?]+\?$", r"^the$"]
)
def test_shapes_and_answers_demand_no_words(value: str) -> None:
    assert demanded_words(StyleCheck(kind="regex", value=value)) is None


def test_fact_before_the_closing_line_is_cited() -> None:
    text = "Toner costs 5 euros."
    hit = Hit(Chunk(0, "a.md", "", 0, text, 0, len(text)), 1.0, 1.0, 1.0)
    closing = "Quote tag GEN to the desk."
    marked, citations = attach_citations(f"{text} {closing}", [hit], {closing})
    assert marked == f"{text} [1] {closing}"
    assert [citation.supported for citation in citations] == [True]

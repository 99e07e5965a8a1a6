"""Dates in every usual spelling, told from numbers and from "may"."""

from __future__ import annotations

import pytest

from rag.text.dates import dates_within, extract_dates, without_dates


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("on 12 May 2026", {(2026, 5, 12)}),
        ("May 12th, 2026 and 3 June", {(2026, 5, 12), (None, 6, 3)}),
        ("2026-05-12", {(2026, 5, 12)}),
        ("12.5.2026", {(2026, 5, 12)}),
        ("the 3rd of Sept", {(None, 9, 3)}),
        ("12, 13 and 14 May", {(None, 5, 12), (None, 5, 13), (None, 5, 14)}),
        ("12–14 May 2026", {(2026, 5, 12), (2026, 5, 14)}),
        ("in May 2026", {(2026, 5, None)}),
        ("up to 3 may travel, 4 march on", set()),
        ("05/12/2026, 24/7, 3.5 and 2026", set()),
        ("tel. 2026-05-1234", set()),
    ],
)
def test_dates(text: str, wanted: set[tuple[int | None, int, int | None]]) -> None:
    assert extract_dates(text) == wanted


def test_the_rest_of_the_text_keeps_its_numbers() -> None:
    assert without_dates("From 12 and 13 May 2026 it costs 5 euros.").split() == [
        "From",
        "it",
        "costs",
        "5",
        "euros.",
    ]
    assert without_dates("No dates, 5 euros.") == "No dates, 5 euros."


@pytest.mark.parametrize(
    ("said", "source", "right"),
    [
        ("12 May", "2026-05-12", True),
        ("May 2026", "2026-05-12", True),
        ("12 May 2026", "12 May", False),
        ("13 May", "12–14 May", False),
        ("12 May", "12 June", False),
        ("nothing", "12 June", True),
    ],
)
def test_a_date_that_says_less_is_in_one_that_says_more(said: str, source: str, right: bool) -> None:
    assert dates_within(extract_dates(said), extract_dates(source)) is right


def test_a_year_may_stand_elsewhere() -> None:
    assert dates_within(extract_dates("12 May 2026"), extract_dates("12 May"), {"2026"})
    assert not dates_within(extract_dates("12 May 2026"), extract_dates("12 May 2025"), {"2026"})

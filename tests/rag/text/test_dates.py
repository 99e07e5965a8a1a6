"""Dates in all usual spellings, distinguished from numbers and from the word "may"."""

from __future__ import annotations

import pytest

from rag.text.dates import dates_within, extract_dates, without_dates


@pytest.mark.parametrize(
    ("text", "expected"),
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
def test_extract_dates(text: str, expected: set[tuple[int | None, int, int | None]]) -> None:
    assert extract_dates(text) == expected


def test_without_dates_keeps_other_numbers() -> None:
    assert without_dates("From 12 and 13 May 2026 it costs 5 euros.").split() == [
        "From",
        "it",
        "costs",
        "5",
        "euros.",
    ]
    assert without_dates("No dates, 5 euros.") == "No dates, 5 euros."


@pytest.mark.parametrize(
    ("claimed", "source", "expected"),
    [
        ("12 May", "2026-05-12", True),
        ("May 2026", "2026-05-12", True),
        ("12 May 2026", "12 May", False),
        ("13 May", "12–14 May", False),
        ("12 May", "12 June", False),
        ("nothing", "12 June", True),
    ],
)
def test_partial_date_is_within_a_fuller_date(claimed: str, source: str, expected: bool) -> None:
    assert dates_within(extract_dates(claimed), extract_dates(source)) is expected


def test_year_may_be_among_the_other_numbers() -> None:
    assert dates_within(extract_dates("12 May 2026"), extract_dates("12 May"), {"2026"})
    assert not dates_within(extract_dates("12 May 2026"), extract_dates("12 May 2025"), {"2026"})

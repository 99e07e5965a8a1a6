"""Quantities: what is read of them, and which of a claim a source bears out."""

from __future__ import annotations

import pytest

from rag.quantities.comparing import Quantity, agree
from rag.quantities.derived import is_derived
from rag.quantities.labels import find_labels
from rag.quantities.reading import has_amounts, read_quantities


def only(text: str) -> Quantity:
    (quantity,) = read_quantities(text)
    return quantity


@pytest.mark.parametrize(
    ("text", "value", "unit", "kind"),
    [
        ("a bag of 42 kg", "42", "kilogram", "measure"),
        ("42 stone", "42", "stone", "measure"),
        ("12 francs", "12", "franc", "money"),
        ("$4.1 million", "4100000", "dollar", "money"),
        ("three hundred and five seats", "305", "", "number"),
        ("one and a half million euros", "1500000", "euro", "money"),
        ("two and a half hours", "2.5", "hour", "duration"),
        ("2 hours 30 minutes", "2.5", "hour", "duration"),
        ("half an hour", "0.5", "hour", "duration"),
        ("a dozen eggs", "12", "", "number"),
        ("three euros fifty", "3.5", "euro", "money"),
        ("two thirds of the members", "0.6667", "share", "share"),
        ("twice a week", "2", "times", "measure"),
        ("a quarter to eight in the evening", "19:45", "", "time"),
        ("5,5 litres", "5.5", "litre", "measure"),
        ("in 2021 revenue grew", "2021", "", "year"),
        ("12 m²", "12", "square_metre", "measure"),
    ],
)
def test_a_quantity_has_value_unit_and_kind(text: str, value: str, unit: str, kind: str) -> None:
    quantity = only(text)
    assert (quantity.value, quantity.unit, quantity.kind) == (value, unit, kind)


@pytest.mark.parametrize(
    ("claim", "source", "borne_out"),
    [
        ("42 pounds", "42 kg", False),
        ("12 francs", "12 euros", False),
        ("1.5 hours", "90 minutes", True),
        ("€0.40", "40 cents", True),
        ("1,500 metres", "1.5 km", True),
        ("fell to 5 percent", "fell by 5 percent", False),
        ("fell 5 percent", "fell by 5 percent", True),
        ("exactly 340 metres", "about 340 metres", False),
        ("roughly 340 metres", "about 340 metres", True),
        ("about 3,000 hectares", "2,970 hectares", True),
        ("nearly 3,000 hectares", "2,970 hectares", True),
        ("more than 3,000 hectares", "2,970 hectares", False),
        ("more than 9,000 people", "nearly 9,000 people", False),
        ("at least 400 people", "over 400 people", True),
        ("at most 20 minutes", "at least 20 minutes", False),
        ("12 euros per week", "12 euros per night", False),
        ("a child of ten", "children under 12", True),
        ("a child of 13", "children under 12", False),
        ("until 16.00", "until 4 p.m.", True),
        ("until half past five", "until 17:30", True),
    ],
)
def test_a_source_bears_out_the_same_amount_in_the_same_sense(
    claim: str, source: str, borne_out: bool
) -> None:
    assert agree(only(claim), only(source)) is borne_out


def test_an_amount_belongs_to_its_year() -> None:
    first, second = (
        q for q in read_quantities("4.1 million in 2021 and 5.3 million in 2022") if not q.is_year
    )
    assert (first.year, second.year) == ("2021", "2022")
    wrong = read_quantities("In 2022 it was 4.1 million")[1]
    assert not agree(wrong, first)


def test_a_number_in_a_name_is_no_quantity() -> None:
    text = "The Aldra 300 delivers 35 kW in room 12 of zones 1 and 2."
    assert [quantity.value for quantity in read_quantities(text)] == ["35"]
    assert find_labels(text) == {"aldra300", "room12", "zone1", "zone2"}


@pytest.mark.parametrize(
    ("claim", "words", "source"),
    [
        ("was raised by 5 euros", set(), "raised the fee from 20 to 25 euros"),
        ("nineteen rooms altogether", {"altogether"}, "14 rooms on the second floor and 5 on the fourth"),
        ("168 euros a year", set(), "14 euros a month"),
        ("in 1959", set(), "found in 1957, given away two years later"),
    ],
)
def test_an_amount_can_follow_from_others(claim: str, words: set[str], source: str) -> None:
    quantity = only(claim)
    assert not any(agree(quantity, other) for other in read_quantities(source))
    assert is_derived(quantity, words, read_quantities(source))


def test_amounts_are_compared_without_their_bounds() -> None:
    assert has_amounts("45 euros", "It costs at most 45 euros.")
    assert not has_amounts("45 euros", "It costs 45 dollars.")
    assert not has_amounts("as before", "It costs 45 dollars.")

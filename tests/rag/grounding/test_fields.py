"""Structured replies taken apart, and supported field by field."""

from __future__ import annotations

import pytest

from rag.grounding.evidence import supported_share
from rag.grounding.fields import structured_fields
from rag.grounding.gold import GoldFinder
from rag.types import Chunk


def chunk(id: int, text: str, doc: str, title: str) -> Chunk:
    return Chunk(id=id, doc=doc, title=title, ordinal=id, text=text, start=0, end=len(text))


PUMP = chunk(
    0,
    "It is serviced every 338 running hours. A spare set costs 273 crowns and lies in the northern store.",
    "amber-pump",
    "Amber pump",
)
VALVE = chunk(
    1, "It is serviced every 90 running hours. A spare set costs 41 crowns.", "birch-valve", "Birch valve"
)
NOTES = chunk(2, "The foreman signs each sheet on Monday.", "amber-pump", "Amber pump")
KILN = chunk(3, "窯は毎週月曜日に点検されます。部品は北倉庫にあります。", "kiln", "琥珀窯")
ALL = [PUMP, VALVE, NOTES, KILN]
PUMP_CARD = "ASSET: Amber pump\nINTERVAL: 338 h\nSPARES: 273 crowns\nPRIORITY: P7"


@pytest.mark.parametrize(
    ("reply", "values"),
    [
        (PUMP_CARD, ["Amber pump", "338 h", "273 crowns", "P7"]),
        ("- **Asset**: Amber pump\n- **Spares**: `273 crowns`", ["Amber pump", "273 crowns"]),
        (
            '{"asset": "Amber pump", "hours": 338, "open": true, "tags": ["spare", null]}',
            ["Amber pump", "338", "spare"],
        ),
        ('```json\n[{"a": "x y"}]\n```', ["x y"]),
        ("| asset | hours |\n|---|---|\n| Amber pump | 338 |", ["Amber pump", "338"]),
        ("asset,hours\nAmber pump,338", ["Amber pump", "338"]),
        ("asset\thours\nAmber pump\t338", ["Amber pump", "338"]),
        ("<asset>Amber pump</asset><hours>338</hours>", ["Amber pump", "338"]),
        ("- Amber pump\n- 338 hours", ["Amber pump", "338 hours"]),
        ("GERÄT: Bernsteinpumpe\nPREIS: 273 Kronen", ["Bernsteinpumpe", "273 Kronen"]),
        ("点検：毎週月曜日\n部品：北倉庫", ["毎週月曜日", "北倉庫"]),
        ("The pump is serviced every 338 hours. Shall I book it?", []),
        ("Note: the store is closed.", []),
        ("Yes, it does, on Mondays, and at noon, too.\nNo, it does not, on Sundays, or at noon, alas.", []),
        ("P7", []),
        ("{not json", []),
    ],
)
def test_fields_of_replies(reply: str, values: list[str]) -> None:
    assert [field.value for field in structured_fields(reply)] == values


@pytest.mark.parametrize(
    ("reply", "documents"),
    [
        (PUMP_CARD, ["amber-pump"]),
        (PUMP_CARD + "\nSIGNED: the foreman, Monday", ["amber-pump", "amber-pump"]),
        ("ASSET: Birch valve\nINTERVAL: 90 h\nSPARES: 41 crowns\nPRIORITY: P1", ["birch-valve"]),
        ('{"asset": "Amber pump", "hours": 338, "priority": "P7"}', ["amber-pump"]),
        ("品名：琥珀窯\n点検：毎週月曜日\n部品：北倉庫\n順位：甲", ["kiln"]),
        ("ASSET: Cedar crane\nINTERVAL: 500 h\nSPARES: 12 crowns\nPRIORITY: P7", []),
    ],
)
def test_card_is_supported_by_its_fields(reply: str, documents: list[str]) -> None:
    """As one sentence no passage supports it: the keys are in none, and the priority was derived."""
    finder = GoldFinder(ALL)
    assert finder.find(reply) is None
    assert [found.doc for found in finder.find_all(reply)] == documents


def test_values_that_state_nothing_do_not_count() -> None:
    fields = structured_fields("ASSET: Amber pump\nOPEN: yes\nNOTES: -")
    assert supported_share(fields, [PUMP]) == 1
    assert supported_share(fields, [VALVE]) == 0
    assert supported_share(structured_fields("OPEN: yes\nNOTES: none"), [PUMP]) == 0


def test_numbers_are_compared_by_value_not_as_text() -> None:
    price = chunk(9, "It costs 12.5 crowns.", "a", "A")
    assert supported_share(structured_fields("PRICE: 5\nUNIT: crowns"), [price]) == 0.5


def test_long_text_with_an_open_quotation_mark_is_no_table() -> None:
    """Python's csv module refuses such a cell."""
    assert structured_fields('one, "' + "x" * 200_000) == ()

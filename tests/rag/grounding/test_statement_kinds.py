"""Statements of the audited kinds: changes, years, modality, restrictions, subjects, tables, pronouns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import rag
from benchmarks import citations
from benchmarks.citations.__main__ import level_of
from rag.types import Chunk, Citation, Hit

TABLE = (
    "| Room | Seats | Price per day | Projector |\n|---|---|---|---|\n| Elm | 12 | 80 euros | yes |\n"
    "| Oak | 30 | 150 euros | no |\n| Pine | 8 | 60 euros | yes |"
)
FALSE = {
    "Mrs Oakley repairs sails and Mr Twill paints boats.": "Mr Twill repairs sails.|Mrs Oakley paints boats.",
    "A parcel may weigh up to 42 kg and costs 12 euros.": (
        "A parcel may weigh up to 42 pounds.|A parcel may weigh up to 42 stone.|A parcel costs 12 francs."
    ),
    "Water use fell by 5 percent last year.": "Water use fell to 5 percent last year.",
    "Revenue rose from 4.1 million in 2021 to 5.3 million in 2022.": (
        "Revenue was 4.1 million in 2022.|In 2021, revenue came to 5.3 million."
    ),
    "Visitors must wear a badge. Staff should lock the door. Students may use the printer.": (
        "Visitors may wear a badge.|Visitors should wear a badge.|Staff must lock the door."
        "|Students must use the printer."
    ),
    "The bridge is about 340 metres long.": "The bridge is exactly 340 metres long.",
    "All flats have a balcony. Most flats have a garage. Some flats have a sea view.": (
        "All flats have a garage.|Most flats have a sea view."
    ),
    "The Aldra 300 is a wood stove. It delivers 35 kW. The Aldra 500 delivers 50 kW.": "The Aldra 500 delivers 35 kW.",
    "Mr Wilk heads the school and Ms Adeyemi the library; he is in charge of exams, she of courses.": (
        "Ms Adeyemi is in charge of exams.|Mr Wilk is in charge of courses."
    ),
    "Line 12 leaves the station at 7.05. Line 4 starts at the harbour.": (
        "Line 4 starts at the harbour. It leaves the station at 7.05."
    ),
    "Dr. Voss leads the choir, and Dr. Marsh plays the organ; she also teaches singing.": (
        "Dr. Voss teaches singing.|It is Dr. Voss who teaches singing."
    ),
    "Sister Ivers is here by day; at night Sister Coe takes over, and she also holds the key.": (
        "Sister Ivers holds the key."
    ),
    "The mill was taken over by Ada Quint. Mr. Tarr is the manager; his predecessor, Ms. Lund, now chairs the council.": (
        "Mr. Tarr now chairs the council."
    ),
    "The Kite 2 carries cars. Her older sister, Kite 1, will be sold next autumn.": "The Kite 2 will be sold next autumn.",
    "Oil may be used in the Perk 40, but never in the Perk 30, since it has no pump.": "The Perk 40 has no pump.",
    "Cleaners must wear gloves.": "Wearing gloves is at the cleaners' discretion.",
    "The rent went from 290 to 305 euros.": "The rent was put up by 305 euros.",
    "The number of lockers climbed to 86 last year.": "Last year the hall gained 86 lockers.",
    "The kiosk sells stamps in spring and autumn; in summer they are sold at the farm.": (
        "The kiosk sells stamps in spring, summer and autumn."
    ),
    "The soap contains no dyes, but it does contain perfume.": "The soap is free of perfume.",
    "Most branches close on Mondays; the Quay branch and the Hill branch are open every day. Only the Quay branch has a"
    " music room.": "Both the Quay branch and the Hill branch have a music room.",
    "Menu A always contains meat, Menu B never does.": "Both Menu A and Menu B are free of meat.",
    "Readers may order five files a day.": "Readers may order as many files a day as they like.",
    TABLE: "The Elm room seats 30.|The Oak room has a projector.|The Pine room costs 80 euros a day.",
}
TRUE = {
    "Revenue rose from 4.1 million in 2021 to 5.3 million in 2022.": (
        "Revenue was 5.3 million in 2022.|In 2021 revenue was 4.1 million."
    ),
    "The council raised the fee from 20 to 25 euros.": "The fee was raised by 5 euros.|The fee went up to 25 euros.",
    "The crossing takes 90 minutes.": "The crossing takes an hour and a half.",
    "Visitors must wear a badge. Swimmers need not shower twice.": (
        "Visitors are required to wear a badge.|Swimmers do not have to shower twice."
    ),
    "Entry to the garden costs nothing. Cycling is not permitted on the lake path.": (
        "Entry to the garden is free.|Cycling is forbidden on the lake path."
    ),
    "Guests with a pass enter free.": "Guests who have a pass do not pay for entry.",
    "The Aldra 300 delivers 35 kW.": "The Aldra 300 delivers 35 kilowatts.",
    "A bed costs 22 euros per night and 130 euros per week.": "A bed costs 130 euros per week.",
    "Its two cars, the Heron and the Otter, were built in 1934 and 1961 respectively.": (
        "The Heron was built in 1934, while the Otter was built in 1961."
    ),
    "Dr. Voss leads the choir, and Dr. Marsh plays the organ; she also teaches singing.": (
        "Dr. Marsh teaches singing.|It is Dr. Marsh who teaches singing."
    ),
    "The songs were recorded by students of the school.": "It was students of the school that recorded the songs.",
    "The owner, Jon Berg, lives here with his brother Lars, who runs the kiosk.": "It is Lars who runs the kiosk.",
    "The bridge was designed by John Fowler in 1890.": "It was John Fowler who designed the bridge.",
    "The ward was extended by six beds in 2015.": "Six beds were added to the ward in 2015.",
    "At most two people may be at a bed. Each cabin takes up to 30 passengers.": (
        "There may be no more than two people at a bed.|A cabin takes 30 passengers at the most."
    ),
    "Urgent samples fell from 90 to 55 minutes.": "Urgent samples used to take 90 minutes.",
    "A driving lesson lasts 45 minutes.": "One driving lesson lasts 45 minutes.",
    "Pressure hoses are forbidden for cleaning.": "Pressure hoses are off limits for cleaning.",
    "Empty drums should be returned within three months.": "You should return empty drums within three months.",
    TABLE: "The Oak room seats 30.|Room Pine costs 60 euros per day.|There is a projector in the Elm room.",
}
LIMITED = {
    "Guests with a pass enter free.": "Guests enter free.",
    "All transfers outside the EU cost 15 euros.": "All transfers cost 15 euros.",
    "Cards are replaced free of charge if they are reported stolen within 24 hours.": "Cards are replaced free of charge.",
    "Members may bring a friend only if they book ahead.": "Members may bring a friend.",
    "Lockers can be used overnight unless the gym is closed the next day.": "Lockers can be used overnight.",
    "Music is allowed when the yoga room is empty.": "Music is allowed.",
    "The tower is open at weekends, except in January.": "The tower is open at weekends.",
}


def cite(passage: str, statement: str) -> list[Citation]:
    return rag.cite(statement, [Hit(Chunk(0, "a.md", "", 0, passage, 0, len(passage)), 1.0, 1.0, 1.0)])


def pairs(groups: dict[str, str]) -> list[tuple[str, str]]:
    return [(passage, one) for passage, several in groups.items() for one in several.split("|")]


@pytest.mark.parametrize(("passage", "statement"), pairs(FALSE))
def test_what_the_passage_does_not_say_is_not_supported(passage: str, statement: str) -> None:
    assert {citation.support for citation in cite(passage, statement)} != {"supported"}


@pytest.mark.parametrize(("passage", "statement"), pairs(TRUE))
def test_what_the_passage_says_in_other_words_is_supported(passage: str, statement: str) -> None:
    assert {citation.support for citation in cite(passage, statement)} == {"supported"}


@pytest.mark.parametrize(("passage", "statement"), pairs(LIMITED))
def test_a_restriction_left_out_is_partly_and_says_so(passage: str, statement: str) -> None:
    (citation,) = cite(passage, statement)
    assert (citation.support, citation.limited, citation.supported) == ("partly", True, False)
    assert json.loads(json.dumps(citation.to_json()))["limited"] is True


def test_statements_of_a_writer_who_knew_no_rule() -> None:
    """The set that the rules were made with; the other set is for reporting (docs/how-it-measures.md)."""
    path = Path(citations.__file__).parent / "services.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    supported = [row for row in rows if level_of(row) == "supported"]
    right = sum(row["label"] == "supported" for row in supported)
    assert len(rows) == 240
    assert len(supported) - right <= 1
    assert right >= 86

"""Statements made of a passage's words that it does not bear out, and true ones in other words, from several trades."""

from __future__ import annotations

import pytest

import rag
from rag.types import Chunk, Hit

POOL = (
    "Adults pay 12 euros. Children pay 6 euros. The pool opens at 7:30 and closes at 21:00. Towels are rented for 3 euros. "
    "Caps are required in the deep basin. The sauna is closed on Mondays."
)
WORKSHOP = (
    "The workshop lends tools for 3 days. A deposit of at least 20 euros is kept. Anna Berg repairs the bicycles. "
    "Jonas Lind teaches pottery after lunch. The kiln must not be opened before it has cooled. Glazes cost more than clay."
)
CLINIC = (
    "Dr. Mara Olsen sees patients on Tuesday. Dr. Pavel Novak sees patients on Thursday. Take 2 tablets every 8 hours. "
    "Do not take more than 6 tablets in a day. Results arrive within 5 days. Visitors may stay until 20:00. "
    "The old wing is north of the garden."
)
FARM = (
    "The upper field grows barley. The lower field grows beans. Sow beans before the last frost in May. "
    "Each hen lays up to 6 eggs a week. The well is 40 metres deep. Sheep are sheared in summer. "
    "The tractor may not be used without a permit. Lena founded the farm in 1987."
)
SERVER = (
    "Backups are kept for 30 days. Uploads may be up to 25 MB. The cache is enabled by default. "
    "The scheduler starts after the database. Passwords need at least 12 characters. "
    "Admins can delete projects, but editors cannot. The free plan has 2 seats and the team plan has 10 seats."
)
PRESS = (
    "The matte paper is cheaper than the glossy paper. Orders over 100 euros ship free. Proofs are sent by email. "
    "The bindery beat the foundry in 2019. Posters are printed on Wednesdays. "
    "Express orders take 2 days, normal orders 6 days. "
    "Refunds are possible before printing starts."
)

FALSE = {
    POOL: """
        Adults pay 6 euros.|Children pay 12 euros.|The price for adults is 6 euros.
        6 euros is what adults pay.
        Adults pay 12 dollars.|The pool opens at 21:00.|The pool closes at 7:30.|The pool opens at 7:30 pm.
        Towels are rented for 6 euros.|Caps are not required in the deep basin.
        Caps are required in the shallow basin.
        The sauna is open on Mondays.|The sauna is closed on Sundays.|Adults pay at most 12 euros.
        Children pay sixteen euros.
    """,
    WORKSHOP: """
        The workshop lends tools for 3 hours.|Tools are lent for 3 weeks.
        A deposit of at most 20 euros is kept.
        A deposit of up to 20 euros is kept.|Jonas Lind repairs the bicycles.
        Anna Berg teaches pottery after lunch.
        Jonas Lind teaches pottery before lunch.|The kiln must be opened before it has cooled.
        Peter Berg repairs the bicycles.
        Glazes cost less than clay.|The workshop lends tools for 20 days.|The workshop repairs the bicycles.
    """,
    CLINIC: """
        Dr. Mara Olsen sees patients on Thursday.|Dr. Pavel Novak sees patients on Tuesday.
        Take 8 tablets every 2 hours.
        Take 2 tablets every 8 days.|You may take more than 6 tablets in a day.|Results arrive within 5 weeks.
        Results arrive after 5 days.|Visitors may stay from 20:00.|The old wing is south of the garden.
        The new wing is north of the garden.|Take 6 tablets every 8 hours.|Visitors may stay until 8 am.
    """,
    FARM: """
        The upper field grows beans.|The lower field grows barley.|Sow beans after the last frost in May.
        Sow beans before the last frost in June.|Each hen lays at least 6 eggs a week.
        Each hen lays up to 6 eggs a month.
        The well is 40 feet deep.|Sheep are sheared in winter.|The tractor may be used without a permit.
        Lena founded the farm in 1978.|Lars founded the farm in 1987.|Lena sold the farm in 1987.
    """,
    SERVER: """
        Backups are kept for 30 hours.|Backups are kept for 25 days.|Uploads may be up to 25 GB.
        Uploads must be at least 25 MB.
        The cache is disabled by default.|The cache is not enabled by default.
        The scheduler starts before the database.
        The database starts after the scheduler.|Passwords need at most 12 characters.
        Editors can delete projects.
        The free plan has 10 seats.|The team plan has 2 seats.
    """,
    PRESS: """
        The glossy paper is cheaper than the matte paper.
        The matte paper is more expensive than the glossy paper.
        Orders under 100 euros ship free.|Orders over 100 dollars ship free.
        The foundry beat the bindery in 2019.
        Posters are printed on Thursdays.|Express orders take 6 days.|Normal orders take 2 days.
        Express orders take 2 hours.
        Refunds are possible after printing starts.|Refunds are impossible before printing starts.
    """,
}
TRUE = {
    POOL: """
        Children pay six euros.|The price for adults is 12 euros.|Kids pay €6.|The pool opens at 7.30 a.m.
        The pool closes at 9 pm.
        You must wear... caps are required in the deep basin.|Towels can be rented for three euros.
        On Mondays the sauna is closed.
        Adults pay 12 euros and children pay 6 euros.
    """,
    WORKSHOP: """
        Tools are lent for three days.|Bicycles are repaired by Anna Berg.
        After lunch, Jonas Lind teaches pottery.
        Pottery is taught by Jonas Lind after lunch.|The deposit is at least 20 euros.
        According to the document, Anna Berg repairs the bicycles.
        A minimum deposit of 20 euros is kept.
    """,
    CLINIC: """
        On Tuesday Dr. Mara Olsen sees patients.|Patients are seen by Dr. Pavel Novak on Thursday.
        Take two tablets every eight hours.
        Visitors may stay until 8 pm.|Take 2 tablets every 8 h.|Results arrive within five days.
        The garden is south of the old wing.
    """,
    FARM: """
        Barley grows in the upper field.|Each hen lays at most six eggs a week.|The well is 40 m deep.
        The farm was founded by Lena in 1987.
        In summer, sheep are sheared.|In 1987 Lena founded the farm.|Each hen lays no more than 6 eggs a week.
    """,
    SERVER: """
        Backups are stored for thirty days.|Uploads may be at most 25 megabytes.
        By default, the cache is enabled.
        The database starts before the scheduler.|Passwords need no fewer than 12 characters.
        Editors cannot delete projects.
        The free plan has two seats.|Admins can delete projects.|The team plan has ten seats.
    """,
    PRESS: """
        Orders of more than 100 euros ship free.|Proofs are sent via email.|On Wednesdays posters are printed.
        Express orders take two days.|In 2019 the bindery beat the foundry.
        Before printing starts, refunds are possible.
        Normal orders take six days.
    """,
}
NOT_YET = {
    "The garden is south of the old wing.",
    "Barley grows in the upper field.",
    "You must wear... caps are required in the deep basin.",
}
"""True, and not recognised: a direction the other way round, a verb used both ways, and an unfinished beginning."""


def _pairs(groups: dict[str, str]) -> list[tuple[str, str]]:
    return [
        (passage, statement.strip())
        for passage, lines in groups.items()
        for line in lines.strip().splitlines()
        for statement in line.split("|")
    ]


def _support(passage: str, statement: str) -> set[str]:
    hit = Hit(Chunk(0, "a.md", "", 0, passage, 0, len(passage)), 1.0, 1.0, 1.0)
    return {citation.support for citation in rag.cite(statement, [hit])}


def test_there_are_enough_statements() -> None:
    assert len(_pairs(FALSE)) >= 60
    assert len([pair for pair in _pairs(TRUE) if pair[1] not in NOT_YET]) >= 40


@pytest.mark.parametrize(("passage", "statement"), _pairs(FALSE))
def test_false_statement_is_not_supported(passage: str, statement: str) -> None:
    assert "supported" not in _support(passage, statement)


@pytest.mark.parametrize(("passage", "statement"), _pairs(TRUE))
def test_true_statement_is_supported(passage: str, statement: str) -> None:
    assert (_support(passage, statement) == {"supported"}) is (statement not in NOT_YET)

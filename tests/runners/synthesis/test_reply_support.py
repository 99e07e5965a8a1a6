"""Whether a passage bears out a reply: good replies pass, and one changed fact is noticed."""

from __future__ import annotations

import pytest

from rag.types import Chunk
from runners.synthesis.passage_reading import CONSISTENT, QUOTED, SUPPORTED
from runners.synthesis.reply_support import check_reply, reply_statements

FERRY = (
    "The Plover leaves Quillscar at 21:10 on Fridays. A day ticket costs 14 euros and is valid until midnight. "
    "Dogs travel free on deck but are not allowed in the lounge. Captain Ines Varga has run the line since 2009. "
    "The ferry to Eider Bay was built in 1987 by Harland Yard."
)


def passage(text: str = FERRY, title: str = "Plover Line") -> Chunk:
    return Chunk(1, "plover.md", title, 0, text, 0, len(text))


GOOD = (
    ("What does a day ticket of the Plover Line cost?", "A day ticket costs 14 euros.", SUPPORTED),
    ("What does a day ticket of the Plover Line cost?", "14 euros", QUOTED),
    ("Who runs the Plover Line?", "Ines Varga", QUOTED),
    (
        "Are dogs allowed in the lounge?",
        "No, dogs are not allowed in the lounge. Shall I book a cabin?",
        SUPPORTED,
    ),
    ("When does the Plover leave Quillscar?", "It leaves at 21:10 on Fridays.", SUPPORTED),
    ("Can I take my dog on the Plover?", "Yes, your dog travels on deck at no charge.", SUPPORTED),
    (
        "Since when has Captain Varga run the Plover Line?",
        "Captain Varga took over the line in 2009.",
        CONSISTENT,
    ),
)
BAD = (
    ("What does a day ticket of the Plover Line cost?", "A day ticket costs 15 euros."),
    ("What does a day ticket of the Plover Line cost?", "15 euros"),
    ("When does the Plover leave Quillscar?", "It leaves at 21:10 on Saturdays."),
    ("Who runs the Plover Line?", "Captain Jonas Bree has run the line since 2009."),
    ("Are dogs allowed in the lounge?", "Yes, dogs are allowed in the lounge."),
    ("When was the ferry to Eider Bay built?", "It was built in 2009 by Harland Yard."),
    ("How many cabins does the Plover have?", "It has plenty of cosy wooden cabins with a sea view."),
    ("How much is a day ticket of the Plover Line?", "Ines Varga"),
    ("Who runs the Plover Line?", "Plover Line"),
    ("What does a week ticket of the Heron cost?", "14 euros"),
    ("What does a day ticket of the Plover Line cost?", ""),
)


@pytest.mark.parametrize(("question", "reply", "level"), GOOD)
def test_a_borne_out_reply_passes(question: str, reply: str, level: str) -> None:
    support = check_reply(question, reply, passage())
    assert support.level == level, support.reason
    assert support.spans
    assert all(FERRY[start:end].strip() for start, end in support.spans)


@pytest.mark.parametrize(("question", "reply"), BAD)
def test_a_wrong_reply_is_refused_with_a_reason(question: str, reply: str) -> None:
    support = check_reply(question, reply, passage())
    assert not support.level
    assert support.reason


def test_a_card_is_checked_field_by_field() -> None:
    text = "Command: tar -xf archive.tar. It extracts an archive. More at gnu.org/tar."
    question = "How do I extract an archive with tar?"
    card = "COMMAND: tar -xf archive.tar\nMORE: gnu.org/tar"
    assert check_reply(question, card, passage(text, "tar")).level == QUOTED
    assert not check_reply(question, card.replace("-xf", "-cf"), passage(text, "tar")).level


def test_closing_questions_and_run_on_offers_are_no_statements() -> None:
    reply = "The lounge is open Would you like a table? Is there anything else you need."
    assert reply_statements(reply) == ["The lounge is open"]


CARD = "Command: `{}`\nTool: Packs files and folders into a compressed archive.\nMore: https://packer.example/manual"
PACKER = (
    "# packer\n\n> Packs files and folders into a compressed archive.\n> More information: <https://packer.example/manual>.\n\n"
    "- List the files of an archive:\n\n`packer --list {{archive}}`\n\n"
    "- Set the level of compression:\n\n`packer --level {{9}} {{archive}}`"
)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (CARD.format("packer --level {{9}} {{archive}}"), ""),
        (CARD.format("packer --list {{archive}}"), "another place"),
        (CARD.format("packer --level {{8}} {{archive}}"), "does not have"),
        (CARD.format("packer {{archive}} --level {{9}}"), "does not have"),
        (CARD.format("packer --level {{9}} {{archive}}").replace("folders", "passwords"), "another value"),
    ],
)
def test_a_card_is_compared_with_its_place(reply: str, reason: str) -> None:
    support = check_reply(
        "With packer: how do I set the level of compression?", reply, passage(PACKER, "packer")
    )
    assert (support.level == QUOTED) == (not reason)
    assert reason in support.reason


@pytest.mark.parametrize(("reply", "right"), [("10", True), ("9", False), ("12", False)])
def test_the_value_of_another_name_of_a_list_is_refused(reply: str, right: bool) -> None:
    hours = passage("The desk opens at: Kestrel 9, Heron 10, Plover 12.", "Desks")
    assert bool(check_reply("When does the desk at Heron open?", reply, hours).level) == right


def test_a_sentence_may_join_two_of_the_passage() -> None:
    joined = "The ferry to Eider Bay was built in {} and a day ticket costs 14 euros."
    question = "When was the ferry to Eider Bay built and what is its ticket?"
    assert check_reply(question, joined.format(1987), passage()).level
    assert not check_reply(question, joined.format(2009), passage()).level


def test_spaces_before_marks_do_not_hide_a_date() -> None:
    apart = passage("The Plover 's first trip was on May 3 , 1990 , from Quillscar .")
    question = "When was the first trip of the Plover?"
    assert check_reply(question, "The first trip of the Plover was on May 3, 1990.", apart).level
    assert not check_reply(question, "The first trip of the Plover was on May 4, 1990.", apart).level

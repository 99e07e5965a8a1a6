"""Every kind of verifiable instruction, with a reply that follows it and one that does not."""

from __future__ import annotations

from typing import Any

import pytest

from runners.scoring.ifeval import INSTRUCTION_CHECKS, follows_instruction

LESS, LEAST = "less than", "at least"
CASES: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "keywords:existence": ({"keywords": ["snow", "River"]}, ["Snow fell on the river."], ["Snow fell."]),
    "keywords:frequency": (
        {"relation": LEAST, "keyword": "train", "frequency": 2},
        ["A train and Trains."],
        ["One train."],
    ),
    "keywords:forbidden_words": ({"forbidden_words": ["cat"]}, ["A category."], ["The Cat sat."]),
    "keywords:letter_frequency": (
        {"let_relation": LESS, "letter": "e", "let_frequency": 2},
        ["An Egg."],
        ["Eel."],
    ),
    "length_constraints:number_words": (
        {"relation": LESS, "num_words": 4},
        ["One, two; three!"],
        ["a b c d"],
    ),
    "length_constraints:number_sentences": (
        {"relation": LEAST, "num_sentences": 2},
        ["It rained. We stayed in."],
        ["It rained, and we stayed in."],
    ),
    "length_constraints:number_paragraphs": (
        {"num_paragraphs": 2},
        ["One.\n***\nTwo.", "***\nOne.\n***\nTwo.\n***"],
        ["One.\n\nTwo.", "One.\n***\n***\nTwo."],
    ),
    "length_constraints:nth_paragraph_first_word": (
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"},
        ['First this.\n\n"Then" that.', "First.\n\nThen, that."],
        ["Then this.\n\nFirst that.", "Then."],
    ),
    "detectable_content:number_placeholders": (
        {"num_placeholders": 2},
        ["Dear [name] of [town]"],
        ["Dear [name]"],
    ),
    "detectable_content:postscript": (
        {"postscript_marker": "P.S."},
        ["Thanks.\n\nP.S. Come again.", "Thanks. p. s. more"],
        ["Thanks. PS more"],
    ),
    "detectable_format:number_bullet_lists": (
        {"num_bullets": 2},
        ["* one\n* two", "Here:\n- one\n  - two"],
        ["* one", "* a\n* b\n- c", "**bold**\n* one"],
    ),
    "detectable_format:number_highlighted_sections": (
        {"num_highlights": 1},
        ["It is *red*.", "It is **red**."],
        ["It is red.", "a ** b"],
    ),
    "detectable_format:multiple_sections": (
        {"section_spliter": "SECTION", "num_sections": 2},
        ["SECTION 1\na\nSECTION 2\nb"],
        ["SECTION 1\na", "SECTION A"],
    ),
    "detectable_format:constrained_response": ({}, ["My answer is no."], ["My answer is no", "No."]),
    "detectable_format:json_format": (
        {},
        ['{"a": 1}', '```json\n{"a": [1]}\n```', "[1]"],
        ["{'a': 1}", 'Here: {"a": 1}'],
    ),
    "detectable_format:title": ({}, ["<<Spring>>\nIt is here."], ["<Spring>", "<<>>", "<< >>"]),
    "combination:two_responses": (
        {},
        ["Hello\n******\nGood day"],
        ["Hello\n******\nHello", "Hello", "a******b******c"],
    ),
    "combination:repeat_prompt": (
        {"prompt_to_repeat": "Say hello."},
        ["say hello. Hello!"],
        ["Hello!", "Sure: Say hello."],
    ),
    "startend:end_checker": (
        {"end_phrase": "Run well."},
        ["Go! run WELL.", '"Run well."'],
        ["Run well. Bye."],
    ),
    "startend:quotation": ({}, ['"Rain is water."', ' "x" '], ['Rain "is" water', '"']),
    "change_case:capital_word_frequency": (
        {"capital_relation": LEAST, "capital_frequency": 2},
        ["READ THIS now"],
        ["READ this now"],
    ),
    "change_case:english_capital": ({}, ["READ THIS, 2 TIMES!"], ["READ this", "123"]),
    "change_case:english_lowercase": ({}, ["read this, 2 times!"], ["Read this"]),
    "punctuation:no_comma": ({}, ["No commas here."], ["Well, one."]),
}


def test_every_instruction_kind_has_cases() -> None:
    assert CASES.keys() == INSTRUCTION_CHECKS.keys()


@pytest.mark.parametrize("kind", CASES)
def test_kind_accepts_following_and_rejects_other_reply(kind: str) -> None:
    values, good, bad = CASES[kind]
    assert [follows_instruction(reply, kind, values) for reply in good] == [True] * len(good)
    assert [follows_instruction(reply, kind, values) for reply in bad] == [False] * len(bad)
    assert not follows_instruction("  ", kind, values)


def test_relations_are_evaluated_and_unknown_ones_refused() -> None:
    kind = "length_constraints:number_words"
    assert follows_instruction("a b c", kind, {"relation": LEAST, "num_words": 3, "keyword": None})
    assert not follows_instruction("a b c", kind, {"relation": LESS, "num_words": 3})
    with pytest.raises(ValueError, match="around"):
        follows_instruction("a b c", kind, {"relation": "around", "num_words": 3})
    with pytest.raises(KeyError):
        follows_instruction("a", "poetry:rhyme", {})

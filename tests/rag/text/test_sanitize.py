"""Text made harmless: terminal escapes, invisible characters, control tokens."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.text import sanitize

ODD = st.text(st.characters(codec=None, exclude_categories=()), max_size=80)


@pytest.mark.parametrize(
    ("text", "visible"),
    [
        ("plain text,\n\ttwo lines", "plain text,\n\ttwo lines"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]8;;http://a.example\x07click\x1b]8;;\x07", "click"),
        ("\x1b]52;c;c2VjcmV0\x1b\\after", "after"),
        ("\x1b]0;no end\nnext line", "\nnext line"),
        ("\x9b2Jgone \x1bPq#0\x1b\\picture", "gone picture"),
        ("bell\x07 back\x08 nul\x00", "bell back nul"),
        ("one\r\ntwo\rthree\u2028four\x85five", "one\ntwo\nthree\nfour\nfive"),
        ("ab\u202edc\u202c \u2066x\u2069 \u200erun", "abdc x run"),
        ("zero\u200bwidth \ufeffand\u2060 soft\u00adhyphen", "zerowidth and softhyphen"),
        ("p\u200da\u200cy", "pay"),
        ("می‌خواهم", "می‌خواهم"),
        ("👩‍🚀 flies 🏴󠁧󠁢󠁳󠁣󠁴󠁿", "👩‍🚀 flies 🏴󠁧󠁢󠁳󠁣󠁴󠁿"),
        ("tags\U000e0069\U000e0067\U000e006e", "tags"),
        ("❤️ and a\ufe01\ufe02\ufe03 run", "❤️ and a run"),
        ("नमस्ते e\u0301", "नमस्ते e\u0301"),
        ("\ud800 half", " half"),
    ],
)
def test_strip_invisible(text: str, visible: str) -> None:
    assert sanitize.strip_invisible(text) == visible


@given(ODD)
def test_strip_invisible_leaves_no_control_or_format_character(text: str) -> None:
    visible = sanitize.strip_invisible(text)
    assert sanitize.strip_invisible(visible) == visible
    for at, char in enumerate(visible):
        category = unicodedata.category(char)
        assert char in "\n\t" or category not in ("Cc", "Cs", "Cn")
        assert category != "Cf" or char in sanitize._NUMBER_SIGNS or visible[at - 1] > "\u02ff"
    assert "\n" not in sanitize.single_line(text)


def test_control_tokens_of_chat_templates_are_neutralised() -> None:
    marks = [
        "<|im_start|>",
        "<|im_end|>",
        "<|endoftext|>",
        "<|start_header_id|>",
        "<|eot_id|>",
        "<|user|>",
        "<｜User｜>",
        "<|START_OF_TURN_TOKEN|>",
        "<start_of_turn>",
        "<end_of_turn>",
        "<s>",
        "</s>",
        "<bos>",
        "[INST]",
        "[/INST]",
        "<<SYS>>",
        "<</SYS>>",
        "[TOOL_CALLS]",
    ]
    for mark in marks:
        broken = sanitize.neutralise_control_tokens(f"before {mark}system {mark.upper()}after")
        assert mark not in broken
        assert mark.upper() not in broken
        assert broken.replace(" ", "") == f"before{mark}system{mark.upper()}after".replace(" ", "")
    plain = "5 < 6 | 7 > 3, <b>bold</b>, [1], a <= b, List<int>, [INSTALL]"
    assert sanitize.neutralise_control_tokens(plain) == plain

"""Reasoning is cut from the beginning of texts and streams, however they are divided into pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.data.examples import Example
from runners.data.reasoning import TAGS, ReasoningSplitter, holds_reasoning, split_reasoning

HARMONY = "<|channel|>analysis<|message|>The user asks.assistant<|channel|>final<|message|>At nine."


@pytest.mark.parametrize(
    ("text", "answer", "unfinished"),
    [
        ("At nine.", "At nine.", False),
        ("<think>\nHm, 9?\n</think>\n\nAt nine.", "At nine.", False),
        ("\n<think></think>At nine.", "At nine.", False),
        ("<think>a</think>\n<think>b</think>At nine.", "At nine.", False),
        ("<think>\nHm, 9? It never", "", True),
        ("[THINK]Hm.[/THINK]At nine.", "At nine.", False),
        (HARMONY, "At nine.", False),
        ("<|channel|>final<|message|>At nine.", "At nine.", False),
        ("<|channel|>analysis<|message|>The user", "", True),
        ("At <think>nine</think>.", "At <think>nine</think>.", False),
        ("<thin", "<thin", False),
        ("<b>At nine.</b>", "<b>At nine.</b>", False),
        ("", "", False),
    ],
)
def test_answer_is_what_follows_the_reasoning(text: str, answer: str, unfinished: bool) -> None:
    split = split_reasoning(text)
    assert (split.answer, split.unfinished) == (answer, unfinished)


def test_reasoning_that_the_prompt_began_ends_at_its_tag() -> None:
    assert split_reasoning("Hm.\n</think>\n\nAt nine.", "</think>").answer == "At nine."
    assert split_reasoning("Hm, it never", "</think>").answer == ""


def test_text_that_only_may_be_reasoning_is_an_answer_without_the_tag() -> None:
    for text, answer in (("At nine.", "At nine."), ("Hm.</think>At nine.", "At nine.")):
        splitter = ReasoningSplitter("</think>", maybe=True)
        assert splitter.add(text[:4]) == ""
        assert splitter.add(text[4:]) + splitter.finish() == answer


@given(
    st.sampled_from(TAGS[:-1]), st.text("ab <>/\n", max_size=20), st.text("ab <>/\n", max_size=20), st.data()
)
def test_pieces_give_what_the_whole_text_gives(
    tags: object, thought: str, answer: str, data: st.DataObject
) -> None:
    text = f"{tags.opening}{thought}{tags.closing}{answer}"  # type: ignore[attr-defined]
    whole = ReasoningSplitter()
    expected = whole.add(text) + whole.finish()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    splitter = ReasoningSplitter()
    pieces = [splitter.add(text[a:b]) for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert "".join(pieces) + splitter.finish() == expected


def test_reply_of_an_example_is_without_its_reasoning() -> None:
    turns = (
        {"role": "user", "content": "When?"},
        {"role": "assistant", "content": "<think>Hm.</think>\n\nAt nine."},
    )
    assert Example(turns).reply == "At nine."
    assert holds_reasoning(turns[1])
    assert not holds_reasoning(turns[0])
    raw = Example(({"role": "assistant", "content": "<think>Hm.</think> raw"},))
    assert raw.reply == "<think>Hm.</think> raw"

"""An answer shown as it is made: words at once on a terminal, the whole with its citations at the end everywhere."""

from __future__ import annotations

import io
import re
from collections.abc import Generator as Running

import pytest
from rich.console import Console

from advisor.display.answer_view import show_answer, show_streaming
from runners.arms.answer import Answer
from runners.data.questions import Question
from runners.inference.types import Completion

CLEARED = "\x1b[2K"
ANSWER = Answer(
    Question("a", "What does it cost?"),
    "It costs 4 crowns. Shall I book?",
    "It costs 4 crowns. [1] Shall I book?",
    (),
    False,
    None,
    (),
    Completion("It costs 4 crowns. [2] Shall I book?", 9, 9, 0.1, "stop"),
)


def whole(width: int) -> str:
    """What `show_answer` prints of the answer."""
    screen = io.StringIO()
    show_answer(ANSWER, "rag", Console(file=screen, force_terminal=True, color_system=None, width=width))
    return screen.getvalue()


def saying(pieces: list[str], screen: io.StringIO, seen: list[str]) -> Running[str, None, Answer]:
    """Say pieces, and note what is on the screen before each."""
    for piece in pieces:
        seen.append(screen.getvalue())
        yield piece
    return ANSWER


def test_elsewhere_than_on_a_terminal_the_whole_is_all_that_is_written() -> None:
    screen, seen = io.StringIO(), []
    console = Console(file=screen, width=80)
    assert show_streaming(saying(["It costs", " 4 crowns."], screen, seen), "rag", console) is ANSWER
    assert seen == ["", ""]
    assert screen.getvalue() == whole(80)
    assert "4 crowns. [1] Shall" in screen.getvalue()


def test_on_a_terminal_words_come_first_and_give_way_to_the_whole() -> None:
    screen, seen = io.StringIO(), []
    console = Console(file=screen, force_terminal=True, color_system=None, width=80, height=20)
    said = ["It costs", " 4\x1b[31m crowns. [2]", " Shall I book?"]
    show_streaming(saying(said, screen, seen), "rag", console)
    drawn = screen.getvalue()
    assert drawn.endswith(whole(80))
    drawn = drawn.removesuffix(whole(80))
    assert "[2] Shall I book?" in drawn
    assert drawn.rindex(CLEARED) > drawn.rindex("Shall I book?")
    assert "\x1b[31m" not in drawn


@pytest.mark.parametrize("height", [1, 3, 6])
def test_an_answer_longer_than_the_screen_never_scrolls_away_uncleared(height: int) -> None:
    screen, seen = io.StringIO(), []
    console = Console(file=screen, force_terminal=True, color_system=None, width=20, height=height)
    show_streaming(saying([f"word{n} " for n in range(60)], screen, seen), "rag", console)
    drawn = screen.getvalue().removesuffix(whole(20))
    assert "word59" in drawn
    # A frame ends where the next begins to clear it, from its last line upwards.
    frames = re.split(r"\r?(?:\x1b\[1A)?\x1b\[2K", drawn)
    assert len(frames) > 1
    assert max(frame.count("\n") for frame in frames) <= max(1, height - 2)

"""Streaming of an answer: words at once on a terminal, then the complete answer with its citations."""

from __future__ import annotations

import io
import re
from collections.abc import Generator

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


def complete_output(width: int) -> str:
    """Return what `show_answer` prints of the answer."""
    screen = io.StringIO()
    show_answer(ANSWER, "rag", Console(file=screen, force_terminal=True, color_system=None, width=width))
    return screen.getvalue()


def generate_pieces(pieces: list[str], screen: io.StringIO, seen: list[str]) -> Generator[str, None, Answer]:
    """Yield pieces, and record the content of the screen before each."""
    for piece in pieces:
        seen.append(screen.getvalue())
        yield piece
    return ANSWER


def test_streaming_without_terminal_prints_complete_answer() -> None:
    screen = io.StringIO()
    seen: list[str] = []
    console = Console(file=screen, width=80)
    assert show_streaming(generate_pieces(["It costs", " 4 crowns."], screen, seen), "rag", console) is ANSWER
    assert seen == ["", ""]
    assert screen.getvalue() == complete_output(80)
    assert "4 crowns. [1] Shall" in screen.getvalue()


def test_streaming_on_terminal_replaces_words_by_answer() -> None:
    screen = io.StringIO()
    seen: list[str] = []
    console = Console(file=screen, force_terminal=True, color_system=None, width=80, height=20)
    pieces = ["It costs", " 4\x1b[31m crowns. [2]", " Shall I book?"]
    show_streaming(generate_pieces(pieces, screen, seen), "rag", console)
    output = screen.getvalue()
    assert output.endswith(complete_output(80))
    output = output.removesuffix(complete_output(80))
    assert "[2] Shall I book?" in output
    assert output.rindex(CLEARED) > output.rindex("Shall I book?")
    assert "\x1b[31m" not in output


@pytest.mark.parametrize("height", [1, 3, 6])
def test_streaming_of_long_answer_stays_within_screen(height: int) -> None:
    screen = io.StringIO()
    seen: list[str] = []
    console = Console(file=screen, force_terminal=True, color_system=None, width=20, height=height)
    show_streaming(generate_pieces([f"word{n} " for n in range(60)], screen, seen), "rag", console)
    output = screen.getvalue().removesuffix(complete_output(20))
    assert "word59" in output
    # A frame ends where the next begins to clear it, from its last line upwards.
    frames = re.split(r"\r?(?:\x1b\[1A)?\x1b\[2K", output)
    assert len(frames) > 1
    assert max(frame.count("\n") for frame in frames) <= max(1, height - 2)

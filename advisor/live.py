"""An answer as it is made: on a terminal its words appear while the model generates them, elsewhere it comes whole."""

from __future__ import annotations

from collections.abc import Generator as Running
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.text import Text

from advisor.sources import show_answer
from rag.clean import visible

if TYPE_CHECKING:
    from runners.answer import Answer


def show_as_made(pieces: Running[str, None, Answer], arm: str, console: Console | None = None) -> Answer:
    """Print an answer piece by piece, then, in its place, the whole with its citations; return it.

    A sentence gets its citations when it is whole. Where the output is no terminal, nothing is drawn before the
    whole.
    """
    console = console or Console()
    said = ""
    with Live(console=console, refresh_per_second=12, transient=True) as live:
        while True:
            try:
                said += next(pieces)
            except StopIteration as end:
                answer: Answer = end.value
                break
            live.update(_tail(said, console))
    show_answer(answer, arm, console)
    return answer


def _tail(said: str, console: Console) -> Text:
    """The last lines that fit: what has left the screen at its top could not be cleared again."""
    lines = Text(visible(said)).wrap(console, console.width)
    return Text("\n").join(lines[-max(1, console.height - 2) :])

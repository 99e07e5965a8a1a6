"""Training rows as the model sees them, drawn for a person: what is learnt, what is not, and the special tokens."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from runners.chat import Chat, Encoded
from runners.shown import Segment, Shown, shown

OPEN, CLOSE = "⟦", "⟧"
"""Around what is learnt, where there is no colour."""


def show(
    rows: Sequence[Encoded], chat: Chat, n: int, max_tokens: int | None = None, console: Console | None = None
) -> None:
    """Print the first ``n`` rows: green is learnt, dim is not, special tokens are framed in reverse.

    Without a terminal, or with NO_COLOR, the learnt parts stand in ⟦ ⟧ and nothing else is added. ``max_tokens``
    marks the rows that are too long, and therefore left out.
    """
    console = console or Console(highlight=False)
    coloured = console.is_terminal and not console.no_color and console.color_system is not None
    for row in shown(rows, chat, n, max_tokens):
        console.print(Text(_title(row), style="bold" if coloured else ""), soft_wrap=True)
        body = _coloured(row.segments) if coloured else Text(plain(row.segments))
        console.print(body, soft_wrap=True)
    if coloured and n and rows:
        console.print(
            Text.assemble(
                ("learnt", "green"), "  ", ("not learnt", "dim"), "  ", ("special token", "reverse dim")
            )
        )


def plain(segments: Sequence[Segment]) -> str:
    """Return the text with its learnt runs in ⟦ ⟧."""
    text, inside = "", False
    for segment in segments:
        if segment.learnt != inside:
            text += OPEN if segment.learnt else CLOSE
            inside = segment.learnt
        text += segment.text
    return text + (CLOSE if inside else "")


def _coloured(segments: Sequence[Segment]) -> Text:
    text = Text()
    for segment in segments:
        colour = "green" if segment.learnt else "dim"
        text.append(segment.text, style=f"{colour} reverse" if segment.special else colour)
    return text


def _title(row: Shown) -> str:
    note = f" ({row.note})" if row.note else ""
    return f"--- {row.place}: {row.tokens:,} tokens, {row.learnt:,} learnt{note}"

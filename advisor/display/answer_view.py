"""What the terminal shows of an answer: its text, and below it sources, contradictions and what was searched.

An answer as it is made: on a terminal its words appear while the model generates them, elsewhere it comes whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console

from advisor.output import print_plain
from rag.text.sanitize import defang_text, single_line
from rag.types import Citation

if TYPE_CHECKING:
    from rag.grounding.conflicts import Conflict
    from runners.arms.answer import Answer
from collections.abc import Generator as Running
from typing import TYPE_CHECKING

from rich.live import Live
from rich.text import Text

from rag.text.sanitize import strip_invisible

if TYPE_CHECKING:
    from runners.arms.answer import Answer


_LONGEST = 160
"""Letters of a passage that is offered."""


def marked_answer(answer: Answer) -> str:
    """Return the answer as the terminal shows it: `[?]` after a sentence that no passage supports, `[1?]` for partly."""
    shown, at = "", 0
    text = answer.marked
    for c in answer.citations:
        if c.support == "supported" or c.answer_end < at:
            continue
        mark = f" [{c.n}]"
        shown += text[at : c.answer_end] + (" [?]" if not c.n else f" [{c.n}?]")
        at = c.answer_end + (len(mark) if c.n and text.startswith(mark, c.answer_end) else 0)
    return shown + text[at:]


def answer_notes(answer: Answer) -> Iterator[tuple[str, str]]:
    """Yield the lines below an answer, each with its kind: source, doubt, conflict or nearest."""
    for n, text in dict.fromkeys((c.n, _citation(c, answer)) for c in answer.citations):
        yield "source" if n else "doubt", text
    for conflict in answer.conflicts:
        yield "conflict", f"the sources disagree ({_difference(conflict)}):"
        for side in conflict.sides:
            newer = ", newer" if side.n == conflict.newer else ""
            about = _dated(side.date, side.valid_until, False)
            yield "conflict", f'  [{side.n}] {side.location()}{about}{newer}: "{defang_text(side.quote)}"'
    if answer.found is not None:
        yield from (("nearest", single_line(note)) for note in answer.found.notes)
        if answer.refused:
            yield from _looked(answer)


def _citation(c: Citation, answer: Answer) -> str:
    if not c.n:
        said = single_line(answer.marked[c.answer_start : c.answer_end])
        return f'[?] no passage says this (unsupported): "{said}"'
    partly = "" if c.supported else " bears out a part only"
    return (
        f'[{c.n}] {c.location()}{_dated(c.date, c.valid_until, c.expired)}{partly}: "{defang_text(c.quote)}"'
    )


def _looked(answer: Answer) -> Iterator[tuple[str, str]]:
    found = answer.searched
    if found:
        yield (
            "nearest",
            f"searched {found['documents']:,} documents, {found['passages']:,} passages; nearest:",
        )
    for n, hit in enumerate(answer.nearest_hits, start=1):
        text = defang_text(hit.chunk.text)
        short = text if len(text) <= _LONGEST else f"{text[:_LONGEST].rsplit(' ', 1)[0]} …"
        yield (
            "nearest",
            f'  [{n}] {hit.chunk.location()}{_dated(hit.date, hit.valid_until, hit.expired)}: "{short}"',
        )


def _dated(date: str, valid_until: str, expired: bool) -> str:
    until = f"{'expired' if expired else 'valid until'} {single_line(valid_until)}" if valid_until else ""
    known = ", ".join(filter(None, (single_line(date), until)))
    return f" ({known})" if known else ""


def _difference(conflict: Conflict) -> str:
    return {"denial": "one denies what the other says"}.get(conflict.about, f"different {conflict.about}")


def show_answer(answer: Answer, arm: str, console: Console | None = None) -> None:
    """Print an answer and where each cited passage stands."""
    console = console or Console()
    print_plain(console, marked_answer(answer))
    show_sources(answer, arm, console)


def show_sources(answer: Answer, arm: str, console: Console | None = None) -> None:
    """Print what stands below an answer: its sources, what contradicts them, and what was searched in vain."""
    console = console or Console()
    for kind, text in answer_notes(answer):
        print_plain(console, f"  {text}", "yellow" if kind in ("doubt", "conflict") else "dim")
    note = "the documents do not hold an answer" if answer.refused else f"arm: {arm}"
    print_plain(console, f"  ({note})", "dim")


def show_streaming(pieces: Running[str, None, Answer], arm: str, console: Console | None = None) -> Answer:
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
    lines = Text(strip_invisible(said)).wrap(console, console.width)
    return Text("\n").join(lines[-max(1, console.height - 2) :])

"""Shows an answer on the terminal: its text, and below it the sources, contradictions, and what was searched.

:func:`show_answer` prints a complete answer, :func:`show_streaming` prints it while the model generates it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from advisor.output import open_console, print_plain
from rag.refusal.relevance import BESIDE
from rag.text.sanitize import defang_text, single_line, strip_invisible
from rag.text.words import count_noun
from rag.types import Citation

if TYPE_CHECKING:
    from rag.grounding.conflicts import Conflict
    from runners.arms.answer import Answer


_MAX_PASSAGE_CHARACTERS = 160
"""Most characters shown of one of the nearest passages."""


def marked_answer(answer: Answer) -> str:
    """Return the answer as the terminal shows it.

    A sentence that no passage supports is followed by `[?]`; a citation that supports a part only, or something else than
    was asked, is written `[1?]`.
    """
    marked, position = "", 0
    text = answer.marked
    for citation in answer.citations:
        if citation.support == "supported" or citation.answer_end < position:
            continue
        plain_mark = f" [{citation.n}]"
        marked += text[position : citation.answer_end] + (" [?]" if not citation.n else f" [{citation.n}?]")
        position = citation.answer_end + (
            len(plain_mark) if citation.n and text.startswith(plain_mark, citation.answer_end) else 0
        )
    return marked + text[position:]


def answer_notes(answer: Answer) -> Iterator[tuple[str, str]]:
    """Yield (kind, text) of each line below an answer; kinds are source, doubt, conflict and nearest."""
    if answer.completion.reasoning_cut:
        tokens = answer.completion.reasoning_tokens
        yield (
            "doubt",
            f"no answer: the reasoning before it reached {tokens} tokens (the plan's thinking.max_tokens)",
        )
    for number, text in dict.fromkeys(
        (citation.n, _citation(citation, answer)) for citation in answer.citations
    ):
        yield "source" if number else "doubt", text
    for conflict in answer.conflicts:
        yield "conflict", f"the sources disagree ({_difference(conflict)}):"
        for side in conflict.sides:
            newer = ", newer" if side.n == conflict.newer else ""
            dates = _dated(side.date, side.valid_until, False)
            yield "conflict", f'  [{side.n}] {side.location()}{dates}{newer}: "{defang_text(side.quote)}"'
    if lookups := answer.completion.lookups:
        asked = f"{count_noun(lookups.calls, 'call')} in {count_noun(lookups.requests, 'request')}"
        ended = f"; the limit of {lookups.limit} was reached" if lookups.limit else ""
        yield "nearest", f"looked up: {asked}{ended}"
    if nearest := answer.completion.nearest:
        question = defang_text(nearest.question[:_MAX_PASSAGE_CHARACTERS])
        yield "nearest", f'nearest question: "{single_line(question)}" (similarity {nearest.similarity:.2f})'
    if answer.found is not None:
        yield from (("nearest", single_line(note)) for note in answer.found.notes)
        if answer.refused:
            yield from _searched(answer)


def show_answer(answer: Answer, arm: str, console: Console | None = None) -> None:
    """Print an answer and its sources."""
    console = console or open_console()
    print_plain(console, marked_answer(answer))
    show_sources(answer, arm, console)


def show_sources(answer: Answer, arm: str, console: Console | None = None) -> None:
    """Print the lines below an answer: its sources, what contradicts them, and for a refusal what was searched."""
    console = console or open_console()
    for kind, text in answer_notes(answer):
        print_plain(console, f"  {text}", "yellow" if kind in ("doubt", "conflict") else "dim")
    nearest = answer.completion.nearest
    by = f", answered by {answer.arm}" if answer.arm and answer.arm != arm else ""
    note = f"arm: {arm}{by}"
    if answer.refused:
        is_far = nearest is not None and not nearest.given
        note = "no reply is near enough" if is_far else answer.why_refused
    print_plain(console, f"  ({note})", "dim")


def show_streaming(pieces: Generator[str, None, Answer], arm: str, console: Console | None = None) -> Answer:
    """Print an answer while it is generated, then replace it by the complete answer with its citations; return it.

    Where the output is not a terminal, only the complete answer is printed.

    Args:
        pieces: generator of text, which returns the answer at its end.
        arm: name of the arm that answers.
        console: where to print; a new console by default.
    """
    console = console or open_console()
    text = ""
    waiting = Spinner("dots", Text("reading the question", "dim"))
    with Live(waiting, console=console, refresh_per_second=12, transient=True) as live:
        while True:
            try:
                text += next(pieces)
            except StopIteration as stop:
                answer: Answer = stop.value
                break
            live.update(_tail(text, console))
    show_answer(answer, arm, console)
    return answer


def _citation(citation: Citation, answer: Answer) -> str:
    if not citation.n:
        sentence = single_line(answer.marked[citation.answer_start : citation.answer_end])
        return f'[?] not supported by any passage: "{sentence}"'
    partial = "" if citation.supported else " supports a part only"
    partial = " says so with a restriction that the sentence lacks" if citation.limited else partial
    partial = " says this, but it seems not to be what was asked" if citation.support == BESIDE else partial
    dates = _dated(citation.date, citation.valid_until, citation.expired)
    return f'[{citation.n}] {citation.location()}{dates}{partial}: "{defang_text(citation.quote)}"'


def _searched(answer: Answer) -> Iterator[tuple[str, str]]:
    searched, lookups = answer.searched, answer.completion.lookups
    if searched and lookups:
        read = count_noun(lookups.passages, "passage")
        yield "nearest", f"of {count_noun(searched['documents'], 'document')} it read {read}"
    elif searched:
        yield (
            "nearest",
            f"searched {count_noun(searched['documents'], 'document')}, "
            f"{count_noun(searched['passages'], 'passage')}; nearest:",
        )
    for number, hit in enumerate(answer.nearest_hits, start=1):
        text = defang_text(hit.chunk.text)
        excerpt = (
            text
            if len(text) <= _MAX_PASSAGE_CHARACTERS
            else f"{text[:_MAX_PASSAGE_CHARACTERS].rsplit(' ', 1)[0]} …"
        )
        yield (
            "nearest",
            f"  [{number}] {hit.chunk.location()}{_dated(hit.date, hit.valid_until, hit.expired)}, "
            f'cosine {round(hit.dense, 4):.2f}: "{excerpt}"',
        )


def _dated(date: str, valid_until: str, expired: bool) -> str:
    validity = f"{'expired' if expired else 'valid until'} {single_line(valid_until)}" if valid_until else ""
    parts = ", ".join(filter(None, (single_line(date), validity)))
    return f" ({parts})" if parts else ""


def _difference(conflict: Conflict) -> str:
    return {"denial": "one contradicts the other"}.get(conflict.about, f"different {conflict.about}")


def _tail(text: str, console: Console) -> Text:
    """Return the last lines that fit on the screen: lines that scrolled off its top could not be cleared again."""
    lines = Text(strip_invisible(text)).wrap(console, console.width)
    return Text("\n").join(lines[-max(1, console.height - 2) :])

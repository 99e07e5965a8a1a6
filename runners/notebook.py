"""What a notebook shows: small pieces of HTML in which whatever somebody wrote is text, never markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from rag.clean import line, visible

if TYPE_CHECKING:
    from runners.answer import Answer

_CELL = "text-align:left;padding:0 1em 0 0"


def text(said: object) -> str:
    """Return a text on one line, harmless in HTML: escaped, without control characters."""
    return escape(line(str(said)))


def paragraph(said: object, style: str = "") -> str:
    """Return a paragraph; line breaks of the text are kept."""
    body = escape(visible(str(said))).replace("\n", "<br>")
    return f'<p style="{style}">{body}</p>' if style else f"<p>{body}</p>"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; every cell is text."""
    drawn = "".join(f'<th style="{_CELL}">{text(cell)}</th>' for cell in head)
    cells = ("".join(f'<td style="{_CELL}">{text(cell)}</td>' for cell in row) for row in rows)
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    return f"<table><thead><tr>{drawn}</tr></thead><tbody>{body}</tbody></table>"


def bullets(items: Iterable[object]) -> str:
    """Return a list; every item is text."""
    return "<ul>" + "".join(f"<li>{text(item)}</li>" for item in items) + "</ul>"


def answer(given: Answer) -> str:
    """Return an answer with the passages it cites; nothing in it can be fetched, clicked or run."""
    cited = [f"[{c.n}] {c.location()}: “{c.quote}”" for c in given.citations if c.n]
    doubts = sum(1 for c in given.citations if not c.n)
    parts = [paragraph(given.marked)]
    parts += [bullets(dict.fromkeys(cited))] if cited else []
    if doubts:
        parts.append(paragraph(f"{doubts} of its sentences are borne out by no passage.", "color:#b35900"))
    note = "the documents do not hold an answer" if given.refused else f"arm: {given.arm}" * bool(given.arm)
    return "<div>" + "".join(parts) + (f"<small>{text(note)}</small>" if note else "") + "</div>"

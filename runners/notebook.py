"""HTML snippets for ``_repr_html_`` in notebooks; all values are escaped, so that text is never markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from rag.text.sanitize import single_line, strip_invisible

_CELL = "text-align:left;padding:0 1em 0 0"


def html_text(value: object) -> str:
    """Return a value as one line of HTML text: escaped, without control characters."""
    return escape(single_line(str(value)))


def html_paragraph(value: object, style: str = "") -> str:
    """Return a paragraph; line breaks of the text become ``<br>``."""
    body = escape(strip_invisible(str(value))).replace("\n", "<br>")
    return f'<p style="{style}">{body}</p>' if style else f"<p>{body}</p>"


def html_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; every cell is text."""
    header = "".join(f'<th style="{_CELL}">{html_text(cell)}</th>' for cell in head)
    cells = ("".join(f'<td style="{_CELL}">{html_text(cell)}</td>' for cell in row) for row in rows)
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    return f"<table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>"


def html_list(items: Iterable[object]) -> str:
    """Return a list; every item is text."""
    return "<ul>" + "".join(f"<li>{html_text(item)}</li>" for item in items) + "</ul>"

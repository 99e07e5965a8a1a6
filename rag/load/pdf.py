"""PDF through pypdf: the text of each page, with ``page_starts`` in the metadata."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any

from rag.load.base import Assembly, Unreadable, clean, paragraphs
from rag.load.matter import properties
from rag.types import Document

_INFO = {"/Author": "author", "/Subject": "subject", "/Keywords": "tags", "/Title": "title"}


def read(id: str, data: bytes) -> Iterator[Document]:
    """Yield the file as one document; blocks never cross a page."""
    from pypdf.errors import PyPdfError

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        info, pages, hidden = _read(data)
    except (MemoryError, Unreadable):
        raise
    except (PyPdfError, Exception) as error:  # a PDF parser meets every kind of broken file
        raise Unreadable(f"not a readable PDF: {type(error).__name__}: {error}"[:200]) from error
    made = Assembly()
    for page in pages:
        made.page()
        for block in paragraphs(page):
            made.add("paragraph", block.text)
    if not made.blocks:
        raise Unreadable(f"no text on its {len(pages)} pages: scanned pages need text recognition first")
    title = str(info.pop("title", ""))
    yield made.document(id, title, "pdf", info, hidden)


def _read(data: bytes) -> tuple[dict[str, Any], list[str], int]:
    """Return the properties, the text of every page, and the characters drawn invisibly."""
    from pypdf import PdfReader

    reader = PdfReader(io.BytesIO(data))
    if reader.is_encrypted and not reader.decrypt(""):
        raise Unreadable("encrypted: it needs a password")
    pages, hidden = [], 0
    for page in reader.pages:
        text, unseen = _page(page)
        pages.append(text)
        hidden += unseen
    return _properties(reader), pages, hidden


def _properties(reader: Any) -> dict[str, Any]:
    try:
        info: Any = reader.metadata or {}
        found = {name: clean(str(info[key])).strip() for key, name in _INFO.items() if info.get(key)}
        dates = {"date": info.creation_date, "updated": info.modification_date} if info else {}
    except Exception:  # broken properties are no reason to lose the pages
        return {}
    return properties({**found, **{name: day for name, day in dates.items() if day}})


def _page(page: Any) -> tuple[str, int]:
    """Return a page's text and how much text on it is drawn invisibly (white, or in a size near 0)."""
    ink = _Ink()
    text = page.extract_text(visitor_operand_before=ink.operand, visitor_text=ink.text)
    return (clean(ink.shown()) if ink.hidden else clean(text)), ink.hidden


class _Ink:
    """Follows fill colour and text mode through a page's drawing operations.

    Text in mode 3 is what text recognition lays under a scanned page: it is the page's text, not hidden.
    """

    def __init__(self) -> None:
        self.hidden = 0
        self._white = False
        self._painted = False
        self._saved: list[bool] = []
        self._parts: list[str] = []

    def operand(self, operator: bytes, operands: Any, *_: Any) -> None:
        if operator == b"q":
            self._saved.append(self._white)
        elif operator == b"Q" and self._saved:
            self._white = self._saved.pop()
        elif operator in (b"g", b"rg", b"sc", b"scn") and operands:
            self._white = all(_near(value, 1.0) for value in operands)
        elif operator == b"k" and operands:
            self._white = all(_near(value, 0.0) for value in operands)
        elif operator in (b"f", b"F", b"f*", b"B", b"B*", b"Do", b"sh") and not self._white:
            self._painted = True  # a dark ground may stand behind white text from here on

    def text(self, text: str, _cm: Any, tm: Any, _font: Any, size: Any) -> None:
        tiny = bool(text.strip()) and abs(float(size or 0) * _scale(tm)) < 0.5
        if text.strip() and ((self._white and not self._painted) or tiny):
            self.hidden += sum(not char.isspace() for char in text)
            self._parts.append("\n" if "\n" in text else " ")
        else:
            self._parts.append(text)

    def shown(self) -> str:
        return "".join(self._parts)


def _near(value: Any, target: float) -> bool:
    try:
        return abs(float(value) - target) < 0.02
    except (TypeError, ValueError):
        return False


def _scale(matrix: Any) -> float:
    try:
        return max(abs(float(matrix[0])), abs(float(matrix[1])), abs(float(matrix[3])))
    except (TypeError, ValueError, IndexError):
        return 1.0
